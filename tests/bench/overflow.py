"""Overflow: the daemon stands still while connections come and go, more than its buffer holds.

Ours is judged twice: with its own buffer, which holds them all, and with one of mptcpd's size,
where events are lost and its objects must be as ss(8) shows the connections within a second.
"""
# SPDX-License-Identifier: BSD-3-Clause

import os
import signal
import time
from dataclasses import dataclass

from tests.bench.daemons import Name
from tests.bench.figures import Figure, Pairs, alternate
from tests.bench.follow import follow
from tests.bench.setting import Setting
from tests.lab.client import ROOT, BusClient
from tests.lab.wait import eventually

GONE, LIVE, AFTER = 3_000, 200, 100
SMALL = 212_992 // 2  # what the kernel doubles to the default of its sockets, which mptcpd has


@dataclass(frozen=True)
class Stopped:
    """What one daemon lost of what happened while it was stopped, and afterwards."""

    meanwhile: int
    after: int


async def overflow(it: Setting, quick: bool) -> list[Figure]:
    """Compare, then see ours lose events, too."""

    async def measure(name: Name) -> Stopped:
        async with it.running(name) as subject:
            meanwhile = await follow(it, subject, _stopped(it, subject.pid))
            after = await follow(it, subject, it.churn(AFTER))
            await it.let_go()
            return Stopped(meanwhile.lost, after.lost)

    rounds = 1 if quick else 3
    found: Pairs[Stopped] = await alternate(rounds, measure)
    late = [await _resynchronised(it) for _ in range(rounds)]
    events = 3 * GONE + 2 * LIVE
    what = f"stopped for {GONE + LIVE:,} connections"
    return [
        found.figure(
            (what, f"of {events:,} events lost", ""),
            lambda one: one.meanwhile,
            most=0,
            judged="ours",
        ),
        found.figure(
            (what, f"of {3 * AFTER} events afterwards lost", ""),
            lambda one: one.after,
            most=0,
            judged="ours",
        ),
        Figure(
            *(f"{what}, small buffer", "objects equal ss -M after", "s", max(late)),
            most=1.0,
            judged="ours",
        ),
    ]


async def _stopped(it: Setting, pid: int) -> float:
    """Have a process sleep through everything."""
    os.kill(pid, signal.SIGSTOP)
    try:
        return await it.churn(GONE) + await it.hold(LIVE)
    finally:
        os.kill(pid, signal.SIGCONT)


async def _resynchronised(it: Setting) -> float:
    """Give the seconds from when ours goes on until its objects are right."""
    async with (
        it.running("ours", buffer=SMALL) as subject,
        await BusClient.connect() as viewer,
    ):
        await _stopped(it, subject.pid)
        began = time.monotonic()

        async def right() -> bool:
            manager = "org.mptcpd1.Manager"
            listed = await viewer.call(ROOT, manager, "ListConnections", "a{sv}uu", {}, 0, 0)
            return {token for _, token in listed} == it.lab.tokens("client")

        await eventually(right, within=10)
        took = time.monotonic() - began
        assert await viewer.get(ROOT, "org.mptcpd1.Manager", "EventsLost"), "nothing was lost"
        await it.let_go()
        return took

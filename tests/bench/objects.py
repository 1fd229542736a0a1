"""GetManagedObjects with 10,000 connections: what the answer costs, and how long it holds the loop.

The hold is measured from outside: a policy joins a connection when it is established, and the SYN
of the join tells when the loop came to that.  The longest such time while answers are made, beside
the longest without: there is no bus in it, which copies such an answer for longer than ours makes
it.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from statistics import median

from tests.bench.account import cpu, spent
from tests.bench.command import latencies
from tests.bench.daemons import Subject
from tests.bench.figures import Figure
from tests.bench.setting import Setting
from tests.e2e.hostile_wire import BUS, ROOT, RawBus, message

LIVE = 10_000
WARM = 5  # answers
CALL = message(ROOT, f"{BUS}.ObjectManager", "GetManagedObjects")
JOINS, RATE = 400, 200
PAUSE = 0.3  # seconds between two answers
WARM_WANTED, STALL_WANTED = 60, 20  # milliseconds


@dataclass(frozen=True)
class Answers:
    """Milliseconds."""

    cold: float
    warm: float
    quiet: float
    stall: float


async def objects(it: Setting, quick: bool) -> list[Figure]:
    """Measure ours; mptcpd has no such thing."""
    count = LIVE // 10 if quick else LIVE
    found = [await _round(it, count) for _ in range(1 if quick else 3)]
    what = f"objects of {count:,} connections"
    cold, warm, quiet, stall = (
        median(getattr(one, name) for one in found) for name in Answers.__annotations__
    )
    return [
        Figure(what, "CPU of an answer, cold", "ms", cold),
        Figure(what, "CPU of an answer, warm", "ms", warm, most=WARM_WANTED, judged="ours"),
        Figure(what, "longest hold without any answer", "ms", quiet),
        Figure(what, "longest hold while answering", "ms", stall, most=STALL_WANTED, judged="ours"),
    ]


async def _round(it: Setting, count: int) -> Answers:
    await it.hold_aside(count)
    bus = RawBus()
    async with it.running("ours", "join") as subject:  # which has packed none of them yet
        cold = await _answer(subject, bus)
        warm = median([await _answer(subject, bus) for _ in range(WARM)])
        quiet = await _longest(it, it.hold(JOINS, RATE))
        stall = await _longest(it, _meanwhile(it, bus))
        await it.let_go()
    bus.socket.close()
    return Answers(cold, warm, quiet, stall)


async def _answer(subject: Subject, bus: RawBus) -> float:
    before = cpu(subject.pid)
    await asyncio.to_thread(bus.ask, CALL)
    return await spent(subject.pid, before) * 1e3


async def _longest(it: Setting, holding: Awaitable[object]) -> float:
    return max(await latencies(it.lab, it.port, JOINS, holding)) * 1e3


async def _meanwhile(it: Setting, bus: RawBus) -> None:
    """Ask for everything, now and then, as long as connections come."""
    holding = asyncio.ensure_future(it.hold(JOINS, RATE))
    while not holding.done():
        answer = await asyncio.to_thread(bus.ask, CALL)
        assert not answer.error, answer.error
        await asyncio.sleep(PAUSE)
    await holding

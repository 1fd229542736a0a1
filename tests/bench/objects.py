"""GetManagedObjects with 10,000 connections: what an answer costs, and how long it holds the loop.

The loop is looked at from inside (`holds.py`), and from outside: a policy joins a connection when
it is established, and the SYN of the join tells how long that waited.  The same without any answer
is beside it.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from statistics import median

from tests.bench.account import cpu, spent
from tests.bench.command import latencies
from tests.bench.daemons import Subject, ours
from tests.bench.figures import Figure
from tests.bench.setting import Setting
from tests.e2e.hostile_wire import BUS, ROOT, RawBus, message

LIVE = 10_000
WARM = 5  # answers
CALL = message(ROOT, f"{BUS}.ObjectManager", "GetManagedObjects")
JOINS, RATE = 400, 200
PAUSE = 0.3  # seconds between two answers
WARM_WANTED, HOLD_WANTED = 60, 20  # milliseconds


@dataclass(frozen=True)
class Answers:
    """Milliseconds; a hold and a wait are the longest of all."""

    cold: float
    cold_hold: float
    warm: float
    hold: float
    wait: float
    quiet_hold: float
    quiet_wait: float


async def objects(it: Setting, quick: bool) -> list[Figure]:
    """Measure ours; mptcpd has no such thing."""
    count = LIVE // 10 if quick else LIVE
    found = [await _round(it, count) for _ in range(1 if quick else 3)]
    what = f"objects of {count:,} connections"
    middle = {name: median(getattr(one, name) for one in found) for name in Answers.__annotations__}

    def figure(row: str, name: str, most: float | None = None) -> Figure:
        return Figure(what, row, "ms", middle[name], most=most, judged="ours")

    return [
        figure("CPU of an answer, cold", "cold"),
        figure("CPU of an answer, warm", "warm", WARM_WANTED),
        figure("longest hold of the loop, cold answer", "cold_hold", HOLD_WANTED),
        figure("longest hold of the loop, warm answers", "hold", HOLD_WANTED),
        figure("longest hold of the loop, no answer", "quiet_hold"),
        figure("longest wait for a join, warm answers", "wait"),
        figure("longest wait for a join, no answer", "quiet_wait"),
    ]


async def _round(it: Setting, count: int) -> Answers:
    await it.hold_aside(count)
    bus = RawBus()
    async with ours(it.lab, it.subscriber, "hold") as subject:  # it has packed none of them yet
        await spent(subject.pid, 0)  # it has found them
        holds = subject.holds
        assert holds is not None
        holds.longest()
        cold = await _answer(subject, bus)
        cold_hold = holds.longest()
        warm = median([await _answer(subject, bus) for _ in range(WARM)])
        holds.longest()
        quiet_wait = await _longest(it, it.hold(JOINS, RATE))
        quiet_hold = holds.longest()
        wait = await _longest(it, _meanwhile(it, bus))
        hold = holds.longest()
        await it.let_go()
    bus.socket.close()
    waits = (1e3 * seconds for seconds in (hold, wait, quiet_hold, quiet_wait))
    return Answers(cold, 1e3 * cold_hold, warm, *waits)


async def _answer(subject: Subject, bus: RawBus) -> float:
    before = cpu(subject.pid)
    await asyncio.to_thread(bus.ask, CALL)
    return await spent(subject.pid, before) * 1e3


async def _longest(it: Setting, holding: Awaitable[object]) -> float:
    return max(await latencies(it.lab, it.port, JOINS, holding))


async def _meanwhile(it: Setting, bus: RawBus) -> None:
    """Ask for everything, now and then, as long as connections come."""
    holding = asyncio.ensure_future(it.hold(JOINS, RATE))
    while not holding.done():
        answer = await asyncio.to_thread(bus.ask, CALL)
        assert not answer.error, answer.error
        await asyncio.sleep(PAUSE)
    await holding

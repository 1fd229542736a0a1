"""Churn: connections that come, say a byte and go, three events each, and what an event costs.

Ours sends a signal for every event to one subscriber, mptcpd calls a plugin that counts.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Awaitable
from dataclasses import dataclass
from statistics import median

from tests.bench.account import cpu, spent
from tests.bench.daemons import Name, Subject
from tests.bench.figures import Figure, alternate
from tests.bench.setting import Setting
from tests.lab.wait import eventually

RATES = {"churn, as fast as it goes": (0, 5_000), "churn, 1,000 a second": (1_000, 3_000)}
SILENT = 100  # looks of a hundredth of a second without news: what is missing is lost


@dataclass(frozen=True)
class Run:
    """What one daemon has made of it."""

    events: int
    handled: int
    cost: float
    """Microseconds of CPU per event handled."""
    bus: float
    """Microseconds of the bus daemon's CPU per event handled."""
    rate: float
    """Connections in a second."""

    @property
    def lost(self) -> int:
        """Events that were not handled."""
        return self.events - self.handled


async def churn(it: Setting, quick: bool) -> list[Figure]:
    """Compare at both rates."""
    figures = []
    for words, (rate, count) in RATES.items():

        async def measure(name: Name, count: int = count, rate: float = rate) -> Run:
            async with it.running(name) as subject:
                return await run(it, subject, it.churn(count, rate), count)

        runs = await alternate(1 if quick else 5, measure)
        bus = median(one.bus for one in runs.ours)
        figures += [
            runs.figure((words, "CPU per event handled", "us"), lambda run: run.cost, most=1.0),
            runs.figure(
                (words, "events lost in all rounds", ""),
                lambda run: run.lost,
                how=sum,
                most=0,
                judged="ours",
            ),
            runs.figure((words, "connections reached", "/s"), lambda run: run.rate),
            Figure(words, "CPU of dbus-daemon per signal", "us", bus),
        ]
    return figures


async def run(it: Setting, subject: Subject, loading: Awaitable[float], count: int) -> Run:
    """Let a daemon see what so many connections do, which takes the seconds that it gives."""
    it.truth.forget()
    earlier = await subject.handled()
    before, bus = cpu(subject.pid), cpu(it.bus.pid)
    took = await loading
    events = it.truth.events()
    handled = await handled_in_all(subject, earlier + events) - earlier
    seconds = await spent(subject.pid, before)
    each = 1e6 / max(handled, 1)
    return Run(events, handled, seconds * each, (cpu(it.bus.pid) - bus) * each, count / took)


async def handled_in_all(subject: Subject, wanted: int) -> int:
    """Wait until it has handled so many, or no more come; give how many it has."""
    seen = [await subject.handled()]

    async def over() -> bool:
        seen.append(await subject.handled())
        return seen[-1] >= wanted or (len(seen) > SILENT and seen[-1] == seen[-1 - SILENT])

    await eventually(over, within=60)
    return seen[-1]

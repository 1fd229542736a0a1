"""A daemon while something happens: what it has handled of that, and what it has cost."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Awaitable
from dataclasses import dataclass
from math import inf

from tests.bench.account import cpu, spent
from tests.bench.daemons import Subject
from tests.bench.figures import Figure, Pairs
from tests.bench.setting import Setting
from tests.lab.wait import eventually

SILENT = 100  # looks of a hundredth of a second without news: what is missing is lost


@dataclass(frozen=True)
class Run:
    """What there was to handle, and what one daemon has made of it."""

    events: int
    handled: int
    seconds: float
    """Its CPU time."""
    bus_seconds: float
    """The bus daemon's."""
    took: float

    @property
    def lost(self) -> int:
        """Events that were not handled."""
        return self.events - self.handled

    @property
    def cost(self) -> float:
        """Microseconds of CPU per event handled; no number is enough for none."""
        return self.seconds / self.handled * 1e6 if self.handled else inf

    @property
    def bus(self) -> float:
        """Microseconds of the bus daemon's CPU per event handled."""
        return self.bus_seconds / max(self.handled, 1) * 1e6


async def follow(
    it: Setting, subject: Subject, happening: Awaitable[float], events: int | None = None
) -> Run:
    """Let it see what happens, which tells its seconds; what it does until it rests counts.

    The events are those of connections, or so many others.
    """
    it.truth.forget()
    earlier = await subject.handled()
    before, bus = cpu(subject.pid), cpu(it.bus.pid)
    took = await happening
    wanted = it.truth.events() if events is None else events
    seen = [await subject.handled() - earlier]

    async def over() -> bool:
        seen.append(await subject.handled() - earlier)
        return seen[-1] >= wanted or (len(seen) > SILENT and seen[-1] == seen[-1 - SILENT])

    await eventually(over, within=60)
    seconds = await spent(subject.pid, before)
    return Run(wanted, seen[-1], seconds, cpu(it.bus.pid) - bus, took)


def lost(what: str, runs: Pairs[Run]) -> Figure:
    """Make the row of lost events."""
    return runs.figure(
        (what, "events lost in all rounds", ""),
        lambda run: run.lost,
        how=sum,
        most=0,
        judged="ours",
    )

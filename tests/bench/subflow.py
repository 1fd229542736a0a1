"""A subflow on each of 2,000 connections, asked for by a policy: a plugin of each daemon."""
# SPDX-License-Identifier: BSD-3-Clause

from contextlib import suppress
from dataclasses import dataclass

from tests.bench.daemons import Name
from tests.bench.figures import Figure, alternate
from tests.bench.follow import Run, follow
from tests.bench.setting import Setting
from tests.bench.truth import JOINED
from tests.lab.wait import eventually

COUNT, RATE = 2_000, 200  # joins and their answers for both; a faster rate is `command`'s
PATIENCE = 5.0  # seconds for the last one


@dataclass(frozen=True)
class Joined:
    """What one daemon has made of it."""

    run: Run
    missing: int


async def subflow(it: Setting, quick: bool) -> list[Figure]:
    """Compare what an event costs when every fourth is the outcome of a command."""
    count = COUNT // 10 if quick else COUNT

    async def measure(name: Name) -> Joined:
        async with it.running(name, "join") as subject:
            found = await follow(it, subject, _joined(it, count))
            joined = it.truth.counts[JOINED]
            await it.let_go()
            return Joined(found, count - joined)

    found = await alternate(1 if quick else 3, measure)
    what = f"subflow on each of {count:,}"
    return [
        found.figure((what, "CPU per event handled", "us"), lambda one: one.run.cost),
        found.figure(
            (what, "subflows missing in all rounds", ""),
            lambda one: one.missing,
            how=sum,
            most=0,
            judged="ours",
        ),
    ]


async def _joined(it: Setting, count: int) -> float:
    """Have connections come, and wait for the subflow of each."""
    took = await it.hold(count, RATE)

    def all_joined() -> bool:
        it.truth.events()
        return it.truth.counts[JOINED] == count

    with suppress(AssertionError):  # then some are missing
        await eventually(all_joined, within=PATIENCE)
    return took

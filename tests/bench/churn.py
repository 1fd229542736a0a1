"""Churn: connections that come, say a byte and go, three events each, and what an event costs.

Ours sends a signal for every event to one subscriber, mptcpd calls a plugin that counts.
"""
# SPDX-License-Identifier: BSD-3-Clause

from statistics import median

from tests.bench.daemons import Name
from tests.bench.figures import Figure, alternate
from tests.bench.follow import Run, follow, lost
from tests.bench.setting import Setting

RATES = {"churn, as fast as it goes": (0, 5_000), "churn, 1,000 a second": (1_000, 3_000)}


async def churn(it: Setting, quick: bool) -> list[Figure]:
    """Compare at both rates."""
    figures = []
    for what, (rate, count) in RATES.items():
        figures += await _at(it, what, rate, count, rounds=1 if quick else 5)
    return figures


async def _at(it: Setting, what: str, rate: float, count: int, *, rounds: int) -> list[Figure]:
    async def measure(name: Name) -> Run:
        async with it.running(name) as subject:
            return await follow(it, subject, it.churn(count, rate))

    runs = await alternate(rounds, measure)
    bus = median(run.bus for run in runs.ours)
    return [
        runs.figure((what, "CPU per event handled", "us"), lambda run: run.cost, most=1.0),
        lost(what, runs),
        runs.figure((what, "connections reached", "/s"), lambda run: count / run.took),
        Figure(what, "CPU of dbus-daemon per signal", "us", bus),
    ]

"""Growth: what a connection costs, and what is in memory, after 200,000 have come and gone.

mptcpd would be deaf long before: its plugin gives it a larger buffer for events, here only.
"""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import dataclass
from statistics import median

from tests.bench.account import memory
from tests.bench.daemons import Name
from tests.bench.figures import Figure, Pairs, alternate
from tests.bench.follow import follow
from tests.bench.setting import Setting

COUNT, STEP = 200_000, 10_000
QUARTERS = 4
WIDE = 64 << 20
FLAT = 1.2  # what the last may have of the first


@dataclass(frozen=True)
class Step:
    """So many more connections."""

    cost: float
    """Microseconds of CPU per connection."""
    rss: int
    lost: int


async def growth(it: Setting, quick: bool) -> list[Figure]:
    """Compare one process each, over its life."""
    count = COUNT // 10 if quick else COUNT
    step = STEP // 10 if quick else STEP

    async def measure(name: Name) -> list[Step]:
        async with it.running(name, buffer=WIDE) as subject:
            steps = []
            for _ in range(count // step):
                found = await follow(it, subject, it.churn(step))
                size = memory(subject.pid).rss
                steps.append(Step(found.seconds / step * 1e6, size, found.lost))
            return steps

    found = await alternate(1, measure)
    quarter = count // step // QUARTERS
    figures = []
    for end in range(quarter, count // step + 1, quarter):
        figures += _rows(found, quarter, end, end * step)
    what = f"growth, over {count:,}"
    figures += [
        found.figure(
            (what, "CPU per connection, last quarter to first", ""),
            lambda steps: _cost(steps[-quarter:]) / _cost(steps[:quarter]),
            most=FLAT,
            judged="ours",
        ),
        found.figure(
            (what, "RSS, last step to first", ""),
            lambda steps: steps[-1].rss / steps[0].rss,
            most=FLAT,
            judged="ours",
        ),
        found.figure(
            (what, "events lost", ""),
            lambda steps: sum(one.lost for one in steps),
            most=0,
            judged="ours",
        ),
    ]
    return figures


def _rows(found: Pairs[list[Step]], quarter: int, end: int, served: int) -> list[Figure]:
    """Show a quarter, from where its first step is up to its *end*."""
    what = f"growth, up to {served:,}"
    return [
        found.figure(
            (what, "CPU per connection", "us"), lambda steps: _cost(steps[end - quarter : end])
        ),
        found.figure((what, "RSS", "kB"), lambda steps: steps[end - 1].rss),
    ]


def _cost(steps: list[Step]) -> float:
    return median(step.cost for step in steps)

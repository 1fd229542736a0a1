"""Growth: what a connection costs, and what is in memory, after 200,000 have come and gone.

mptcpd would be deaf long before: its plugin gives it a larger buffer for events, here only.
"""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import dataclass

from tests.bench.account import memory
from tests.bench.daemons import Name
from tests.bench.figures import Figure, Pairs, alternate
from tests.bench.follow import follow
from tests.bench.setting import Setting

COUNT, STEP = 200_000, 10_000
SHOWN = 5  # rows of the table
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
                steps.append(Step(found.cost * found.handled / step, size, found.lost))
            return steps

    found = await alternate(1, measure)
    figures = []
    for number in range(0, count // step + 1, count // step // (SHOWN - 1)):
        at = max(number - 1, 0)
        what = f"growth, after {(at + 1) * step:,}"
        figures += _rows(what, found, at)
    what = f"growth, over {count:,}"
    figures += [
        found.figure(
            (what, "CPU per connection, last to first", ""),
            lambda steps: steps[-1].cost / steps[0].cost,
            most=FLAT,
            judged="ours",
        ),
        found.figure(
            (what, "RSS, last to first", ""),
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


def _rows(what: str, found: Pairs[list[Step]], at: int) -> list[Figure]:
    return [
        found.figure((what, "CPU per connection", "us"), lambda steps: steps[at].cost),
        found.figure((what, "RSS", "kB"), lambda steps: steps[at].rss),
    ]

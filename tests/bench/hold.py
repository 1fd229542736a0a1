"""Hold: connections that come as fast as they can, stay, and end all at once."""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import dataclass

from tests.bench.account import Memory, memory
from tests.bench.daemons import Name
from tests.bench.figures import Figure, alternate
from tests.bench.follow import Run, follow
from tests.bench.setting import Setting

LIVE = 10_000
AFTER = 100  # connections that show whether it still hears


@dataclass(frozen=True)
class Held:
    """What one daemon has made of it."""

    came: Run
    memory: Memory
    went: Run
    after: Run


async def hold(it: Setting, quick: bool) -> list[Figure]:
    """Compare 10,000 at once."""
    count = LIVE // 10 if quick else LIVE

    async def measure(name: Name) -> Held:
        async with it.running(name) as subject:
            came = await follow(it, subject, it.hold(count))
            size = memory(subject.pid)
            went = await follow(it, subject, it.let_go())
            after = await follow(it, subject, it.churn(AFTER))
            return Held(came, size, went, after)

    found = await alternate(1 if quick else 3, measure)
    what, burst = f"hold {count:,}", f"burst close of {count:,}"
    us, lost = ("CPU per event handled", "us"), ("events lost in all rounds", "")
    return [
        found.figure((what, *us), lambda held: held.came.cost),
        found.figure((what, *lost), lambda held: held.came.lost, how=sum, most=0, judged="ours"),
        found.figure((what, "RSS", "kB"), lambda held: held.memory.rss),
        found.figure((what, "PSS", "kB"), lambda held: held.memory.pss),
        found.figure((burst, *us), lambda held: held.went.cost),
        found.figure((burst, *lost), lambda held: held.went.lost, how=sum, most=0, judged="ours"),
        found.figure(
            (burst, "rounds after which it was deaf", ""),
            lambda held: held.after.handled == 0,
            how=sum,
            most=0,
            judged="ours",
        ),
    ]

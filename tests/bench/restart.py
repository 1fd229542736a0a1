"""Restart: the daemon ends and starts again while connections live, and must know them then.

Who knows a connection tells of its end, so what is counted is the ends.
"""
# SPDX-License-Identifier: BSD-3-Clause

from tests.bench.daemons import Name
from tests.bench.figures import Figure, alternate
from tests.bench.follow import follow
from tests.bench.setting import Setting

LIVE = 200


async def restart(it: Setting, quick: bool) -> list[Figure]:
    """Compare with 200 live connections."""

    async def measure(name: Name) -> int:
        async with it.running(name) as subject:
            await follow(it, subject, it.hold(LIVE))
        async with it.running(name) as subject:
            return (await follow(it, subject, it.let_go())).lost

    found = await alternate(1 if quick else 3, measure)
    what = f"restart with {LIVE} live"
    return [
        found.figure((what, "connections forgotten", ""), float, most=0, judged="ours"),
    ]

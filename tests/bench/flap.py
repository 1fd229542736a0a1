"""Address flapping: 500 addresses come and go again on one link, as fast as ip(8) does it."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import time

from tests.bench.daemons import Name
from tests.bench.figures import Figure, alternate
from tests.bench.follow import Run, follow, lost
from tests.bench.setting import Setting

COUNT = 500
ADDRESSES = [f"10.77.{number // 250}.{number % 250 + 1}/32" for number in range(COUNT)]


async def flap(it: Setting, quick: bool) -> list[Figure]:
    """Compare the cost of an address that came or went."""

    async def measure(name: Name) -> Run:
        async with it.running(name) as subject:
            return await follow(it, subject, _flap(it), 2 * COUNT)

    found = await alternate(1 if quick else 5, measure)
    what = f"{COUNT} addresses come and go"
    return [
        found.figure((what, "CPU per event handled", "us"), lambda run: run.cost),
        lost(what, found),
    ]


async def _flap(it: Setting) -> float:
    began = time.monotonic()
    for verb in ("add", "delete"):
        lines = [f"address {verb} {address} dev link3" for address in ADDRESSES]
        await asyncio.to_thread(it.lab.batch, "client", lines)
    return time.monotonic() - began

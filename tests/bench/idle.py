"""Idle: no connection, and nothing happens; who wakes up, and what stays in memory."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from dataclasses import dataclass

from tests.bench.account import Memory, cpu, memory, runs, spent
from tests.bench.daemons import Name
from tests.bench.figures import Figure, alternate
from tests.bench.setting import Setting


@dataclass(frozen=True)
class Run:
    """What one daemon has done in the time."""

    runs: int
    seconds: float
    memory: Memory


async def idle(it: Setting, quick: bool) -> list[Figure]:
    """Compare a minute of nothing."""
    time = 10 if quick else 60

    async def measure(name: Name) -> Run:
        async with it.running(name) as subject:
            await spent(subject.pid, 0)
            woken, before = runs(subject.pid), cpu(subject.pid)
            await asyncio.sleep(time)
            return Run(runs(subject.pid) - woken, cpu(subject.pid) - before, memory(subject.pid))

    found = await alternate(1, measure)
    what = f"idle, {time} s"
    return [
        found.figure(
            (what, "times on a processor", ""), lambda run: run.runs, most=0, judged="ours"
        ),
        found.figure((what, "CPU", "ms"), lambda run: run.seconds * 1e3),
        found.figure((what, "RSS", "kB"), lambda run: run.memory.rss),
        found.figure((what, "PSS", "kB"), lambda run: run.memory.pss),
    ]

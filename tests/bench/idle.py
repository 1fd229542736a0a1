"""Idle: no connection, and nothing happens; who wakes up, and what stays in memory.

Ours has the watchdog of its unit, which mptcpd's has not; the wake-ups for that are counted off.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from contextlib import closing
from dataclasses import dataclass

from tests.bench.account import Memory, cpu, memory, runs, spent
from tests.bench.daemons import Name, Subject, ours
from tests.bench.figures import Figure, alternate
from tests.bench.setting import Setting
from tests.lab.supervisor import Supervisor

WATCHDOG = 30.0  # seconds: WatchdogSec= of the unit


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
        with closing(Supervisor(WATCHDOG)) as manager:
            if name == "mptcpd":
                async with it.running(name) as subject:
                    return await _rest(subject, time, manager)
            async with ours(it.lab, it.subscriber, environment=manager.environment) as subject:
                return await _rest(subject, time, manager)

    found = await alternate(1, measure)
    what = f"idle, {time} s"
    return [
        found.figure(
            (what, "times on a processor, but for the watchdog", ""),
            lambda run: run.runs,
            most=0,
            judged="ours",
        ),
        found.figure((what, "CPU", "ms"), lambda run: run.seconds * 1e3),
        found.figure((what, "RSS", "kB"), lambda run: run.memory.rss),
        found.figure((what, "PSS", "kB"), lambda run: run.memory.pss),
    ]


async def _rest(subject: Subject, time: float, manager: Supervisor) -> Run:
    await spent(subject.pid, 0)
    manager.said()
    woken, before = runs(subject.pid), cpu(subject.pid)
    await asyncio.sleep(time)
    pings = sum("WATCHDOG=1" in text for text in manager.said())
    woken = runs(subject.pid) - woken - pings
    return Run(woken, cpu(subject.pid) - before, memory(subject.pid))

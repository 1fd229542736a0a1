"""What a process has cost, from the kernel's own account in /proc; it must not know whose it is.

CPU time and runs of all threads are those of schedstat, which the kernel keeps in nanoseconds, and
not the ticks of stat.  A run is a time on a processor: whoever sleeps has none.  See proc(5) and
Documentation/scheduler/sched-stats.rst.
"""
# SPDX-License-Identifier: BSD-3-Clause

from pathlib import Path
from typing import NamedTuple

from tests.lab.wait import eventually

STILL = 25  # looks of a hundredth of a second without a change: longer than objects take to settle


class Memory(NamedTuple):
    """What is resident, in kB, and what of it is not shared or a share of what is."""

    rss: int
    pss: int


def cpu(pid: int) -> float:
    """Give the seconds that its threads have been on a processor."""
    return sum(row[0] for row in _threads(pid)) / 1e9


def runs(pid: int) -> int:
    """Give how often its threads were put on a processor."""
    return sum(row[2] for row in _threads(pid))


def memory(pid: int) -> Memory:
    """Give its memory now."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = {name: int(rest.split()[0]) for name, _, rest in (n.partition(":") for n in lines[1:])}
    return Memory(found["Rss"], found["Pss"])


async def spent(pid: int, since: float) -> float:
    """Wait until it rests; give the seconds of CPU since it had had so much."""
    seen = [cpu(pid)]

    def rests() -> bool:
        seen.append(cpu(pid))
        return len(seen) > STILL and seen[-1] == seen[-1 - STILL]

    await eventually(rests, within=30)
    return seen[-1] - since


def _threads(pid: int) -> list[list[int]]:
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return [[int(word) for word in file.read_text().split()] for file in files]

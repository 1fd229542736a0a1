"""What a process holds: its memory, now and at its highest, and its descriptors; see proc(5)."""
# SPDX-License-Identifier: BSD-3-Clause

from pathlib import Path


def resident(pid: int) -> int:
    """Give the resident memory, in bytes."""
    return _memory(pid, "VmRSS")


def descriptors(pid: int) -> int:
    """Give how many descriptors are open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def memory_now(pid: int) -> int:
    """Give the resident memory, and have its peak count from now on; see proc(5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return resident(pid)


def highest_memory(pid: int) -> int:
    """Give the peak since `memory_now`, in bytes."""
    return _memory(pid, "VmHWM")


def _memory(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) << 10

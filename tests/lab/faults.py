"""Makes system calls of a running process fail, as strace(1) does with -e inject.

It knows which calls and how, and nothing of what they are for.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.lab.wait import eventually


class Faults:
    """What was done to a process."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def count(self) -> int:
        """How many calls were made to fail."""
        return self._file.read_text(errors="replace").count("(INJECTED)")


@asynccontextmanager
async def faults(pid: int, file: Path, *injections: str) -> AsyncIterator[Faults]:
    """Have all threads of *pid* suffer from *injections* for so long; *file* has the calls."""
    names = ",".join(injection.partition(":")[0] for injection in injections)
    options = [option for injection in injections for option in ("-e", f"inject={injection}")]
    strace = await asyncio.create_subprocess_exec(
        *("strace", "-qq", "-f", "-p", str(pid), "-o", str(file), "-e", f"trace={names}", *options)
    )

    def traced() -> bool:
        assert strace.returncode is None, "strace(1) cannot trace here"
        status = Path(f"/proc/{pid}/status").read_text()
        return f"\nTracerPid:\t{strace.pid}\n" in status

    await eventually(traced)
    try:
        yield Faults(file)
    finally:
        strace.send_signal(signal.SIGINT)
        await strace.wait()

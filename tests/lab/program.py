"""A program that goes on talking, and what it has said; it must not know who that is."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import Callable
from typing import Self

from tests.lab.wait import eventually


class Program:
    """A program that goes on talking; `said` has all its lines, the oldest first."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.said: list[str] = []
        self._process = process
        self._listening = asyncio.ensure_future(self._listen())

    @classmethod
    async def start(cls, *argv: str) -> Self:
        """Start it; both its outputs are one."""
        return cls(
            await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                limit=1 << 24,
            )
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._listening

    async def line(self, wanted: Callable[[str], bool]) -> str:
        """Wait for a line."""

        def found() -> str:
            matching = next((line for line in self.said if wanted(line)), "")
            assert matching, "\n".join(self.said[-20:])
            return matching

        return await eventually(found)

    async def ended(self) -> int:
        """Wait for its end; give its exit status."""
        async with asyncio.timeout(10):
            return await self._process.wait()

    def ask(self) -> None:
        """Write a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.said.append(line.decode().rstrip("\n"))

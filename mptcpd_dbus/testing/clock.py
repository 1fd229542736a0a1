"""A loop on which time passes only when there is nothing else to do, and then at once."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import selectors
from typing import Any


class PlayedLoop(asyncio.SelectorEventLoop):
    """A timer in a minute fires in a moment: its minute has passed."""

    def __init__(self) -> None:
        self._passed = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        """Give the played time."""
        return self._passed

    def skip(self, seconds: float) -> None:
        """Let time pass."""
        self._passed += seconds


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: PlayedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        """Do not wait for files while there is a time to wait for."""
        if timeout is None:
            return list(super().select(None))
        self._loop.skip(max(timeout, 0))
        return list(super().select(0))

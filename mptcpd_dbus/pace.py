"""Commands run on the loop's own thread; when many come at once, the rest has its turns between.

Knows nothing of what a command is.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections import deque

_ROUND = 16
"""How many begin each time that the loop goes round; one takes up to half a millisecond."""


class Pace:
    """Lets whoever comes first begin first."""

    def __init__(self) -> None:
        self._begun = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def keep(self) -> None:
        """Go on at once, or in one of the next rounds."""
        loop = asyncio.get_running_loop()
        if self._begun == _ROUND:
            turn = loop.create_future()
            self._waiting.append(turn)
            await turn
            return
        if not self._begun:
            loop.call_soon(self._next_round)
        self._begun += 1

    def _next_round(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < _ROUND:
            turn = self._waiting.popleft()
            if not turn.done():  # else it was cancelled
                turn.set_result(None)
                self._begun += 1
        if self._begun:
            asyncio.get_running_loop().call_soon(self._next_round)

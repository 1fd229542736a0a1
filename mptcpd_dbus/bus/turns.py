"""Turns for large answers: one at a time, and the users one after the other.

The bus takes a few megabytes a second while somebody floods it, and the queue to it is one for all:
without turns a user who asks for many large answers at once has everybody's answers wait behind
them.  Knows nothing of what is answered.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager


class Turns:
    """Who waits for a turn waits behind one of each other user, however many those want."""

    def __init__(self, taken: Callable[[], Awaitable[None]]) -> None:
        self._taken = taken
        self._turn = asyncio.Lock()
        self._users: dict[int, tuple[asyncio.Lock, list[None]]] = {}

    @asynccontextmanager
    async def turn(self, uid: int) -> AsyncIterator[None]:
        """Wait for the turn; it ends when the bus has taken what was answered in it."""
        lock, waiting = self._users.setdefault(uid, (asyncio.Lock(), []))
        waiting.append(None)
        try:
            async with lock, self._turn:
                yield
                await self._taken()
        finally:
            waiting.pop()
            if not waiting:
                del self._users[uid]

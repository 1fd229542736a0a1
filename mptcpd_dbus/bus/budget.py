"""How many signals a second the bus may be given: it belongs to the whole machine.

A dbus-daemon relays 40,000 signals a second to one subscriber, and 4,000 to ten.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import Callable

_SECOND = 1.0


class Budget:
    """Counts signals; once there were more than *limit* in a second, none is sent.

    It is so until fewer have come in a whole second; *tell* is called after each such second, and
    may send one.  A *limit* of 0 is none.
    """

    def __init__(self, limit: int, tell: Callable[[], None]) -> None:
        self._limit = limit
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._second: asyncio.TimerHandle | None = None
        self._began = self._loop.time()
        self._spent = 0

    def covers(self, count: int) -> bool:
        """Take *count* signals in; give whether they may be sent."""
        self._spent += count
        if self._second is not None:
            return False
        if self._spent <= self._limit or not self._limit:
            return True
        now = self._loop.time()
        if now - self._began >= _SECOND:
            self._began, self._spent = now, count
            if count <= self._limit:
                return True
        self._second = self._loop.call_later(_SECOND, self._look)
        self._spent = 0
        return False

    def stop(self) -> None:
        """Tell nothing any more."""
        if self._second is not None:
            self._second.cancel()

    def _look(self) -> None:
        exceeded = self._spent > self._limit
        self._second = self._loop.call_later(_SECOND, self._look) if exceeded else None
        self._began, self._spent = self._loop.time(), 0
        self._tell()

"""Reads the kernel's MPTCP events in batches and never goes deaf."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import Callable

from mptcpd_dbus.engine import Engine
from mptcpd_dbus.kernel.event_socket import EventSocket

_WINDOW = 0.01
"""The reader looks at how many events came in so many seconds: the wake-up is what costs."""

_BUSY, _REST = 10, 0.04
"""From so many on it rests for so many seconds before it reads again."""

_BUSY_IN_A_HURRY, _REST_IN_A_HURRY = 60, 0.002
"""The same while a policy waits for connections, which makes every event urgent."""

_SLICES = 4
"""More than comes in a rest, and no more than somebody may hold the loop for."""


class EventReader:
    """Feeds the engine from the event socket; `on_lost` is called when a loss has been read out."""

    def __init__(self, socket: EventSocket, engine: Engine) -> None:
        self._socket = socket
        self._engine = engine
        self._overflowed = False
        self._loop = asyncio.get_running_loop()
        self._watching = False
        self._rest: asyncio.TimerHandle | None = None
        self._window_began = 0.0
        self._in_window = 0
        self._busy = False
        self.on_lost: Callable[[], None] | None = None

    def start(self) -> None:
        """Read whenever there is something."""
        self._watch(wanted=True)

    def stop(self) -> None:
        """Read no more."""
        if self._rest is not None:
            self._rest.cancel()
        self._watch(wanted=False)

    def catch_up(self) -> None:
        """Read what has come during a rest: somebody wants to know how things are."""
        if self._rest is not None:
            for _ in range(_SLICES):
                if not self.drain():
                    break

    def drain(self) -> bool:
        """Take in what is queued, a slice at most; give whether there may be more."""
        events, lost, more = self._socket.drain()
        self._in_window += len(events)
        self._overflowed |= lost
        if events:
            self._engine.batch(events)
        # The kernel drops everything from the overflow until the queue has been read empty: only
        # then can a comparison be trusted.
        if self._overflowed and not more:
            self._overflowed = False
            if self.on_lost is not None:
                self.on_lost()
        return more

    def _read(self) -> None:
        self._rest = None
        more = True
        try:
            more = self.drain()
        finally:  # whatever happens in there: it must not be the last that we hear
            self._go_on(more=more)

    def _go_on(self, *, more: bool) -> None:
        in_a_hurry = self._engine.in_a_hurry
        now = self._loop.time()
        if now - self._window_began >= _WINDOW:
            busy = _BUSY_IN_A_HURRY if in_a_hurry else _BUSY
            self._busy = self._in_window >= busy * (now - self._window_began) / _WINDOW
            self._window_began, self._in_window = now, 0
        if self._busy:
            self._watch(wanted=False)
            rest = 0 if more else _REST_IN_A_HURRY if in_a_hurry else _REST
            self._rest = self._loop.call_at(now + rest, self._read)
        else:
            self._watch(wanted=True)

    def _watch(self, *, wanted: bool) -> None:
        if wanted and not self._watching:
            self._loop.add_reader(self._socket, self._read)
        elif self._watching and not wanted:
            self._loop.remove_reader(self._socket)
        self._watching = wanted

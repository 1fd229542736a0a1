"""Reads the kernel's MPTCP events in batches and never goes deaf."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import Callable

from mptcpd_dbus.engine import Engine
from mptcpd_dbus.kernel.event_socket import EventSocket

_BURST = 32
"""From so many events in one drain on, the reader rests: the wake-up is what costs."""

_REST = 0.002  # seconds


class EventReader:
    """Feeds the engine from the event socket; `on_lost` is called when a loss has been read out."""

    def __init__(self, socket: EventSocket, engine: Engine) -> None:
        self._socket = socket
        self._engine = engine
        self._overflowed = False
        self._rest: asyncio.TimerHandle | None = None
        self.on_lost: Callable[[], None] | None = None

    def start(self) -> None:
        """Read whenever there is something."""
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def stop(self) -> None:
        """Read no more."""
        if self._rest is not None:
            self._rest.cancel()
        asyncio.get_running_loop().remove_reader(self._socket)

    def drain(self) -> bool:
        """Take in what is queued, a slice at most; give whether it was a burst."""
        events, lost, more = self._socket.drain()
        self._overflowed |= lost
        self._engine.batch(events)
        # The kernel drops everything from the overflow until the queue has been read empty: only
        # then can a comparison be trusted.
        if self._overflowed and not more:
            self._overflowed = False
            if self.on_lost is not None:
                self.on_lost()
        return len(events) >= _BURST and not more

    def _read(self) -> None:
        if self.drain():
            self.stop()
            self._rest = asyncio.get_running_loop().call_later(_REST, self.start)

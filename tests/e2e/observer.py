"""An independent witness: hears a host's MPTCP events on a socket of its own and stamps them.

It runs in a thread, so that a test that waits does not make its stamps late.
"""
# SPDX-License-Identifier: BSD-3-Clause

import select
import threading
import time
from typing import Self, TypeVar

from mptcpd_dbus.core.events import MptcpEvent
from mptcpd_dbus.kernel.event_socket import EventSocket
from tests.lab.hosts import Host, Lab

E = TypeVar("E")


class Observer:
    """What the kernel told, with the monotonic time at which it was heard."""

    def __init__(self, lab: Lab, host: Host = "client") -> None:
        self.heard: list[tuple[float, MptcpEvent]] = []
        with lab.inside(host):
            self._socket = EventSocket()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def of(self, kind: type[E]) -> list[tuple[float, E]]:
        """Give the events of one kind, with their times."""
        return [(when, event) for when, event in list(self.heard) if isinstance(event, kind)]

    def _listen(self) -> None:
        while not self._over.is_set():
            if select.select([self._socket], [], [], 0.1)[0]:
                events, lost, _ = self._socket.drain()
                assert not lost
                now = time.monotonic()
                self.heard += [(now, event) for event in events]

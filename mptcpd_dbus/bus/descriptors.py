"""Descriptors that strangers passed to us: counted while we hold them, closed where nobody waits.

close(2) of the last copy of a socket may take as long as who passed it wants (SO_LINGER, socket(7);
measured with TCP and MPTCP), so threads do it, which live while there is something to close.  When
others wait, a signal ends that: the kernel then sends in the background what is left.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

from mptcpd_dbus.bus.names import CLOSERS, CLOSING_SECONDS, HELD_DESCRIPTORS

_INTERRUPT = signal.SIGUSR1


class Descriptors:
    """Counts the descriptors of one bus connection, and closes them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._to_close: deque[int] = deque()
        self._closers: set[threading.Thread] = set()
        self._turn: asyncio.TimerHandle | None = None
        self.held = 0
        if threading.current_thread() is threading.main_thread():  # nobody else may, nor need to
            signal.signal(_INTERRUPT, lambda *_: None)  # else it would end us

    @property
    def crowded(self) -> bool:
        """Whether so many wait to be closed that no more should come."""
        return len(self._to_close) >= HELD_DESCRIPTORS

    def took(self, count: int) -> None:
        """Count those that came."""
        with self._lock:
            self.held += count

    def close(self, descriptors: Iterable[int]) -> None:
        """Close them, soon; this does not wait for it."""
        with self._lock:
            self._to_close.extend(descriptors)
        if self._to_close and self._turn is None:
            self._turn = asyncio.get_running_loop().call_later(CLOSING_SECONDS, self.work)

    def work(self) -> None:
        """Have one thread more at work now, or all go on with the next: they may be waiting."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        with self._lock:
            if not self._to_close:
                return
            if len(self._closers) < CLOSERS:
                self._add_closer()
            else:
                for closer in self._closers:
                    if closer.ident is not None:
                        signal.pthread_kill(closer.ident, _INTERRUPT)
        self.close(())  # look again

    def _add_closer(self) -> None:
        closer = threading.Thread(target=self._work, name="closer", daemon=True)
        with suppress(RuntimeError):  # no room for a thread; we look again
            closer.start()
            self._closers.add(closer)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._to_close:
                    self._closers.remove(threading.current_thread())
                    return
                descriptor = self._to_close.popleft()
            with suppress(OSError):  # what the file behind it could not do is not our fault
                os.close(descriptor)
            with self._lock:
                self.held -= 1

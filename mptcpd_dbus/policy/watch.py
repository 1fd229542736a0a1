"""Which handler has the loop at this moment, and which one had it when the daemon was killed.

A handler that blocks cannot be interrupted from within its own process; so it is named: in the log
afterwards or, when the service manager's watchdog has ended the daemon, by a note in a file that
the next start reads.  The note is memory shared with the file: to write it is a copy of some bytes.
"""
# SPDX-License-Identifier: BSD-3-Clause

import logging
import mmap
import os
import struct
import time
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

BLOCKED_SECONDS = 0.25
"""A handler that held the loop for longer is named in the log."""

KILLED_SECONDS = 2.0
"""A note that is so old when it is read is of a handler that never came back.

The service manager starts the daemon again 0.25 s after a crash, but only after the watchdog's time
when the loop stood still.
"""

_SIZE = 4096
_HEAD = struct.Struct("=dHH")  # when it began (CLOCK_BOOTTIME), lengths of both names

_log = logging.getLogger(__name__)


class Watch:
    """Watches every step of every handler; *file* survives the daemon."""

    def __init__(self, file: Path | None = None) -> None:
        self.blocked: Callable[[str, str, float], None] = lambda *_: None
        self._note: mmap.mmap | bytearray = bytearray(_SIZE)
        self.suspect: tuple[str, str] | None = None
        """Plugin and handler that had the loop when the daemon was killed."""
        if file is not None:
            self._open(file)

    def _open(self, file: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(file, flags, 0o600)
        except OSError as error:
            _log.warning("a plugin that gets the daemon killed will not be named: %s", error)
            return
        try:
            os.ftruncate(descriptor, _SIZE)
            self._note = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
        began, *lengths = _HEAD.unpack_from(self._note)
        if began and time.clock_gettime(time.CLOCK_BOOTTIME) - began > KILLED_SECONDS:
            first, second = lengths
            text = bytes(self._note[_HEAD.size : _HEAD.size + first + second])
            plugin, handler = text[:first].decode(), text[first:].decode()
            self.suspect = plugin, handler
        self._clear()

    def steps(
        self, plugin: str, handler: str, coroutine: Coroutine[Any, Any, Any]
    ) -> Generator[Any, Any, Any]:
        """Run *coroutine*, and watch each step of it from one await to the next."""
        step: Callable[[Any], Any] = coroutine.send
        given: Any = None
        while True:
            began = self.enter(plugin, handler)
            try:
                wanted = step(given)
            except StopIteration as end:
                return end.value
            finally:
                self.leave(plugin, handler, began)
            try:
                given = yield wanted
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # noqa: BLE001 # it goes on, into the coroutine
                step, given = coroutine.throw, error
            else:
                step = coroutine.send

    def enter(self, plugin: str, handler: str) -> float:
        """Note who gets the loop now."""
        began = time.clock_gettime(time.CLOCK_BOOTTIME)
        names = (plugin.encode(), handler.encode())
        text = b"".join(names)
        self._note[_HEAD.size : _HEAD.size + len(text)] = text
        _HEAD.pack_into(self._note, 0, began, *map(len, names))
        return began

    def leave(self, plugin: str, handler: str, began: float) -> None:
        """Note that it has given the loop back; say so if that took long."""
        self._clear()
        seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - began
        if seconds > BLOCKED_SECONDS:
            self.blocked(plugin, handler, seconds)

    def _clear(self) -> None:
        self._note[: _HEAD.size] = bytes(_HEAD.size)


class Watched:
    """A handler's run, to be awaited."""

    __slots__ = ("_steps",)

    def __init__(self, steps: Generator[Any, Any, Any]) -> None:
        self._steps = steps

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._steps

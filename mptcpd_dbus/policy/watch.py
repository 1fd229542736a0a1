"""Which handler has the loop at this moment, and which one had it when the daemon was killed.

A handler that blocks cannot be interrupted from within its own process; so it is named: in the log
afterwards or, when the service manager's watchdog has ended the daemon, by a note in a file that
the next start reads.  The note is memory shared with the file: to write it is a copy of some bytes.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
import mmap
import os
import struct
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

BLOCKED_SECONDS = 0.25
"""A handler that held the loop for longer is named in the log."""

KILLED_SECONDS = 2.0
"""A note that is so old when it is read is of a handler that never came back.

The service manager starts the daemon again 0.25 s after a crash, but only after the watchdog's time
when the loop stood still.
"""

IMPORT = "import"
"""Stands for a handler's name while a plugin's file is loaded."""

_SIZE = 4096
_HEAD = struct.Struct("=dH")  # when it began (CLOCK_BOOTTIME), length of both names with a NUL

_log = logging.getLogger(__name__)


class Watch:
    """Watches every step of every handler; *file* survives the daemon."""

    def __init__(self, file: Path | None = None) -> None:
        self.blocked: Callable[[str, str, float], None] = lambda *_: None
        self._note: mmap.mmap | bytearray = bytearray(_SIZE)
        self._at_work: list[tuple[str, str, float]] = []
        self.suspect: tuple[str, str] | None = None
        """Plugin and handler that had the loop when the daemon was killed."""
        if file is not None:
            self._open(file)

    def _open(self, file: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(file, flags, 0o600)
            try:
                os.ftruncate(descriptor, _SIZE)
                os.posix_fallocate(descriptor, 0, _SIZE)  # a hole could not be written to
                self._note = mmap.mmap(descriptor, _SIZE)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            _log.warning("a plugin that gets the daemon killed will not be named: %s", error)
            return
        began, length = _HEAD.unpack_from(self._note)
        if began and time.clock_gettime(time.CLOCK_BOOTTIME) - began > KILLED_SECONDS:
            text = bytes(self._note[_HEAD.size : _HEAD.size + length])
            plugin, _, handler = text.decode(errors="replace").partition("\0")
            self.suspect = plugin, handler
        self._clear()

    def forgive(self, plugin: str) -> None:
        """Suspect *plugin* no more: the administrator wants to try."""
        if self.suspect is not None and self.suspect[0] == plugin:
            self.suspect = None

    def enter(self, plugin: str, handler: str) -> None:
        """Note who gets the loop now."""
        began = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._at_work.append((plugin, handler, began))
        self._write(plugin, handler, began)

    def leave(self) -> None:
        """Note that it has given the loop back; say so if that took long."""
        plugin, handler, began = self._at_work.pop()
        if self._at_work:  # a step of one plugin can begin another
            self._write(*self._at_work[-1])
        else:
            self._clear()
        seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - began
        if seconds > BLOCKED_SECONDS:
            self.blocked(plugin, handler, seconds)

    def _write(self, plugin: str, handler: str, began: float) -> None:
        text = f"{plugin}\0{handler}".encode(errors="replace")[: _SIZE - _HEAD.size]
        self._note[_HEAD.size : _HEAD.size + len(text)] = text
        _HEAD.pack_into(self._note, 0, began, len(text))

    def _clear(self) -> None:
        self._note[: _HEAD.size] = bytes(_HEAD.size)


class Run:
    """One run of a plugin's handler, to be awaited: `function(*arguments)`, watched at each step.

    A step goes from one await to the next.
    """

    def __init__(
        self,
        watch: Watch,
        plugin: str,
        handler: str,
        function: Callable[..., Coroutine[Any, Any, None]],
        arguments: tuple[Any, ...],
    ) -> None:
        self._watch = watch
        self._names = plugin, handler
        self._coroutine = _call(function, arguments)
        self._over = False
        self._given_up = False

    def give_up(self, task: "asyncio.Task[Any]") -> None:
        """See that *task* takes no further step of it, if it has not ended yet."""
        if not self._over:
            self._given_up = True
            task.cancel()

    def __await__(self) -> Generator[Any, Any, None]:
        step: Callable[[Any], Any] = self._coroutine.send
        given: Any = None
        try:
            while True:
                self._watch.enter(*self._names)
                try:
                    wanted = step(given)
                except StopIteration:
                    return
                except GeneratorExit as error:  # only whoever awaits us may end us so
                    raise RuntimeError("GeneratorExit") from error
                finally:
                    self._watch.leave()
                try:
                    given = yield wanted
                except BaseException as error:
                    if self._given_up or isinstance(error, GeneratorExit):
                        self._close()
                        raise
                    step, given = self._coroutine.throw, error
                else:
                    step = self._coroutine.send
        finally:
            self._over = True

    def _close(self) -> None:
        self._watch.enter(*self._names)
        with suppress(BaseException):
            self._coroutine.close()
        self._watch.leave()


async def _call(
    function: Callable[..., Coroutine[Any, Any, None]], arguments: tuple[Any, ...]
) -> None:
    # A function that is no coroutine runs at the call: that, too, is a step.
    await function(*arguments)

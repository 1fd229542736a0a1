"""The terminal that top has for itself: drawn by rich, given back as it was however it ends.

The only importer of rich, which has the other screen, the cursor and what a terminal can take from
it; what is drawn are the lines of output.  See termios(3), console_codes(4).
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from mptcpd_dbus.ctl.output import Output
from mptcpd_dbus.ctl.view import View

_ENDING = (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM)


class Screen:
    """The terminal between entering and leaving.

    `ended` is done when the user has had enough; a signal that ends the process is its result.
    `resized` is called when there is more or less room.
    """

    def __init__(self, out: Output) -> None:
        self._out = out
        self._console = Console(force_terminal=True, markup=False, highlight=False, emoji=False)
        self._live = Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._keys = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else None
        self._before: list[Any] = []
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self.resized: Callable[[], None] = lambda: None

    @property
    def lines(self) -> int:
        """How many it has now."""
        return self._console.height

    def show(self, view: View) -> None:
        """Draw it, at once and whole; what has no room is cut off."""
        text = Text.from_ansi("\n".join(self._out.lines(view)), no_wrap=True, overflow="crop")
        self._live.update(text, refresh=True)

    def __enter__(self) -> Self:
        for number in _ENDING:
            self._loop.add_signal_handler(number, self._end, number)
        self._loop.add_signal_handler(signal.SIGTSTP, self._pause)
        self._loop.add_signal_handler(signal.SIGWINCH, self._on_resize)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        for number in (*_ENDING, signal.SIGTSTP, signal.SIGWINCH):
            self._loop.remove_signal_handler(number)
        if self.ended.done() and self.ended.result():
            signal.raise_signal(self.ended.result())

    def _take(self) -> None:
        if self._keys is not None:
            self._before = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys)
            self._loop.add_reader(self._keys, self._on_key, self._keys)
        self._live.start()

    def _give_back(self) -> None:
        self._live.stop()
        if self._keys is not None:
            self._loop.remove_reader(self._keys)
            termios.tcsetattr(self._keys, termios.TCSAFLUSH, self._before)

    def _pause(self) -> None:
        """Stop as Ctrl-Z wants, without the terminal, and go on with it."""
        self._give_back()
        signal.raise_signal(signal.SIGSTOP)
        self._take()
        self.resized()

    def _on_resize(self) -> None:
        self.resized()

    def _on_key(self, keys: int) -> None:
        if os.read(keys, 64).lower() in (b"q", b""):
            self._end(0)

    def _end(self, number: int) -> None:
        if not self.ended.done():
            self.ended.set_result(number)

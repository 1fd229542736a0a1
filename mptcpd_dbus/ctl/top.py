"""The command top: what connections and subflows do, again and again, over restarts of the daemon.

On a terminal it has that for itself; through a pipe it prints one frame after the other.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

from mptcpd_dbus.bus.error_names import DISCONNECTED, BusError
from mptcpd_dbus.ctl import sample
from mptcpd_dbus.ctl.daemon import Daemon
from mptcpd_dbus.ctl.follow import Following
from mptcpd_dbus.ctl.frame import AROUND, absence, busiest, frame
from mptcpd_dbus.ctl.output import Output
from mptcpd_dbus.ctl.view import View


async def top(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Show it until interrupted, or so many times as was asked for."""
    following = Following(daemon)
    await following.start()
    pace = given.get("interval", 1.0), given.get("count")
    if "batch" in given or not out.can_be_redrawn:
        # What was done in an interval is known after it, and nobody wants to read "not yet".
        watch = _Watch(daemon, following, out.show, lambda: sample.CALLS)
        await _first(daemon, watch.run(*pace, unseen=1))
        return
    from mptcpd_dbus.ctl.screen import Screen  # noqa: PLC0415  rich is for terminals

    with Screen(out) as screen:
        watch = _Watch(daemon, following, screen.show, lambda: screen.lines - AROUND)
        screen.resized = watch.draw
        await _first(daemon, watch.run(*pace), screen.ended)


async def _first(
    daemon: Daemon, work: Coroutine[Any, Any, None], *ends: asyncio.Future[Any]
) -> None:
    """Do the work until it is done, or one of *ends* is, or the bus goes."""
    task, gone = asyncio.ensure_future(work), daemon.transport.disconnected
    waited: list[asyncio.Future[Any]] = [task, gone, *ends]
    try:
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
    if gone.done():
        raise BusError(DISCONNECTED, gone.result())
    if task.done():
        task.result()


class _Watch:
    """Asks for counters and draws, in turns, so that no subflow is asked twice at a time."""

    def __init__(
        self,
        daemon: Daemon,
        following: Following,
        show: Callable[[View], None],
        rows: Callable[[], int],
    ) -> None:
        self._daemon, self._following = daemon, following
        self._show, self._rows = show, rows

    async def run(self, interval: float, count: int | None, unseen: int = 0) -> None:
        """Draw every *interval* seconds, *count* times, but not the first *unseen* times."""
        now = asyncio.get_running_loop().time
        due = now()
        for number in itertools.count(1):
            await self._look(int(sample.CALLS * min(interval, 1)))
            if number > unseen:
                self.draw()
            if count is not None and number >= unseen + count:
                return
            due = max(due + interval, now())
            await asyncio.sleep(due - now())

    async def _look(self, calls: int) -> None:
        following = self._following
        await following.catch_up()
        shown = [
            subflow
            for connection in busiest(following.connections.values(), self._rows())
            for subflow in connection.subflows.values()
        ]
        wanted = sample.chosen(shown, following.subflows(), calls)
        await sample.read(self._daemon, wanted)

    def draw(self) -> None:
        """Show what is known now."""
        when, following = datetime.now().astimezone(), self._following
        if following.running:
            self._show(frame(when, following.connections.values(), self._rows()))
        else:
            self._show(absence(when))

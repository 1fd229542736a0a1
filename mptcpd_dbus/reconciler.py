"""Compares the state with the kernel: at start, after a loss, and every now and then.

The kernel does not tell everything (a peer's abort, fallback, a subflow that reset itself, changes
of endpoints by others), and it drops events when its queue to us is full.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress

from mptcpd_dbus.core import events
from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.diff import difference
from mptcpd_dbus.core.errors import MptcpdError, NotMultipath
from mptcpd_dbus.core.readings import ConnectionRead, SubflowRead
from mptcpd_dbus.engine import Engine

SWEEP_SECONDS = 5.0
"""A connection whose peer aborted is gone within this time and the sweep's own."""

IDLE_SECONDS = 60.0
"""The pace without connections: only endpoints, limits and settings are looked at.

Half of it where somebody is awake anyhow, so that nobody wakes up for this alone.
"""

_SHARE = 50  # a sweep costs at most a fiftieth of the time
_SLICE = 0.005  # seconds for which a comparison may hold the loop

_log = logging.getLogger(__name__)


class Reconciler:
    """Runs comparisons one after another; `drain` reads the events that are already queued."""

    def __init__(self, engine: Engine, drain: Callable[[], object]) -> None:
        self._engine = engine
        self._drain = drain
        self._lost = False
        self._due = False
        self._cost = 0.0
        self._last = 0.0

    def events_lost(self) -> None:
        """Compare as soon as possible: the kernel has dropped events."""
        self._lost = True
        self._engine.wake.set()

    def awake(self) -> None:
        """Compare now what would soon have to be: something else has woken us."""
        long_ago = asyncio.get_running_loop().time() - IDLE_SECONDS / 2
        if self._engine.resting and self._last <= long_ago:
            self._due = True
            self._engine.wake.set()

    async def run(self) -> None:
        """Compare for ever, at the pace that the number of connections allows."""
        engine = self._engine
        while True:
            pause = IDLE_SECONDS if engine.resting and not self._lost else self._pace()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._last + pause):
                    await engine.wake.wait()
            engine.wake.clear()
            try:
                await self._do_what_is_due(pause)
            except (MptcpdError, OSError) as error:
                # Without memory or descriptors, say; a sweep mends what this one could not.
                _log.warning("the kernel could not be asked, which is tried again: %s", error)
                self._last = asyncio.get_running_loop().time()

    async def _do_what_is_due(self, pause: float) -> None:
        engine = self._engine
        if self._lost:
            self._lost = False
            try:
                await self.compare()
            except BaseException:
                self._lost = True
                raise
            engine.take(events.EventsLost("mptcp_pm"))
            _log.warning(
                "the kernel dropped MPTCP events; the state was read anew (%d connections)",
                len(engine.state.connections),
            )
        while engine.doubted:
            self._compare_one(engine.doubted.pop(), None, ())
        if self._due or asyncio.get_running_loop().time() >= self._last + pause:
            self._due = False
            await self.compare()

    def _pace(self) -> float:
        return max(SWEEP_SECONDS, self._cost * _SHARE)

    async def compare(self) -> None:
        """Make the state equal to the kernel's; each sleep(0) lets events and calls through."""
        clock = asyncio.get_running_loop().time
        start = clock()
        engine, kernel = self._engine, self._engine.kernel
        engine.batch((kernel.endpoints(), kernel.limits(), kernel.settings()))
        self._compare_listeners()
        subflows: defaultdict[int, list[SubflowRead]] = defaultdict(list)
        for rows in kernel.subflows():
            for row in rows:
                subflows[row.token].append(row)
            await asyncio.sleep(0)  # dumps come in slices: events have their turn between two
        connections: dict[int, ConnectionRead] = {}
        for found in kernel.connections():
            connections.update((row.token, row) for row in found)
            await asyncio.sleep(0)  # likewise
        until = clock() + _SLICE
        for token in connections | dict.fromkeys(engine.state.connections):
            self._compare_one(token, connections.get(token), subflows.get(token, ()))
            if clock() > until:
                engine.settle()
                await asyncio.sleep(0)  # and between two slices of comparing
                until = clock() + _SLICE
        engine.settle()
        engine.sweeps += 1
        engine.resting = not engine.state.connections
        self._last = clock()
        self._cost = self._last - start

    def by_socket(self, descriptor: int) -> Connection:
        """Give the connection of a socket, be it that no event has told of it.

        Raise NotMultipath or ForeignNamespace.
        """
        engine = self._engine
        token = engine.kernel.token(descriptor)
        if token not in engine.state.connections:
            self._drain()
        if token not in engine.state.connections:
            self._adopt(token)
        connection = engine.state.connections.get(token)
        if connection is None:
            raise NotMultipath("the connection is not established; wait until it is")
        return connection

    def _adopt(self, token: int) -> None:
        kernel = self._engine.kernel
        row = kernel.connection(token)
        if difference(None, row, ()):  # only then is it worth to look for its subflows
            rows = [r for found in kernel.subflows() for r in found if r.token == token]
            self._compare_one(token, row, rows)

    def _compare_listeners(self) -> None:
        engine = self._engine
        missing, surplus = self._listener_differences()
        if not missing and not surplus:
            return
        # As with connections: what is queued may explain it, so believe what two looks agree on.
        self._drain()
        still_missing, still_surplus = self._listener_differences()
        missing, surplus = missing & still_missing, surplus & still_surplus
        engine.batch(events.ListenerCreated(*place) for place in missing.elements())
        engine.batch(events.ListenerClosed(*place) for place in surplus.elements())

    def _listener_differences(self) -> tuple[Counter[tuple[str, int]], Counter[tuple[str, int]]]:
        engine = self._engine
        present = Counter((row.address, row.port) for row in engine.kernel.listeners())
        known = Counter(engine.state.listeners)
        return present - known, known - present

    def _compare_one(
        self, token: int, row: ConnectionRead | None, subflows: Sequence[SubflowRead]
    ) -> None:
        engine, kernel = self._engine, self._engine.kernel
        connection = engine.state.connections.get(token)
        if not difference(connection, row, subflows):
            return
        # A dump is older than the state and not atomic: read what is queued, then ask again.
        self._drain()
        connection = engine.state.connections.get(token)
        asked = {s.four_tuple: (s.mapped, s.interface_index) for s in subflows}
        if connection is not None:
            asked |= {t: (s.mapped, s.bound_to) for t, s in connection.subflows.items()}
        rows = (
            kernel.subflow(t, mapped=mapped, interface_index=index)
            for t, (mapped, index) in asked.items()
        )
        present = [r for r in rows if r is not None and r.token == token]
        for what in difference(connection, kernel.connection(token), present):
            engine.take(what)

"""The walk of an event: state, publisher, path manager, policies, in kernel order, without waiting.

Every event and every reading passes `step`; nothing else changes the state.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from math import inf
from typing import Protocol, get_args

from mptcpd_dbus.core import events, readings
from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.errors import MptcpdError
from mptcpd_dbus.core.state import Change, State, all_of
from mptcpd_dbus.kernel_protocol import Kernel
from mptcpd_dbus.log_fields import about
from mptcpd_dbus.path_manager import PathManager
from mptcpd_dbus.settling import Settling

# A policy's first command waits for nobody: the peer answers meanwhile.
_ACTED_ON = {events.NewConnection, events.ConnectionEstablished}
_AT_ONCE = 50  # connections
_IMPLYING = {events.NewConnection, events.DeleteInterface}
_OF_CONNECTIONS = {*get_args(events.ConnectionEvent)}
_FOLLOWED = {
    events.NewConnection,
    events.NewSubflow,
    events.SubflowClosed,
    events.ConnectionClosed,
    readings.EndpointsRead,
    readings.ManagementRead,
}

_log = logging.getLogger(__name__)


class Publisher(Protocol):
    """What the engine asks of the bus edge."""

    def tell(self, event: events.Event, change: Change) -> None:
        """Queue the event's signal."""

    def show(self, change: Change) -> None:
        """Show the objects what has changed."""

    def flush(self) -> None:
        """Send what has come together."""


class Policies(Protocol):
    """What the engine asks of the policy host."""

    @property
    def decide(self) -> bool:
        """Whether there is anybody who may decide for a connection."""

    @property
    def in_a_hurry(self) -> bool:
        """Whether somebody waits for connections, to act on them at once."""

    def post(self, what: events.Event | readings.Reading, change: Change) -> None:
        """Queue *what*, which has just changed the state, for whom it concerns."""


class Engine:
    """Owns the state; hands each event on, and completes what the events leave out.

    A connection is an object once it has lived for *settle_time*, in seconds; its signals never
    wait for that.
    """

    def __init__(self, state: State, kernel: Kernel, settle_time: float = 0) -> None:
        self.state = state
        self.kernel = kernel
        self.pm = PathManager(state, kernel, self.take, self.doubt)
        self.doubted: set[int] = set()
        self.wake = asyncio.Event()
        self.resting = True
        """The sweep rests, since it found no connection, until one comes."""
        self.sweeps = 0
        self._publisher: Publisher | None = None
        self._policies: Policies | None = None
        self._incomplete: list[Connection] = []
        self._young = Settling(settle_time)
        self._settled: asyncio.TimerHandle | None = None
        self._settling = False
        self._now = 0.0
        self._hurries = False
        self._is_decided = False
        self._is_debugging = False
        self._untold: list[tuple[events.Event | None, Change]] = []

    def attach(self, publisher: Publisher | None) -> None:
        """Publish to *publisher* from now on, which shows what there is already."""
        self._publisher = publisher
        self._untold.clear()
        if publisher is not None:
            due = self._young.due(inf)
            for connection in due:
                self._young.leave(connection)
            self._complete(due)

    def steer_by(self, policies: Policies) -> None:
        """Hand everything to *policies* from now on, after the publisher."""
        self._policies = policies

    @property
    def in_a_hurry(self) -> bool:
        """Whether a policy waits for connections, to act on them at once."""
        return self._policies is not None and self._policies.in_a_hurry

    def batch(self, batch: Iterable[events.Event | readings.Reading]) -> None:
        """Take a batch in, in order, then settle."""
        self._look_around()
        known = self.state.connections
        hurries, step = self._hurries, self.step
        for what in batch:
            # One that is known was found by a dump, and may be older than this.
            if hurries and type(what) is events.NewConnection and what.token not in known:
                self.pm.newborn.add(what.token)
            step(what)
        self.settle()

    def take(self, what: events.Event | readings.Reading) -> None:
        """Take one thing in, and settle at the end of this turn of the loop."""
        self._look_around()
        self.step(what)
        self.settle_soon()

    def _look_around(self) -> None:
        """Look once for many events at what is the same for all."""
        self._now = asyncio.get_running_loop().time()
        self._hurries = self.in_a_hurry
        self._is_decided = self._policies is not None and self._policies.decide
        self._is_debugging = _log.isEnabledFor(logging.DEBUG)

    def settle_soon(self) -> None:
        """Settle at the end of this turn of the loop."""
        if not self._settling:
            self._settling = True
            asyncio.get_running_loop().call_soon(self.settle)

    def doubt(self, token: int) -> None:
        """Have a connection compared with the kernel: it has answered as if there were none."""
        self.doubted.add(token)
        self.wake.set()

    def settle(self) -> None:
        """End a batch: complete the connections that are old enough, then publish."""
        self._settling = False
        if self.in_a_hurry:  # what policies command at once goes first: it is on the way meanwhile
            asyncio.get_running_loop().call_soon(self._publish)
        else:
            self._publish()

    def announce(self, number: int) -> None:
        """Show the connection of that *number* with what is told next, however young it is."""
        self._young.hasten(number)
        self.settle_soon()

    def announce_now(self, number: int) -> None:
        """Show the connection of that *number*, however young it is: somebody has asked for it."""
        if self._young.waits(number):
            self._young.hasten(number)
            self._publish()

    async def announce_all(self) -> None:
        """Show all connections that are there, however young: somebody has asked for them."""
        last = self.state.connections_seen
        while self._young.hasten_some(_AT_ONCE, last):
            self._publish()
            await asyncio.sleep(0)  # events have their turn between two slices

    def _publish(self) -> None:
        self.pm.newborn.clear()
        incomplete, self._incomplete = self._incomplete, []
        self._complete(incomplete)
        untold, self._untold = self._untold, []
        for event, change in untold:
            self._show(event, change)
        self._show_settled()
        if self._publisher is not None:
            self._publisher.flush()

    def _show_settled(self) -> None:
        loop = asyncio.get_running_loop()
        due = self._young.due(loop.time() if self._publisher is not None else inf)
        self._complete(due)
        for connection in due:
            self._young.leave(connection)
            if self._publisher is not None:
                self._publisher.show(Change(connection, added=tuple(all_of(connection))))
        next_due = self._young.next_due
        if next_due is not None and self._settled is None:
            self._settled = loop.call_at(next_due, self._on_settled)

    def _on_settled(self) -> None:
        self._settled = None
        self._publish()

    def step(self, what: events.Event | readings.Reading) -> None:
        """Take one thing in, within a batch."""
        kind = type(what)
        event = None
        if isinstance(what, events.AnyEvent):
            event = what
            if self._is_debugging:
                _log.debug("%s", event, extra=self._about(event))
            if kind in _IMPLYING:
                for implied in self.state.implied_by(event):
                    self.step(implied)
        change = self.state.apply(what)
        if change is not None:
            # What policies act on, and all after it, is shown when they have.
            if self._untold or (self._hurries and kind in _ACTED_ON):
                self._untold.append((event, change))
            else:
                self._show(event, change)
        if kind in _FOLLOWED:
            self._follow(what, change)
        if change is None or self._policies is None:
            return
        if self._is_decided or kind not in _OF_CONNECTIONS:
            self._policies.post(what, change)

    def _follow(self, what: events.Event | readings.Reading, change: Change | None) -> None:
        """Do what *what* asks for, beyond the state."""
        if isinstance(what, events.NewConnection):
            if self._hurries and change is not None and change.connection is not None:
                self._incomplete.append(change.connection)
            if self.resting:
                self.resting = False
                self.wake.set()
        elif isinstance(what, events.AnyEvent):
            if change is not None:
                self.pm.notice(what, change)
        elif isinstance(what, readings.EndpointsRead):
            self.pm.own_endpoints.forget_gone()
        elif isinstance(what, readings.ManagementRead):
            # NetworkManager may have set some, of which no event tells.
            with suppress(MptcpdError, OSError):  # then the next sweep tells
                self.step(self.kernel.endpoints())

    def _show(self, event: events.Event | None, change: Change) -> None:
        publisher, connection = self._publisher, change.connection
        if event is not None and publisher is not None:
            publisher.tell(event, change)
        if connection is not None:
            kind = type(event)
            if kind is events.NewConnection:
                self._young.come(connection, self._now)
                return
            if self._young.waits(connection.number):
                if kind is events.ConnectionClosed:
                    self._young.leave(connection)
                return
        if publisher is not None:
            publisher.show(change)

    def _about(self, event: events.Event) -> dict[str, dict[str, str]]:
        """Name what an event is about, for the log."""
        index = getattr(event, "index", 0) or getattr(event, "interface_index", 0)
        known = self.state.network.interfaces.get(index)
        name: str = getattr(event, "name", known.name if known is not None else "")
        token: int | None = getattr(event, "token", None)
        return about(event=type(event).__name__, token=token, interface=name)

    def _complete(self, connections: Iterable[Connection]) -> None:
        """Read what no event tells: user, control group, path manager and its address IDs."""
        for connection in connections:
            if self.state.connections.get(connection.token) is connection:
                try:
                    self._read(connection)
                except (MptcpdError, OSError) as error:
                    token = connection.token  # the sweep says it to all if the kernel is in need
                    words = "connection %08x is not complete: %s"
                    _log.debug(words, token, error, extra=about(token=token))
                    self._incomplete.append(connection)  # tried again with the next batch

    def _read(self, connection: Connection) -> None:
        if connection.uid is None:
            row = self.kernel.connection(connection.token)
            if row is not None:
                self.step(row)
        if not connection.path_manager:  # else a policy's command has had it read
            addresses = self.kernel.local_addresses(connection.token)
            if addresses is not None:  # else it closed meanwhile: an event or the sweep tells
                self.step(addresses)

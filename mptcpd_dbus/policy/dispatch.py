"""From an event to the handlers that hear of it, with the pictures that they get."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from mptcpd_dbus.core import connections, events, network, readings
from mptcpd_dbus.core.state import Change, State
from mptcpd_dbus.policy import snapshots
from mptcpd_dbus.policy.hosted import Hosted
from mptcpd_dbus.policy.mailbox import HOST
from mptcpd_dbus.policy.network_filter import NetworkFilter
from mptcpd_dbus.policy.owners import Owners
from mptcpd_dbus.policy.snapshots import Listener


def _connection(_: Any, change: Change) -> tuple[Any, ...]:
    return (_of(change),)


def _closed_connection(change: Change) -> snapshots.Connection:
    """Picture it with all that it had, of which the state has let go."""
    addresses = [thing for thing in change.removed if isinstance(thing, connections.Address)]
    subflows = (thing for thing in change.removed if isinstance(thing, connections.Subflow))
    return replace(
        _of(change),
        subflows=tuple(map(snapshots.subflow, subflows)),
        local_addresses=tuple(snapshots.address(a) for a in addresses if not a.remote),
        remote_addresses=tuple(snapshots.address(a) for a in addresses if a.remote),
    )


def _address(event: events.NewAddress | events.AddressRemoved, change: Change) -> tuple[Any, ...]:
    living = change.subject
    if isinstance(living, connections.Address):
        return _of(change), snapshots.address(living)
    return _of(change), snapshots.Address(event.remote_id, "", 0, remote=True)


def _subflow(_: Any, change: Change) -> tuple[Any, ...]:
    assert isinstance(change.subject, connections.Subflow)  # noqa: S101 # for the type checker
    return _of(change), snapshots.subflow(change.subject)


def _closed(event: events.SubflowClosed, change: Change) -> tuple[Any, ...]:
    living = change.subject if isinstance(change.subject, connections.Subflow) else None
    assert change.connection is not None  # noqa: S101 # for the type checker
    return _of(change), snapshots.closed_subflow(event, change.connection, living)


def _of(change: Change) -> snapshots.Connection:
    assert change.connection is not None  # noqa: S101 # for the type checker
    return snapshots.connection(change.connection)


HANDLER_OF: dict[type, str] = {
    events.NewConnection: "new_connection",
    events.ConnectionEstablished: "connection_established",
    events.ConnectionClosed: "connection_closed",
    events.NewAddress: "new_address",
    events.AddressRemoved: "address_removed",
    events.NewSubflow: "new_subflow",
    events.SubflowClosed: "subflow_closed",
    events.SubflowPriority: "subflow_priority",
    events.ListenerCreated: "listener_created",
    events.ListenerClosed: "listener_closed",
    events.NewInterface: "new_interface",
    events.UpdateInterface: "update_interface",
    events.DeleteInterface: "delete_interface",
    events.NewLocalAddress: "new_local_address",
    events.DeleteLocalAddress: "delete_local_address",
    events.EventsLost: "events_lost",
}
"""The handler of each event: its class's name in the spelling of functions."""

_ARGUMENTS: dict[type, Callable[[Any, Change], tuple[Any, ...]]] = {
    events.NewConnection: _connection,
    events.ConnectionEstablished: _connection,
    events.NewAddress: _address,
    events.AddressRemoved: _address,
    events.NewSubflow: _subflow,
    events.SubflowClosed: _closed,
    events.SubflowPriority: _subflow,
}


class Dispatch:
    """Hands each event on; *settings_read* hears of the kernel's settings."""

    def __init__(
        self,
        state: State,
        owners: Owners,
        network_filter: NetworkFilter,
        settings_read: Callable[[], None],
    ) -> None:
        self._state = state
        self._owners = owners
        self._network = network_filter
        self._settings_read = settings_read
        self._posters: dict[type, Callable[[Any, Change], None]] = {
            **dict.fromkeys(_ARGUMENTS, self._connection_event),
            events.ConnectionClosed: self._connection_event,
            events.ListenerCreated: self._listener,
            events.ListenerClosed: self._listener,
            events.EventsLost: lambda event, _: self.tell_all("events_lost", event.source),
            events.NewInterface: self._network_event,
            events.UpdateInterface: self._network_event,
            events.DeleteInterface: self._network_event,
            events.NewLocalAddress: self._network_event,
            events.DeleteLocalAddress: self._network_event,
            readings.RoutedAddressesRead: self._network_event,
            readings.DefaultRoutesRead: self._network_event,
            readings.AddressTraitsRead: self._network_event,
            readings.ManagementRead: self._network_event,
            readings.LocalAddressesRead: self._path_manager_read,
            readings.EndpointsRead: self._endpoints_read,
            readings.SettingsRead: lambda *_: settings_read(),
        }

    def post(self, what: events.Event | readings.Reading, change: Change) -> None:
        """Queue *what*, which has just changed the state, for whom it concerns."""
        poster = self._posters.get(type(what))
        if poster is not None:
            poster(what, change)

    def tell_all(self, handler: str, *arguments: Any) -> None:
        """Queue a host event for every policy."""
        for policy in self._owners.running:
            policy.post(HOST, handler, *arguments)

    def tell_network(
        self,
        told: Iterable[events.NetworkEvent],
        gone: network.Interface | None = None,
        only: Hosted | None = None,
    ) -> None:
        """Queue what is left of network events after the filter, for all or for *only* one.

        *gone* is the interface that has just been deleted.
        """
        for event in told:
            index = event.index if hasattr(event, "index") else event.interface_index
            living = self._state.network.interfaces.get(index, gone)
            if living is not None:
                picture = snapshots.interface(living, self._network.shown(living) or {})
                address = getattr(event, "address", None)
                more = () if address is None else (address,)
                for policy in self._owners.running if only is None else (only,):
                    policy.post(HOST, HANDLER_OF[type(event)], picture, *more)

    def _connection_event(self, event: events.ConnectionEvent, change: Change) -> None:
        connection = change.connection
        if connection is None:
            return
        if type(event) is events.NewConnection:
            self._owners.welcome(connection)
        policy = self._owners.owner(connection)
        handler = HANDLER_OF[type(event)]
        if type(event) is events.ConnectionClosed:
            self._owners.forget(connection)
            if policy is not None:
                policy.finish(connection.number, handler, _closed_connection(change))
        elif policy is not None and policy.hears(handler):
            policy.post(connection.number, handler, *_ARGUMENTS[type(event)](event, change))

    def _listener(self, event: events.ListenerCreated | events.ListenerClosed, _: Change) -> None:
        self.tell_all(HANDLER_OF[type(event)], Listener(event.address, event.port))

    def _network_event(
        self,
        what: events.NetworkEvent | readings.NetworkReading,
        change: Change,
    ) -> None:
        gone = change.subject if isinstance(change.subject, network.Interface) else None
        self.tell_network(self._network.take(what), gone)

    def _path_manager_read(self, _: readings.LocalAddressesRead, change: Change) -> None:
        if change.connection is not None:
            self._owners.check(change.connection)

    def _endpoints_read(self, _: readings.EndpointsRead, change: Change) -> None:
        if change.added or change.changed or change.removed:
            self.tell_all("endpoints_changed")

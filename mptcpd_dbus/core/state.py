"""The state: everything known about the host's MPTCP, changed by `apply` and by nothing else.

It is pure: events and readings go in, a `Change` comes out.  What the kernel's events leave out
is stated at the rule that copes with it; all of it was measured on a 6.18 kernel.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Union

from mptcpd_dbus.core import events, readings
from mptcpd_dbus.core.connections import Address, Connection, Subflow
from mptcpd_dbus.core.endpoints import NETWORKMANAGER, OTHER, OURS, Endpoint
from mptcpd_dbus.core.network import Interface, Network
from mptcpd_dbus.core.policies import Policy
from mptcpd_dbus.core.types import AddressEntry, AddressFlag, ConnectionState

Thing = Union[Connection, Subflow, Address, Endpoint, Interface, Policy, "State"]
"""Whatever is published as an object; the state itself is the host's."""

_TCP_ESTABLISHED = 1


@dataclass(slots=True)
class Change:
    """What one event or reading did: its connection, its subject, and the objects it touched.

    Containers come before their content in `added`, after it in `removed`.
    """

    connection: Connection | None = None
    subject: Thing | None = None
    added: tuple[Thing, ...] = ()
    changed: tuple[Thing, ...] = ()
    removed: tuple[Thing, ...] = ()


def all_of(connection: Connection) -> "Iterator[Thing]":
    """Give a connection and all that belongs to it, the container first."""
    yield connection
    yield from connection.subflows.values()
    yield from connection.local_addresses.values()
    yield from connection.remote_addresses.values()


class State:
    """Connections by token, policies, the network, the kernel's endpoints and settings."""

    def __init__(self) -> None:
        self.connections: dict[int, Connection] = {}
        self.network = Network()
        self.endpoints: dict[int, Endpoint] = {}
        self._own_endpoints: frozenset[tuple[int, str, int]] = frozenset()
        self.policies: dict[str, Policy] = {}
        self.limits = readings.LimitsRead(subflows=0, add_addr_accepted=0)
        self.settings = readings.SettingsRead(
            enabled=False, path_manager="", available_path_managers=(), scheduler=""
        )
        self.listeners: Counter[tuple[str, int]] = Counter()
        self.events_lost = 0
        self.connections_seen = 0
        self._apply: dict[type, Callable[[Any], Change | None]] = {
            events.NewConnection: self._new_connection,
            events.ConnectionEstablished: self._connection_established,
            events.ConnectionClosed: self._connection_closed,
            events.NewAddress: self._new_address,
            events.AddressRemoved: self._address_removed,
            events.NewSubflow: self._new_subflow,
            events.SubflowClosed: self._subflow_closed,
            events.SubflowPriority: self._subflow_priority,
            events.ListenerCreated: self._listener_created,
            events.ListenerClosed: self._listener_closed,
            events.NewInterface: self._new_interface,
            events.UpdateInterface: self._update_interface,
            events.DeleteInterface: self._delete_interface,
            events.NewLocalAddress: self._new_local_address,
            events.DeleteLocalAddress: self._delete_local_address,
            events.EventsLost: self._events_lost,
            readings.ConnectionRead: self._connection_read,
            readings.SubflowRead: self._subflow_read,
            readings.LocalAddressesRead: self._local_addresses_read,
            readings.EndpointsRead: self._endpoints_read,
            readings.OwnEndpointsRead: self._own_endpoints_read,
            readings.LimitsRead: self._limits_read,
            readings.SettingsRead: self._settings_read,
            readings.DefaultRoutesRead: self._default_routes_read,
            readings.RoutedAddressesRead: self._routed_addresses_read,
            readings.AddressTraitsRead: self._address_traits_read,
            readings.ManagementRead: self._management_read,
            readings.PolicyRead: self._policy_read,
            readings.PolicyGone: self._policy_gone,
            readings.OwnerRead: self._owner_read,
        }

    def apply(self, what: events.Event | readings.Reading) -> Change | None:
        """Take *what* in; give what it changed, or None where it taught nothing."""
        return self._apply[type(what)](what)

    def implied_by(self, event: events.Event) -> list[events.Event]:
        """Give the events that must have come before *event* and did not.

        The kernel sends no CLOSED when the peer aborts, and uses tokens again; and a vanishing
        interface takes its addresses along.
        """
        if isinstance(event, events.NewConnection):
            old = self.connections.get(event.token)
            if old is not None and old.four_tuple != event.four_tuple:
                return [events.ConnectionClosed(event.token)]
        elif isinstance(event, events.DeleteInterface):
            interface = self.network.interfaces.get(event.index)
            if interface is not None:
                return [
                    events.DeleteLocalAddress(event.index, address)
                    for address in interface.addresses
                ]
        return []

    def everything(self) -> "Iterator[Thing]":
        """Give all things, containers before their content."""
        yield self
        yield from self.network.interfaces.values()
        yield from self.endpoints.values()
        yield from self.policies.values()
        for connection in self.connections.values():
            yield from all_of(connection)

    # Connections.  An event for a token that is not known teaches nothing: a lone CLOSED belongs
    # to a connection that never became MPTCP, and ESTABLISHED or ANNOUNCED may follow CLOSED.

    def _new_connection(self, event: events.NewConnection) -> Change | None:
        known = self.connections.get(event.token)
        if known is not None:  # found by a dump, which does not show the flag
            known.deny_join_id0 |= event.deny_join_id0
            return None
        self.connections_seen += 1
        connection = Connection(
            self.connections_seen,
            event.token,
            event.four_tuple,
            event.server_side,
            event.deny_join_id0,
            event.mapped,
        )
        self.connections[event.token] = connection
        # The initial subflow has no event of its own; its addresses are the connection's.
        initial = self._add_subflow(connection, event, 0, backup=False)
        return Change(connection, connection, (connection, initial))

    def _connection_established(self, event: events.ConnectionEstablished) -> Change | None:
        connection = self.connections.get(event.token)
        if connection is None or connection.confirmed:
            return None
        connection.confirmed = True
        if connection.state is ConnectionState.CREATED:  # it may have been found closing before
            connection.state = ConnectionState.ESTABLISHED
        # The peer's wish may only be known by now.
        connection.deny_join_id0 |= event.deny_join_id0
        return Change(connection, connection, (), (connection,))

    def _connection_closed(self, event: events.ConnectionClosed) -> Change | None:
        connection = self.connections.pop(event.token, None)
        if connection is None:
            return None
        self._count_owned(connection.owner, -1)
        # No SUB_CLOSED comes for the subflows of a closed connection.
        removed: tuple[Thing, ...] = (
            *connection.subflows.values(),
            *connection.local_addresses.values(),
            *connection.remote_addresses.values(),
            connection,
        )
        # Let go of them: a cycle would leave the freeing to the collector, which holds the loop.
        connection.subflows, connection.local_addresses, connection.remote_addresses = {}, {}, {}
        return Change(connection, connection, (), (), removed)

    def _new_address(self, event: events.NewAddress) -> Change | None:
        connection = self.connections.get(event.token)
        if connection is None:
            return None
        known = connection.remote_addresses.get(event.remote_id)
        if known is None:
            address = Address(connection, event.remote_id, event.address, event.port, remote=True)
            connection.remote_addresses[event.remote_id] = address
            return Change(connection, address, added=(address,))
        if (known.address, known.port) == (event.address, event.port):
            return None  # one ADD_ADDR is heard once per retransmission
        known.address, known.port = event.address, event.port
        return Change(connection, known, changed=(known,))

    def _address_removed(self, event: events.AddressRemoved) -> Change | None:
        connection = self.connections.get(event.token)
        if connection is None:
            return None
        address = connection.remote_addresses.pop(event.remote_id, None)
        # The peer may withdraw an ID that it never announced: told, though there is no object.
        return Change(connection, address, removed=(address,) if address else ())

    def _new_subflow(self, event: events.NewSubflow) -> Change | None:
        connection = self.connections.get(event.token)
        if connection is None or event.four_tuple in connection.subflows:
            return None
        subflow = self._add_subflow(connection, event, event.interface_index, backup=event.backup)
        added: tuple[Thing, ...] = (subflow,)
        # A join from an address that was never announced makes the kernel allocate an ID for it.
        if (
            event.local_id
            and connection.path_manager == "userspace"
            and event.local_id not in connection.local_addresses
        ):
            address = Address(
                connection, event.local_id, event.four_tuple.local_address, 0, remote=False
            )
            connection.local_addresses[event.local_id] = address
            added = (subflow, address)
        return Change(connection, subflow, added=added)

    def _subflow_closed(self, event: events.SubflowClosed) -> Change | None:
        connection = self.connections.get(event.token)
        if connection is None:
            return None
        subflow = connection.subflows.pop(event.four_tuple, None)
        # A join that failed has no SUB_ESTABLISHED before it: told, though there is no object.
        return Change(connection, subflow, removed=(subflow,) if subflow else ())

    def _subflow_priority(self, event: events.SubflowPriority) -> Change | None:
        connection = self.connections.get(event.token)
        subflow = connection.subflows.get(event.four_tuple) if connection else None
        if subflow is None or subflow.backup == event.backup:
            return None
        subflow.backup = event.backup
        return Change(connection, subflow, changed=(subflow,))

    def _add_subflow(
        self,
        connection: Connection,
        event: events.NewConnection | events.NewSubflow,
        bound_to: int,
        *,
        backup: bool,
    ) -> Subflow:
        four_tuple = event.four_tuple
        number = connection.subflows_made = connection.subflows_made + 1
        subflow = connection.subflows[four_tuple] = Subflow(
            connection,
            number,
            four_tuple,
            event.local_id,
            event.remote_id,
            backup,
            event.mapped,
            number == 1,
            bound_to,
            self._interface_of(bound_to, four_tuple.local_address),
        )
        return subflow

    def _connection_read(self, reading: readings.ConnectionRead) -> Change | None:
        connection = self.connections.get(reading.token)
        if connection is None:
            return None
        connection.uid = reading.uid
        connection.cgroup = reading.cgroup
        connection.fallback = reading.fallback
        if reading.state != _TCP_ESTABLISHED:
            connection.state = ConnectionState.CLOSING
        return Change(connection, connection, changed=(connection,))

    def _subflow_read(self, reading: readings.SubflowRead) -> Change | None:
        connection = self.connections.get(reading.token)
        subflow = connection.subflows.get(reading.four_tuple) if connection else None
        if subflow is None or subflow.backup_requested == reading.backup_requested:
            return None
        subflow.backup_requested = reading.backup_requested
        return Change(connection, subflow, changed=(subflow,))

    def _local_addresses_read(self, reading: readings.LocalAddressesRead) -> Change | None:
        connection = self.connections.get(reading.token)
        if connection is None:
            return None
        connection.path_manager = "kernel" if reading.entries is None else "userspace"
        if not reading.table and reading.entries is not None:
            return Change(connection, connection, changed=(connection,))
        entries = {entry.id: entry for entry in reading.entries or ()}
        known = connection.local_addresses
        removed = tuple(known.pop(i) for i in list(known) if i not in entries)
        added: list[Thing] = []
        changed: list[Thing] = [connection]
        for entry in entries.values():
            address = known.get(entry.id)
            if address is None:
                address = Address(connection, entry.id, "", 0, remote=False)
                known[entry.id] = address
                added.append(address)
            else:
                changed.append(address)
            address.address, address.port, address.flags = entry.address, entry.port, entry.flags
        return Change(connection, connection, tuple(added), tuple(changed), removed)

    # The in-kernel path manager, listeners and settings.

    def _endpoints_read(self, reading: readings.EndpointsRead) -> Change:
        entries = {entry.id: entry for entry in reading.endpoints}
        known = self.endpoints
        # Another address under an ID is another endpoint: a command that waited for a dialogue must
        # not reach it.
        removed = tuple(
            known.pop(i)
            for i, old in list(known.items())
            if i not in entries
            or (old.entry.address, old.entry.port) != (entries[i].address, entries[i].port)
        )
        added: list[Thing] = []
        changed: list[Thing] = []
        for entry in entries.values():
            endpoint = known.get(entry.id)
            if endpoint is None:
                known[entry.id] = Endpoint(entry.id, entry, self._origin(entry))
                added.append(known[entry.id])
            elif endpoint.entry != entry:
                endpoint.entry, endpoint.origin = entry, self._origin(entry)
                changed.append(endpoint)
        return Change(added=tuple(added), changed=tuple(changed), removed=removed)

    def _own_endpoints_read(self, reading: readings.OwnEndpointsRead) -> Change | None:
        self._own_endpoints = reading.keys
        changed = self._passed_on()
        return Change(changed=changed) if changed else None

    def _passed_on(self) -> tuple[Endpoint, ...]:
        """Say anew whose each endpoint is; give those that are somebody else's now."""
        before = {endpoint: endpoint.origin for endpoint in self.endpoints.values()}
        for endpoint in before:
            endpoint.origin = self._origin(endpoint.entry)
        return tuple(endpoint for endpoint, origin in before.items() if endpoint.origin != origin)

    def _origin(self, entry: AddressEntry) -> str:
        if entry.flags & AddressFlag.IMPLICIT:
            return OTHER  # the kernel makes one for an address that a connection uses
        if (entry.id, entry.address, entry.port) in self._own_endpoints:
            return OURS
        interface = self.network.interfaces.get(entry.interface_index)
        # NetworkManager binds all of its own to their device, and takes any there for its own.
        managed = interface is not None and interface.management.managed
        return NETWORKMANAGER if managed and not entry.port else OTHER

    def _limits_read(self, reading: readings.LimitsRead) -> Change:
        self.limits = reading
        return Change(changed=(self,))

    def _settings_read(self, reading: readings.SettingsRead) -> Change:
        self.settings = reading
        return Change(changed=(self,))

    # Not `changed`: to show all listeners for each that comes would be as dear as a user likes.

    def _listener_created(self, event: events.ListenerCreated) -> Change:
        self.listeners[event.address, event.port] += 1
        return Change()

    def _listener_closed(self, event: events.ListenerClosed) -> Change | None:
        key = (event.address, event.port)
        if key not in self.listeners:
            return None
        self.listeners[key] -= 1  # several may share a port (SO_REUSEPORT)
        if not self.listeners[key]:
            del self.listeners[key]
        return Change()

    def _events_lost(self, _: events.EventsLost) -> Change:
        self.events_lost += 1
        return Change()

    # Policies.  A connection may be given to a policy before the policy is told of.

    def _policy_read(self, reading: readings.PolicyRead) -> Change | None:
        told = asdict(reading)
        policy = self.policies.get(reading.name)
        if policy is None:
            owned = sum(c.owner == reading.name for c in self.connections.values())
            self.policies[reading.name] = policy = Policy(**told, connections=owned)
            return Change(subject=policy, added=(policy,))
        if all(getattr(policy, name) == value for name, value in told.items()):
            return None
        for name, value in told.items():
            setattr(policy, name, value)
        return Change(subject=policy, changed=(policy,))

    def _policy_gone(self, reading: readings.PolicyGone) -> Change | None:
        policy = self.policies.pop(reading.name, None)
        if policy is None:
            return None
        owned = tuple(c for c in self.connections.values() if c.owner == policy.name)
        for connection in owned:
            connection.owner = ""
        policy.connections = 0
        return Change(subject=policy, changed=owned, removed=(policy,))

    def _owner_read(self, reading: readings.OwnerRead) -> Change | None:
        connection = self.connections.get(reading.token)
        if connection is None or connection.owner == reading.owner:
            return None
        self._count_owned(connection.owner, -1)
        connection.owner = reading.owner
        self._count_owned(connection.owner, +1)
        return Change(connection, connection, changed=(connection,))

    def _count_owned(self, owner: str, difference: int) -> None:
        policy = self.policies.get(owner)
        if policy is not None:
            policy.connections += difference

    # The network.

    def _new_interface(self, event: events.NewInterface) -> Change | None:
        if event.index in self.network.interfaces:
            return self._update_interface(event)
        interface = Interface(event.index, event.name, event.kind, event.up, event.running)
        self.network.interfaces[event.index] = interface
        self.network.manage(interface)
        return Change(subject=interface, added=(interface,), changed=self._moved())

    def _update_interface(
        self, event: events.NewInterface | events.UpdateInterface
    ) -> Change | None:
        interface = self.network.interfaces.get(event.index)
        if interface is None:
            return None
        before = (interface.name, interface.kind, interface.up, interface.running)
        after = (event.name, event.kind, event.up, event.running)
        if before == after:
            return None
        interface.name, interface.kind, interface.up, interface.running = after
        changed: tuple[Thing, ...] = (interface,)
        if before[0] != after[0]:
            self.network.manage(interface)
            changed += tuple(self._subflows_over(interface))
        return Change(subject=interface, changed=changed)

    def _delete_interface(self, event: events.DeleteInterface) -> Change | None:
        interface = self.network.interfaces.pop(event.index, None)
        if interface is None:
            return None
        return Change(subject=interface, changed=self._moved(), removed=(interface,))

    def _new_local_address(self, event: events.NewLocalAddress) -> Change | None:
        interface = self.network.interfaces.get(event.interface_index)
        if interface is None or interface.addresses.get(event.address) == event.prefix_length:
            return None
        self.network.add_address(interface, event.address, event.prefix_length, event.traits)
        return Change(subject=interface, changed=(interface, *self._moved()))

    def _delete_local_address(self, event: events.DeleteLocalAddress) -> Change | None:
        interface = self.network.interfaces.get(event.interface_index)
        if interface is None or event.address not in interface.addresses:
            return None
        self.network.remove_address(interface, event.address)
        return Change(subject=interface, changed=(interface, *self._moved()))

    def _default_routes_read(self, reading: readings.DefaultRoutesRead) -> Change | None:
        changed: list[Thing] = []
        for interface in self.network.interfaces.values():
            routes = {f: metric for index, f, metric in reading.routes if index == interface.index}
            if routes != interface.default_routes:
                interface.default_routes = routes
                changed.append(interface)
        return Change(changed=tuple(changed)) if changed else None

    def _routed_addresses_read(self, reading: readings.RoutedAddressesRead) -> Change | None:
        found: dict[int, set[str]] = {}
        for index, address in reading.addresses:
            found.setdefault(index, set()).add(address)
        changed: list[Thing] = []
        for interface in self.network.interfaces.values():
            routed = frozenset(found.get(interface.index, ())) & interface.addresses.keys()
            if routed != interface.routed:
                interface.routed = routed
                changed.append(interface)
        return Change(changed=tuple(changed)) if changed else None

    def _address_traits_read(self, reading: readings.AddressTraitsRead) -> Change | None:
        interface = self.network.interfaces.get(reading.interface_index)
        if interface is None or interface.traits.get(reading.address) in (None, reading.traits):
            return None
        interface.traits[reading.address] = reading.traits
        return Change(subject=interface, changed=(interface,))

    def _management_read(self, reading: readings.ManagementRead) -> Change | None:
        self.network.management = reading.interfaces
        managed = tuple(filter(self.network.manage, self.network.interfaces.values()))
        changed: tuple[Thing, ...] = (*managed, *self._passed_on())
        return Change(changed=changed) if changed else None

    def _interface_of(self, bound_to: int, local_address: str) -> Interface | None:
        network = self.network
        return network.interfaces.get(bound_to) if bound_to else network.owner(local_address)

    def _moved(self) -> tuple[Subflow, ...]:
        """Look again which interface each subflow has; give those that have another one now.

        Events of connections and of the network have no common order.  A scan, too, is rare.
        """
        moved = []
        for connection in self.connections.values():
            for subflow in connection.subflows.values():
                address = subflow.four_tuple.local_address
                interface = self._interface_of(subflow.bound_to, address)
                if interface is not subflow.interface:
                    subflow.interface = interface
                    moved.append(subflow)
        return tuple(moved)

    def _subflows_over(self, interface: Interface) -> list[Subflow]:
        """Find them by a scan: renaming or deleting an interface is rare, a subflow is not."""
        return [
            subflow
            for connection in self.connections.values()
            for subflow in connection.subflows.values()
            if subflow.interface is interface
        ]

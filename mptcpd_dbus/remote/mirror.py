"""The daemon's objects as the state that policies look at.

It follows what the object manager says, in its order, and decides nothing.  Must not know how that
is heard.  Numbers of connections and subflows are those of their paths.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from mptcpd_dbus.bus.names import CALLS_HELD, INTERFACE_PREFIX, ROOT
from mptcpd_dbus.bus.paths import connection_path, subflow_path
from mptcpd_dbus.core.connections import Address, Connection, Subflow
from mptcpd_dbus.core.endpoints import Endpoint, flag_bits
from mptcpd_dbus.core.network import NO_TRAITS, Interface, Management
from mptcpd_dbus.core.readings import LimitsRead, SettingsRead
from mptcpd_dbus.core.state import State
from mptcpd_dbus.core.types import AddressEntry, ConnectionState, FourTuple

Properties = Mapping[str, Any]

_NO_UID = 0xFFFFFFFF
_RECALLED = 4 * CALLS_HELD  # calls come after what they tell of, and a connection had some things


def path_of(living: Connection | Subflow | Endpoint) -> str:
    """Give the daemon's path of what is in a mirror."""
    match living:
        case Subflow():
            return subflow_path(living.connection.number, living.number)
        case Connection():
            return connection_path(living.number)
        case _:
            return f"{ROOT}/endpoint/{living.id}"


class Mirror:
    """A state that is what the objects are.

    `moved` is called after each change, and `closed` with each connection that has gone.
    """

    def __init__(self) -> None:
        self.state = State()
        self.moved: Callable[[], None] = lambda: None
        self.closed: Callable[[Connection], None] = lambda _: None
        self._things: dict[str, Any] = {}
        self._gone: dict[str, Any] = {}  # the last is the latest
        self._leaving: defaultdict[Connection, list[Subflow | Address]] = defaultdict(list)
        self._makers: dict[str, Callable[[str, Properties], Any]] = {
            "Connection": self._make_connection,
            "Subflow": self._make_subflow,
            "Address": self._make_address,
            "Endpoint": self._make_endpoint,
            "Interface": self._make_interface,
        }
        self._changers: dict[type, Callable[[Any, Properties], None]] = {
            Connection: _change_connection,
            Subflow: self._change_subflow,
            Address: _change_address,
            Endpoint: self._change_endpoint,
            Interface: self._change_interface,
        }

    def get(self, path: str) -> Any:
        """Give what is at *path*, or None."""
        return self._things.get(path)

    def recall(self, path: str) -> Any:
        """Give what is, or was a moment ago, at *path*, or None."""
        return self._things.get(path) or self._gone.get(path)

    def load(self, objects: Mapping[str, Mapping[str, Properties]]) -> None:
        """Be what *objects* are from now on: interfaces come first, what refers to others after."""
        for path in sorted(self._things.keys() - objects.keys(), reverse=True):
            self.removed(path)
        for path in sorted(objects, key=lambda p: (not p.startswith(f"{ROOT}/interface/"), p)):
            if path in self._things:
                for properties in objects[path].values():
                    self.changed(path, properties)
            else:
                self.added(path, objects[path])

    def added(self, path: str, interfaces: Mapping[str, Properties]) -> None:
        """Take in an object that is new, but not what belongs to one that has gone."""
        for name, properties in interfaces.items():
            above = properties.get("Connection")
            if above is not None and above not in self._things:
                continue
            make = self._makers.get(name.removeprefix(INTERFACE_PREFIX))
            if make is not None and path not in self._things:
                thing = self._things[path] = make(path, properties)
                self._changers[type(thing)](thing, properties)
        self.settle()
        self.moved()

    def changed(self, path: str, properties: Properties) -> None:
        """Take in new values."""
        if path == ROOT:
            self.manager(properties)
        thing = self._things.get(path)
        if thing is not None:
            self._changers[type(thing)](thing, properties)
        self.moved()

    def removed(self, path: str) -> None:
        """Let go of an object; what it was can be recalled for a while.

        A connection that goes keeps what goes with it.
        """
        thing = self._things.pop(path, None)
        if thing is None:
            return
        self._gone.pop(path, None)
        self._gone[path] = thing
        if len(self._gone) > _RECALLED:
            del self._gone[next(iter(self._gone))]
        match thing:
            case Connection():
                self.state.connections.pop(thing.token, None)
                for part in self._leaving.pop(thing, ()):
                    self._put(part)
                self.closed(thing)
            case Subflow() | Address():
                self._leaving[thing.connection].append(thing)
                if thing.connection.token in self.state.connections:
                    self._take_out(thing)
            case Endpoint():
                self.state.endpoints.pop(thing.id, None)
            case Interface():
                self._change_interface(thing, {"Addresses": []})
                self.state.network.interfaces.pop(thing.index, None)
            case _:
                pass
        self.moved()

    def settle(self) -> None:
        """Hear that a batch is over: what has left did not leave with what leaves next."""
        self._leaving.clear()

    def _put(self, part: Subflow | Address) -> None:
        if isinstance(part, Subflow):
            part.connection.subflows[part.four_tuple] = part
        else:
            _addresses_of(part)[part.id] = part

    def _take_out(self, part: Subflow | Address) -> None:
        if isinstance(part, Subflow):
            part.connection.subflows.pop(part.four_tuple, None)
        else:
            _addresses_of(part).pop(part.id, None)

    def manager(self, properties: Properties) -> None:
        """Take in values of the manager."""
        state, p = self.state, properties
        was, limits = state.settings, state.limits
        state.settings = SettingsRead(
            p.get("Enabled", was.enabled),
            p.get("PathManager", was.path_manager),
            tuple(p.get("AvailablePathManagers", was.available_path_managers)),
            p.get("Scheduler", was.scheduler),
        )
        state.limits = LimitsRead(
            p.get("SubflowLimit", limits.subflows),
            p.get("AddAddrAcceptedLimit", limits.add_addr_accepted),
        )
        if "Listeners" in p:
            state.listeners = Counter((address, port) for address, port in p["Listeners"])

    def listens(self, address: str, port: int, *, still: bool) -> None:
        """Take in a listener that came or went; of several on one port the first to go counts."""
        self.state.listeners.pop((address, port), None)
        if still:
            self.state.listeners[address, port] = 1

    # Connections

    def _make_connection(self, path: str, p: Properties) -> Connection:
        four_tuple = _four_tuple(p)
        denies = p["DenyJoinId0"]
        number, token = _last_number(path), p["Token"]
        connection = Connection(number, token, four_tuple, p["ServerSide"], denies, mapped=False)
        self.state.connections[token] = connection
        return connection

    def _make_subflow(self, path: str, p: Properties) -> Subflow:
        connection = self._things[p["Connection"]]
        bound = p["InterfaceIndex"] if p["Bound"] else 0
        subflow = Subflow(
            connection,
            _last_number(path),
            _four_tuple(p),
            p["LocalId"],
            p["RemoteId"],
            p["Backup"],
            mapped=False,
            initial=p["Initial"],
            bound_to=bound,
            interface=None,
        )
        self._put(subflow)
        return subflow

    def _change_subflow(self, subflow: Subflow, p: Properties) -> None:
        subflow.backup = p.get("Backup", subflow.backup)
        subflow.backup_requested = p.get("BackupRequested", subflow.backup_requested)
        if "InterfaceIndex" in p:
            subflow.interface = self.state.network.interfaces.get(p["InterfaceIndex"])

    def _make_address(self, _: str, p: Properties) -> Address:
        connection = self._things[p["Connection"]]
        address = Address(connection, p["Id"], p["Address"], p["Port"], p["Remote"])
        self._put(address)
        return address

    # The host

    def _make_endpoint(self, _: str, p: Properties) -> Endpoint:
        entry = AddressEntry(p["Address"], p["Id"], p["Port"], 0, 0)
        endpoint = self.state.endpoints[entry.id] = Endpoint(entry.id, entry, p["Origin"])
        return endpoint

    def _change_endpoint(self, endpoint: Endpoint, p: Properties) -> None:
        was = endpoint.entry
        index = was.interface_index
        if "Interface" in p:
            index = self.state.network.index_of(p["Interface"])
        endpoint.entry = AddressEntry(
            p.get("Address", was.address),
            was.id,
            p.get("Port", was.port),
            flag_bits(p["Flags"]) if "Flags" in p else was.flags,
            index,
        )
        endpoint.origin = p.get("Origin", endpoint.origin)

    def _make_interface(self, _: str, p: Properties) -> Interface:
        interface = Interface(p["Index"], p["Name"], p["Kind"], p["Up"], p["Running"])
        self.state.network.interfaces[interface.index] = interface
        return interface

    def _change_interface(self, interface: Interface, p: Properties) -> None:
        for name in ("Name", "Kind", "Up", "Running"):
            if name in p:
                setattr(interface, name.lower(), p[name])
        known = {_snake(name): value for name, value in p.items()}
        mine = {name: known[name] for name in Management._fields if name in known}
        interface.management = interface.management._replace(**mine)
        if "DefaultRoutes" in p:
            metrics = p["DefaultRoutes"].items()
            interface.default_routes = {int(family[-1]): metric for family, metric in metrics}
        network = self.state.network
        if "Addresses" in p:
            lengths = dict(text.split("/") for text in p["Addresses"])
            for address in [a for a in interface.addresses if a not in lengths]:
                network.remove_address(interface, address)
            for address, length in lengths.items():
                traits = interface.traits.get(address, NO_TRAITS)
                network.add_address(interface, address, int(length), traits)
        if "AddressMarks" in p:
            interface.mark(p["AddressMarks"])


def _change_connection(connection: Connection, p: Properties) -> None:
    for name in ("Owner", "Fallback"):
        if name in p:
            setattr(connection, name.lower(), p[name])
    if "State" in p:
        connection.state = ConnectionState(p["State"])
    connection.path_manager = p.get("PathManager", connection.path_manager)
    if "Uid" in p:
        connection.uid = None if p["Uid"] == _NO_UID else p["Uid"]
    if "ControlGroup" in p:
        connection.cgroup = p["ControlGroup"] or None


def _change_address(address: Address, p: Properties) -> None:
    address.address = p.get("Address", address.address)
    address.port = p.get("Port", address.port)


def _addresses_of(address: Address) -> dict[int, Address]:
    connection = address.connection
    return connection.remote_addresses if address.remote else connection.local_addresses


def _four_tuple(p: Properties) -> FourTuple:
    return FourTuple(p["LocalAddress"], p["LocalPort"], p["RemoteAddress"], p["RemotePort"])


def _snake(name: str) -> str:
    """Spell the name of a property as ours: DeviceType is device_type."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).removeprefix("_")


def _last_number(path: str) -> int:
    return int(path.rpartition("/")[2])

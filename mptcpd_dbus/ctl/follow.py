"""The connections and subflows that there are, kept up to date by the daemon's signals.

All are read once; then whoever comes and goes is heard of.  What is read is one state, and signals
that come meanwhile are taken in again after it, which changes nothing that it knew already.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mptcpd_dbus.bus.error_names import DISCONNECTED, BusError
from mptcpd_dbus.bus.message import Incoming
from mptcpd_dbus.bus.names import BUS_NAME, CONNECTION, MANAGER, ROOT, SUBFLOW
from mptcpd_dbus.bus.transport import DBUS, DBUS_PATH
from mptcpd_dbus.ctl.daemon import Daemon, Objects, Properties
from mptcpd_dbus.ctl.rates import Meter

_OBJECT_MANAGER, _PROPERTIES = f"{DBUS}.ObjectManager", f"{DBUS}.Properties"
_SIGNALS = (
    (DBUS, "NameOwnerChanged", f"sender='{DBUS}',arg0='{BUS_NAME}'"),
    (_OBJECT_MANAGER, "InterfacesAdded", f"sender='{BUS_NAME}',path='{ROOT}'"),
    (_OBJECT_MANAGER, "InterfacesRemoved", f"sender='{BUS_NAME}',path='{ROOT}'"),
    (_PROPERTIES, "PropertiesChanged", f"sender='{BUS_NAME}',path_namespace='{ROOT}/connection'"),
    (MANAGER, "SignalsDropped", f"sender='{BUS_NAME}',path='{ROOT}'"),
)


@dataclass(slots=True)
class Subflow:
    """A subflow as the daemon knows it, and what it does."""

    path: str
    properties: Properties
    meter: Meter


@dataclass(slots=True)
class Connection:
    """A connection as the daemon knows it, with its subflows by their paths."""

    path: str
    properties: Properties
    subflows: dict[str, Subflow] = field(default_factory=dict)


class Following:
    """The connections by their paths; none while the daemon does not run."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.connections: dict[str, Connection] = {}
        self._owner = ""
        self._stale = True
        self._held: list[Incoming] | None = None
        """What was heard while all was being read."""

    @property
    def running(self) -> bool:
        """Whether the daemon is there and its objects are known."""
        return not self._stale

    def subflows(self) -> Iterator[Subflow]:
        """Give all of all connections."""
        for connection in self.connections.values():
            yield from connection.subflows.values()

    async def start(self) -> None:
        """Listen, and have the bus start the daemon where it does not run."""
        transport = self._daemon.transport
        for interface, member, rule in _SIGNALS:
            transport.on_signal(interface, member, self._hear)
            wanted = f"type='signal',interface='{interface}',member='{member}',{rule}"
            await transport.call(DBUS, DBUS_PATH, DBUS, "AddMatch", "s", wanted)
        await self._daemon.properties(ROOT, MANAGER)
        (self._owner,) = await transport.call(DBUS, DBUS_PATH, DBUS, "GetNameOwner", "s", BUS_NAME)

    async def catch_up(self) -> None:
        """Read all where that is needed: at the beginning, and when the daemon has come back."""
        if not self._stale or not self._owner:
            return
        owner, self._held = self._owner, []
        try:
            objects = await self._daemon.objects()
        except BusError as error:
            if error.name == DISCONNECTED:
                raise
            return  # it has just gone again, or has come and is not ready
        finally:
            held, self._held = self._held, None
        if owner != self._owner:
            return
        self._stale = False
        self._load(objects)
        for message in held:
            self._hear(message)

    def _load(self, objects: Objects) -> None:
        """Begin with these; paths sort connections before their subflows."""
        self.connections = {}
        for path in sorted(objects):
            self._add(path, objects[path])

    def _hear(self, message: Incoming) -> None:
        if message.sender == DBUS:
            _, _, self._owner = message.values()
            self._lose()
        elif message.sender != self._owner:  # anybody may send a signal
            return
        elif self._held is not None:
            self._held.append(message)
        else:
            self._take(message)

    def _take(self, message: Incoming) -> None:
        values: list[Any] = message.values()
        match message.member:
            case "InterfacesAdded":
                self._add(values[0], values[1])
            case "InterfacesRemoved":
                self._remove(values[0])
            case "PropertiesChanged":
                found = self._find(message.path)
                if found is not None and values[0] in (CONNECTION, SUBFLOW):
                    found.properties |= values[1]
            case _:  # signals that had no room: what they told has to be read
                self._lose()

    def _lose(self) -> None:
        self._stale = True
        self.connections = {}

    def _add(self, path: str, interfaces: dict[str, Properties]) -> None:
        if CONNECTION in interfaces:
            self.connections.setdefault(path, Connection(path, interfaces[CONNECTION]))
        elif SUBFLOW in interfaces:
            connection = self.connections.get(_parent(path))
            if connection is not None and path not in connection.subflows:
                meter = Meter(asyncio.get_running_loop().time())
                connection.subflows[path] = Subflow(path, interfaces[SUBFLOW], meter)

    def _remove(self, path: str) -> None:
        self.connections.pop(path, None)
        connection = self.connections.get(_parent(path))
        if connection is not None:
            connection.subflows.pop(path, None)

    def _find(self, path: str) -> Connection | Subflow | None:
        connection = self.connections.get(_parent(path))
        return connection.subflows.get(path) if connection else self.connections.get(path)


def _parent(path: str) -> str:
    """Give the path of the connection that a subflow's path begins with."""
    return path.rpartition("/subflow/")[0]

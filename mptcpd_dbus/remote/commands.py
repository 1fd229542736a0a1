"""What a policy commands, as calls of the daemon's methods.

A command returns when the mirror shows what it did, where the state of the daemon would.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import math
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from mptcpd_dbus.bus.names import CONNECTION, ENDPOINT, MANAGER, ROOT, SUBFLOW
from mptcpd_dbus.bus.wire import Variant
from mptcpd_dbus.core.address_ids import AddressIds
from mptcpd_dbus.core.connections import Address, Connection, Subflow
from mptcpd_dbus.core.endpoints import NETWORKMANAGER, Endpoint, flag_words
from mptcpd_dbus.core.errors import (
    MptcpdError,
    NoSuchAddress,
    NoSuchConnection,
    NoSuchEndpoint,
    NoSuchSubflow,
)
from mptcpd_dbus.core.subflow_wish import SubflowWish
from mptcpd_dbus.core.types import AddressEntry
from mptcpd_dbus.remote.daemon import Daemon
from mptcpd_dbus.remote.mirror import Mirror, path_of

T = TypeVar("T")

_SHOWN_SECONDS = 2.0  # what a command did is shown within milliseconds


class Listeners(Protocol):
    """Sockets of this program, see `kernel/listeners.py`."""

    def open(self, user: Hashable, address: str, port: int) -> int:
        """Listen for *user*; give the port."""

    def release(self, user: Hashable, address: str, port: int) -> None:
        """Undo one opening by *user*."""

    def close(self, user: Hashable) -> None:
        """Undo all openings by *user*."""


class RemoteCommands:
    """Commands to *daemon*; what they are about and what they did is in *mirror*.

    Listeners are this program's own sockets; address IDs that are kept for later are kept here.
    """

    def __init__(self, daemon: Daemon, mirror: Mirror, listeners: Listeners) -> None:
        self._daemon = daemon
        self._mirror = mirror
        self._listeners = listeners
        self._ids = AddressIds()
        self._added: set[tuple[int, str, int]] = set()
        self._moved = asyncio.Event()
        mirror.moved = self._moved.set
        mirror.closed = self._ids.close

    # On a connection.

    async def create_subflow(
        self, connection: Connection, wish: SubflowWish, seconds: float
    ) -> Subflow:
        """Call CreateSubflow."""
        options = {"Timeout": Variant("u", min(max(math.ceil(seconds), 1), 20))}
        if wish.local_address:
            options["LocalAddress"] = Variant("s", wish.local_address)
        if wish.local_port:
            options["LocalPort"] = Variant("q", wish.local_port)
        if wish.interface is not None:
            options["Interface"] = Variant("s", wish.interface)
        if wish.backup:
            options["Backup"] = Variant("b", value=True)
        path = await self._daemon.call(
            path_of(connection),
            CONNECTION,
            "CreateSubflow",
            "sqa{sv}",
            wish.remote_address,
            wish.remote_port,
            options,
        )
        subflow = await self._shown(path, Subflow, NoSuchSubflow)
        await self._until(lambda: subflow.backup_requested == wish.backup)
        return subflow

    async def announce_address(
        self,
        connection: Connection,
        address: str,
        *,
        port: int,
        address_id: int,
        listener: bool,
    ) -> Address:
        """Call AnnounceAddress."""
        options = {"Listener": Variant("b", listener)}
        if port:
            options["Port"] = Variant("q", port)
        if address_id:
            options["Id"] = Variant("y", address_id)
        path = await self._daemon.call(
            path_of(connection), CONNECTION, "AnnounceAddress", "sa{sv}", address, options
        )
        return await self._shown(path, Address, NoSuchAddress)

    async def remove_address(self, connection: Connection, address_id: int) -> None:
        """Call RemoveAddress."""
        await self._daemon.call(
            path_of(connection), CONNECTION, "RemoveAddress", "ya{sv}", address_id, {}
        )
        await self._until(lambda: address_id not in connection.local_addresses)

    async def destroy_subflow(self, subflow: Subflow) -> None:
        """Call Destroy."""
        await self._daemon.call(path_of(subflow), SUBFLOW, "Destroy", "a{sv}", {})

    async def abandon(
        self,
        connection: Connection,
        address_id: int,
        still: Callable[[], bool] = lambda: True,
    ) -> None:
        """Call Destroy with Announce, which ends all from that address, or RemoveAddress."""
        if not still():
            return
        of_it = (s for s in connection.subflows.values() if s.local_id == address_id)
        subflow = next(of_it, None)
        with suppress(NoSuchAddress, NoSuchSubflow):
            if subflow is None:
                await self.remove_address(connection, address_id)
            else:
                options = {"Announce": Variant("b", value=True)}
                await self._daemon.call(path_of(subflow), SUBFLOW, "Destroy", "a{sv}", options)

    async def set_backup(self, subflow: Subflow, *, backup: bool) -> None:
        """Call SetBackup."""
        await self._daemon.call(path_of(subflow), SUBFLOW, "SetBackup", "ba{sv}", backup, {})
        await self._until(lambda: subflow.backup_requested == backup)

    # Address IDs, which the daemon takes when an address is announced.

    def address_id(self, connection: Connection, address: str, port: int) -> int:
        """Give the ID that a local address has, else the lowest free one, which is kept for it."""
        return self._ids.reserve(connection, (address, port))

    def map_address_id(
        self, connection: Connection, address: str, address_id: int, port: int
    ) -> None:
        """Use *address_id* for *address* from now on."""
        self._ids.assign(connection, (address, port), address_id)

    def forget_address_id(self, connection: Connection, address: str, port: int) -> int:
        """Keep no ID for *address*; give the one that was kept, or 0."""
        return self._ids.forget(connection, (address, port))

    # Listeners.

    def listen(self, user: str, address: str, port: int) -> int:
        """Have an MPTCP socket of this program listen; give its port."""
        return self._listeners.open(user, address, port)

    def unlisten(self, user: str, address: str, port: int) -> None:
        """Undo one `listen`."""
        self._listeners.release(user, address, port)

    # Counters, for which the bus is waited for.

    def statistics(self, connection: Connection) -> dict[str, int] | None:
        """Call GetStatistics; None when the connection is gone."""
        return self._counters(path_of(connection), CONNECTION)

    def subflow_statistics(self, subflow: Subflow) -> dict[str, int] | None:
        """Call GetStatistics; None when the subflow is gone."""
        return self._counters(path_of(subflow), SUBFLOW)

    # On the in-kernel path manager.

    @property
    def own_endpoints(self) -> "RemoteCommands":
        """Tells which endpoints are ours."""
        return self

    def added_by(self, endpoint: Endpoint, _by: str) -> bool:
        """Whether this program has added *endpoint*."""
        return endpoint.ours and _key(endpoint) in self._added

    async def add_endpoint(self, entry: AddressEntry, _by: str) -> Endpoint:
        """Call AddEndpoint."""
        options = {}
        if entry.port:
            options["Port"] = Variant("q", entry.port)
        if entry.id:
            options["Id"] = Variant("y", entry.id)
        if entry.interface_index:
            interface = self._mirror.state.network.interfaces[entry.interface_index]
            options["Interface"] = Variant("s", interface.name)
        words = flag_words(entry.flags)
        path = await self._daemon.call(
            ROOT, MANAGER, "AddEndpoint", "sasa{sv}", entry.address, words, options
        )
        endpoint = await self._shown(path, Endpoint, NoSuchEndpoint)
        self._added.add(_key(endpoint))
        return endpoint

    async def remove_endpoint(self, endpoint: Endpoint) -> None:
        """Call Remove."""
        await self._daemon.call(path_of(endpoint), ENDPOINT, "Remove", "a{sv}", {})
        await self._until(lambda: self._mirror.get(path_of(endpoint)) is not endpoint)

    async def set_endpoint_flags(self, endpoint: Endpoint, flags: int) -> None:
        """Call SetFlags."""
        words = flag_words(flags)
        await self._daemon.call(path_of(endpoint), ENDPOINT, "SetFlags", "asa{sv}", words, {})
        await self._until(lambda: endpoint.entry.flags == flags)

    async def flush_endpoints(self) -> None:
        """Call FlushEndpoints."""
        await self._daemon.call(ROOT, MANAGER, "FlushEndpoints", "a{sv}", {})
        present = self._mirror.state.endpoints
        await self._until(lambda: all(e.origin == NETWORKMANAGER for e in present.values()))

    async def set_limits(self, subflows: int | None, add_addr_accepted: int | None) -> None:
        """Call SetLimits."""
        given = {"Subflows": subflows, "AddAddrAccepted": add_addr_accepted}
        options = {name: Variant("u", n) for name, n in given.items() if n is not None}
        await self._daemon.call(ROOT, MANAGER, "SetLimits", "a{sv}", options)
        await self._daemon.ping()  # what the daemon has read is told before it answers

        def shown() -> bool:
            limits = self._mirror.state.limits
            now = (limits.subflows, limits.add_addr_accepted)
            return all(
                w in (None, n) for w, n in zip((subflows, add_addr_accepted), now, strict=True)
            )

        await self._until(shown)

    # How it is done.

    def _counters(self, path: str, interface: str) -> dict[str, int] | None:
        try:
            return dict(self._daemon.call_now(path, interface, "GetStatistics"))
        except (NoSuchConnection, NoSuchSubflow):
            return None

    async def _until(self, condition: Callable[[], bool]) -> bool:
        """Wait until the mirror shows it, but not for ever: others may have undone it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SHOWN_SECONDS):
                while not condition():
                    self._moved.clear()
                    await self._moved.wait()
        return condition()

    async def _shown(self, path: str, kind: type[T], gone: type[MptcpdError]) -> T:
        await self._until(lambda: self._mirror.get(path) is not None)
        thing: Any = self._mirror.get(path)
        if not isinstance(thing, kind):
            raise gone(f"{path} is gone again")
        return thing


def _key(endpoint: Endpoint) -> tuple[int, str, int]:
    return (endpoint.id, endpoint.entry.address, endpoint.entry.port)

"""Subflows from every local address to every address of the peer, for the userspace path manager.

On the client side each is bound to the interface that has its address.  On the server side, which
cannot reach most clients, all other addresses are announced.  Addresses of another family than the
connection's are left alone.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Annotated, NamedTuple

from pydantic import Field

from mptcpd_dbus.plugin import (
    Address,
    Backoff,
    Connection,
    Interface,
    MptcpdError,
    Plugin,
    PluginSettings,
    Subflow,
)

_log = logging.getLogger("mptcpd_dbus.plugin.fullmesh")


class FullmeshSettings(PluginSettings):
    """Section [plugin fullmesh]."""

    interfaces: tuple[str, ...] = ("*",)
    """Globs for the names of those to use, of all that the daemon shows."""
    max_subflows: Annotated[int, Field(ge=1, le=64)] = 8
    """So many at most on a connection, the first one included."""


class _Path(NamedTuple):
    local: str
    remote: str
    port: int


class Fullmesh(Plugin):
    """Subflows from every local address to every address of the peer"""

    version = "1"
    settings: FullmeshSettings

    async def start(self) -> None:
        self._backoff = Backoff()

    # Whatever happens, the answer is to look at what there is, and to mend it.

    async def connection_established(self, connection: Connection) -> None:
        await self._mend(connection)

    async def new_address(self, connection: Connection, address: Address) -> None:
        await self._mend(connection)

    async def new_subflow(self, connection: Connection, subflow: Subflow) -> None:
        await self._mend(connection)

    async def subflow_closed(self, connection: Connection, subflow: Subflow) -> None:
        if self.pm.has_link(subflow.local_address):
            self._try_later(connection, _path(subflow))

    async def connection_closed(self, connection: Connection) -> None:
        self._backoff.forget(connection)

    connection_released = connection_closed

    async def update_interface(self, interface: Interface) -> None:
        await self._network_changed(interface.addresses)

    async def new_local_address(self, interface: Interface, address: str) -> None:
        await self._network_changed([address])

    async def delete_local_address(self, interface: Interface, address: str) -> None:
        await self._network_changed([address])

    async def _network_changed(self, addresses: Iterable[str]) -> None:
        # At once, and not in the connections' turns, which may be waiting for joins.
        await asyncio.gather(*(self.pm.abandon_lost(c, addresses) for c in self.connections))
        for connection in self.connections:
            self.after(0, self._mend, connection, connection=connection)

    async def _mend(self, connection: Connection) -> None:
        now = self.pm.now(connection)
        if now is None or now.state != "established" or now.fallback:
            return
        await self.pm.abandon_lost(now, [subflow.local_address for subflow in now.subflows])
        if now.server_side:
            known = {end.local_address for end in now.subflows}
            known |= {own.address for own in now.local_addresses}
            for local in self._addresses_for(now.remote_address):
                if local not in known:
                    await self.pm.announce_address(now, local)
            return
        there = {_path(subflow) for subflow in now.subflows}
        missing = [
            path
            for remote, port in now.destinations
            for path in (_Path(local, remote, port) for local in self._addresses_for(remote))
            if path not in there and not self._backoff.waits(now, path)
        ]
        room = max(self.settings.max_subflows - len(now.subflows), 0)
        await asyncio.gather(*(self._join(now, path) for path in missing[:room]))

    def _addresses_for(self, remote: str) -> Iterator[str]:
        for interface in self.pm.interfaces:
            if any(fnmatchcase(interface.name, glob) for glob in self.settings.interfaces):
                yield from interface.addresses_for(remote)

    async def _join(self, connection: Connection, path: _Path) -> None:
        try:
            # It is bound to the interface that has the address.
            await self.pm.create_subflow(
                connection, path.remote, path.port, local_address=path.local
            )
        except MptcpdError as error:
            _log.info("connection %08x: %s", connection.token, error)
            self._try_later(connection, path)

    def _try_later(self, connection: Connection, path: _Path) -> None:
        """Leave this one alone for a while, and see at once whether there is room for another."""
        for seconds in (0, self._backoff.failed(connection, path)):
            self.after(seconds, self._mend, connection, connection=connection)


def _path(subflow: Subflow) -> _Path:
    return _Path(subflow.local_address, subflow.remote_address, subflow.remote_port)

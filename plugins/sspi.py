"""A single subflow per network interface, for the userspace path manager.

On the client side every interface that has an address of the connection's family gets one subflow,
bound to it; a second one is closed.  On the server side, which cannot reach most clients, one
address of each other interface is announced.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from fnmatch import fnmatchcase

from mptcpd_dbus.plugin import (
    Address,
    Backoff,
    Connection,
    Interface,
    MptcpdError,
    NoSuchSubflow,
    Plugin,
    PluginSettings,
    Subflow,
)

_log = logging.getLogger("mptcpd_dbus.plugin.sspi")


class SspiSettings(PluginSettings):
    """Section [plugin sspi]."""

    interfaces: tuple[str, ...] = ("*",)
    """Globs for the names of those to use, of all that the daemon shows."""


class Sspi(Plugin):
    """A single subflow per network interface"""

    version = "1"
    settings: SspiSettings

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
            self._try_later(connection, subflow.local_address, subflow.remote_address)

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
        mend = self._announce if now.server_side else self._connect
        await asyncio.gather(
            *(
                mend(now, interface)
                for interface in self.pm.interfaces
                if any(fnmatchcase(interface.name, glob) for glob in self.settings.interfaces)
            )
        )

    async def _announce(self, connection: Connection, interface: Interface) -> None:
        known = {end.local_address for end in connection.subflows}
        known |= {own.address for own in connection.local_addresses}
        if known.isdisjoint(interface.addresses):
            for local in interface.addresses_for(connection.remote_address)[:1]:
                await self.pm.announce_address(connection, local)

    async def _connect(self, connection: Connection, interface: Interface) -> None:
        """Have one subflow over *interface*, the oldest if there are several."""
        there = [
            subflow
            for subflow in connection.subflows
            if subflow.interface == interface.name and self.pm.has_link(subflow.local_address)
        ]
        for surplus in there[1:]:
            with suppress(NoSuchSubflow):
                await self.pm.destroy_subflow(surplus)
        if there:
            return
        for remote, port in connection.destinations:
            for local in interface.addresses_for(remote)[:1]:
                if not self._backoff.waits(connection, (local, remote)):
                    await self._join(connection, interface, local, remote, port)
                    return

    async def _join(
        self, connection: Connection, interface: Interface, local: str, remote: str, port: int
    ) -> None:
        try:
            await self.pm.create_subflow(
                connection, remote, port, local_address=local, interface=interface.name
            )
        except MptcpdError as error:
            _log.info("connection %08x: %s", connection.token, error)
            self._try_later(connection, local, remote)

    def _try_later(self, connection: Connection, local: str, remote: str) -> None:
        """Leave this pair alone for a while, and see at once whether there is another way."""
        for seconds in (0, self._backoff.failed(connection, (local, remote))):
            self.after(seconds, self._mend, connection, connection=connection)

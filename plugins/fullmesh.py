"""Subflows from every local address to every address of the peer, for the userspace path manager.

On the client side each is bound to the interface that has its address.  On the server side, which
cannot reach most clients, all other addresses are announced.  Addresses of another family than the
connection's are left alone.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from mptcpd_dbus.plugin import Connection, InterfaceSettings, Mender


class FullmeshSettings(InterfaceSettings):
    """Section [plugin fullmesh]."""

    max_subflows: Annotated[int, Field(ge=1, le=64)] = 8
    """So many at most on a connection, the first one included."""


class Fullmesh(Mender):
    """Subflows from every local address to every address of the peer"""

    version = "1"
    settings: FullmeshSettings

    async def mend(self, connection: Connection) -> None:
        if connection.server_side:
            await self._announce(connection)
            return
        there = {(s.local_address, s.remote_address, s.remote_port) for s in connection.subflows}
        missing = [
            path
            for remote, port in connection.destinations
            for path in ((local, remote, port) for local in self._addresses_for(remote))
            if path not in there and self.may_join(connection, *path)
        ]
        room = max(self.settings.max_subflows - len(connection.subflows), 0)
        await asyncio.gather(*(self.join(connection, *path) for path in missing[:room]))

    async def _announce(self, connection: Connection) -> None:
        known = {end.local_address for end in connection.subflows}
        known |= {own.address for own in connection.local_addresses}
        for local in self._addresses_for(connection.remote_address):
            if local not in known:
                await self.pm.announce_address(connection, local)

    def _addresses_for(self, remote: str) -> Iterator[str]:
        for interface in filter(self.settings.uses, self.pm.interfaces):
            yield from interface.addresses_for(remote)

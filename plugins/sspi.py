"""A single subflow per network interface, for the userspace path manager.

On the client side every interface that has an address of the connection's family gets one subflow,
bound to it; a second one is closed.  On the server side, which cannot reach most clients, one
address of each other interface is announced.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from contextlib import suppress

from mptcpd_dbus.plugin import (
    Connection,
    Interface,
    InterfaceSettings,
    Mender,
    NoSuchSubflow,
)


class Sspi(Mender):
    """A single subflow per network interface"""

    version = "1"
    settings: InterfaceSettings

    async def mend(self, connection: Connection) -> None:
        mend = self._announce if connection.server_side else self._connect
        used = filter(self.settings.uses, self.pm.interfaces)
        await asyncio.gather(*(mend(connection, interface) for interface in used))

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
                if self.may_join(connection, local, remote, port):
                    await self.join(connection, local, remote, port, interface=interface.name)
                    return

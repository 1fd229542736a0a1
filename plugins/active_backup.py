"""One interface carries, the others stand by, for the userspace path manager.

On the client side the best interface has a subflow like any other, each further one a backup.  When
the best one's link goes, or its subflow dies, its address is given up, so that the peer stops
sending there at once, and the next one carries on; when it is back, it takes over again.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
import math
from collections.abc import Iterable
from contextlib import suppress
from fnmatch import fnmatchcase

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

_log = logging.getLogger("mptcpd_dbus.plugin.active_backup")


class ActiveBackupSettings(PluginSettings):
    """Section [plugin active_backup]."""

    interfaces: tuple[str, ...] = ("*",)
    """Globs for the names of those to use, of all that the daemon shows."""
    prefer: tuple[str, ...] = ()
    """The best ones first, by globs for names or, as `kind:wwan`, for kinds.

    Among equals the lower metric of the default route decides.
    """


class ActiveBackup(Plugin):
    """One interface carries, the others stand by"""

    version = "1"
    settings: ActiveBackupSettings

    async def start(self) -> None:
        self._backoff = Backoff()

    # Whatever happens, the answer is to look at what there is, and to mend it.

    async def connection_established(self, connection: Connection) -> None:
        await self._mend(connection)

    async def new_address(self, connection: Connection, address: Address) -> None:
        await self._mend(connection)

    async def subflow_closed(self, connection: Connection, subflow: Subflow) -> None:
        if self.pm.has_link(subflow.local_address):
            if subflow.error:  # nobody has told the peer
                await self._give_up(connection, subflow.local_id)
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
        if now is None or now.state != "established" or now.fallback or now.server_side:
            return
        await self.pm.abandon_lost(now, [subflow.local_address for subflow in now.subflows])
        usable = (i for i in self.pm.interfaces if i.addresses_for(now.remote_address))
        ranked = sorted(filter(self._uses, usable), key=lambda i: self._rank(i, now))
        there = {subflow.interface for subflow in now.subflows}
        missing = [interface for interface in ranked if interface.name not in there]
        await asyncio.gather(*(self._join(now, i, backup=i is not ranked[0]) for i in missing))
        await self._prioritise(now, [interface.name for interface in ranked])

    def _uses(self, interface: Interface) -> bool:
        return any(fnmatchcase(interface.name, glob) for glob in self.settings.interfaces)

    def _rank(self, interface: Interface, connection: Connection) -> tuple[float, float, int]:
        name, kind = interface.name, f"kind:{interface.kind}"
        wished = (
            place
            for place, glob in enumerate(self.settings.prefer)
            if fnmatchcase(name, glob) or fnmatchcase(kind, glob)
        )
        family = 6 if ":" in connection.remote_address else 4
        metric = interface.default_routes.get(family, math.inf)
        return next(wished, math.inf), metric, interface.index

    async def _join(self, connection: Connection, interface: Interface, *, backup: bool) -> None:
        for remote, port in connection.destinations:
            for local in interface.addresses_for(remote)[:1]:
                if self._backoff.waits(connection, (local, remote)):
                    continue
                try:
                    await self.pm.create_subflow(
                        connection, remote, port,
                        local_address=local, interface=interface.name, backup=backup,
                    )  # fmt: skip
                except MptcpdError as error:
                    _log.info("connection %08x: %s", connection.token, error)
                    self._try_later(connection, local, remote)
                return

    async def _prioritise(self, connection: Connection, ranked: list[str]) -> None:
        """Have the best interface that has a subflow carry, and the others stand by."""
        now = self.pm.now(connection)
        there = {subflow.interface for subflow in now.subflows} if now else set()
        best = next((name for name in ranked if name in there), None)
        for subflow in now.subflows if now and best else ():
            backup = subflow.interface != best
            if subflow.backup_requested != backup:
                with suppress(MptcpdError):  # it ended meanwhile
                    await self.pm.set_backup(subflow, backup=backup)

    async def _give_up(self, connection: Connection, address_id: int) -> None:
        now = self.pm.now(connection)
        if now and all(subflow.local_id != address_id for subflow in now.subflows):
            with suppress(MptcpdError):  # the peer never knew of it
                await self.pm.abandon(now, address_id)

    def _try_later(self, connection: Connection, local: str, remote: str) -> None:
        """Leave this pair alone for a while, and see at once whether there is another way."""
        for seconds in (0, self._backoff.failed(connection, (local, remote))):
            self.after(seconds, self._mend, connection, connection=connection)

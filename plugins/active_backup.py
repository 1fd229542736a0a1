"""One interface carries, the others stand by, for the userspace path manager.

On the client side the best interface has a subflow like any other, each further one a backup.  When
the best one's link goes, or its subflow dies, its address is given up, so that the peer stops
sending there at once, and the next one carries on; when it is back, it takes over again.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import math
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Literal

from mptcpd_dbus.plugin import (
    Connection,
    Interface,
    InterfaceSettings,
    Mender,
    MptcpdError,
    Subflow,
)


class ActiveBackupSettings(InterfaceSettings):
    """Section [plugin active_backup]."""

    prefer: tuple[str, ...] = ()
    """The best ones first, by globs for names or, as `kind:wwan`, for kinds.

    Among equals the lower metric of the default route decides.
    """

    metered: Literal["use", "backup", "avoid"] = "use"
    """Interfaces that NetworkManager calls metered: used like any other, or only after all others,
    or, to have no subflow there at all before it is needed, only while no other is usable.
    """


class ActiveBackup(Mender):
    """One interface carries, the others stand by"""

    version = "1"
    settings: ActiveBackupSettings

    async def mend(self, connection: Connection) -> None:
        if connection.server_side:
            return
        usable = (i for i in self.pm.interfaces if i.addresses_for(connection.remote_address))
        ranked = sorted(filter(self.settings.uses, usable), key=lambda i: self._rank(i, connection))
        there = {subflow.interface for subflow in connection.subflows}
        missing = [interface for interface in ranked if interface.name not in there]
        if self.settings.metered == "avoid" and not all(i.is_metered for i in ranked):
            missing = [interface for interface in missing if not interface.is_metered]
        joins = (self._join(connection, i, backup=i is not ranked[0]) for i in missing)
        await asyncio.gather(*joins)
        await self._prioritise(connection, [interface.name for interface in ranked])

    async def subflow_closed(self, connection: Connection, subflow: Subflow) -> None:
        now = self.pm.now(connection)
        in_use = {other.local_id for other in now.subflows} if now else set()
        alone = subflow.local_id not in in_use and self.pm.has_link(subflow.local_address)
        if subflow.established and subflow.error and alone:  # nobody has told the peer
            with suppress(MptcpdError):  # it is gone, or the peer never knew of it
                await self.pm.abandon(connection, subflow.local_id)
        await super().subflow_closed(connection, subflow)

    def _rank(self, interface: Interface, connection: Connection) -> tuple[bool, float, float, int]:
        metered = self.settings.metered != "use" and interface.is_metered
        name, kind = interface.name, f"kind:{interface.kind}"
        wished = (
            place
            for place, glob in enumerate(self.settings.prefer)
            if fnmatchcase(name, glob) or fnmatchcase(kind, glob)
        )
        family = 6 if ":" in connection.remote_address else 4
        metric = interface.default_routes.get(family, math.inf)
        return metered, next(wished, math.inf), metric, interface.index

    async def _join(self, connection: Connection, interface: Interface, *, backup: bool) -> None:
        name = interface.name
        for remote, port in connection.destinations:
            for local in interface.addresses_for(remote)[:1]:
                if self.may_join(connection, local, remote, port):
                    await self.join(connection, local, remote, port, interface=name, backup=backup)
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

"""Several subflows between the same two addresses, for the userspace path manager.

They differ in their source ports, so that networks that spread flows over parallel links use more
than one.  Only the client side makes them, and all over the interface of the connection's address.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from typing import Annotated

from pydantic import Field

from mptcpd_dbus.plugin import Connection, Mender, PluginSettings, Subflow


class NdiffportsSettings(PluginSettings):
    """Section [plugin ndiffports]."""

    subflows: Annotated[int, Field(ge=1, le=64)] = 2
    """How many a connection has, the first one included."""


class Ndiffports(Mender):
    """Several subflows between the same addresses, with different ports"""

    version = "1"
    settings: NdiffportsSettings

    async def mend(self, connection: Connection) -> None:
        if connection.server_side or connection.deny_join_id0 or not self.may_join(connection):
            return
        there = [subflow for subflow in connection.subflows if _ends(subflow) == _ends(connection)]
        missing = self.settings.subflows - len(there)
        # Between the connection's own addresses.
        await asyncio.gather(*(self.join(connection) for _ in range(missing)))


def _ends(end: Connection | Subflow) -> tuple[str, str, int]:
    return end.local_address, end.remote_address, end.remote_port

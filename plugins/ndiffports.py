"""Several subflows between the same two addresses, for the userspace path manager.

They differ in their source ports, so that networks that spread flows over parallel links use more
than one.  Only the client side makes them, and all over the interface of the connection's address.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
from typing import Annotated

from pydantic import Field

from mptcpd_dbus.plugin import (
    Backoff,
    Connection,
    MptcpdError,
    Plugin,
    PluginSettings,
    Subflow,
)

_log = logging.getLogger("mptcpd_dbus.plugin.ndiffports")


class NdiffportsSettings(PluginSettings):
    """Section [plugin ndiffports]."""

    subflows: Annotated[int, Field(ge=1, le=64)] = 2
    """How many a connection has, the first one included."""


class Ndiffports(Plugin):
    """Several subflows between the same addresses, with different ports"""

    version = "1"
    settings: NdiffportsSettings

    async def start(self) -> None:
        self._backoff = Backoff()

    async def connection_established(self, connection: Connection) -> None:
        await self._mend(connection)

    async def subflow_closed(self, connection: Connection, subflow: Subflow) -> None:
        self._try_later(connection)

    async def connection_closed(self, connection: Connection) -> None:
        self._backoff.forget(connection)

    connection_released = connection_closed

    async def _mend(self, connection: Connection) -> None:
        now = self.pm.now(connection)
        if now is None or now.state != "established" or now.fallback:
            return
        if now.server_side or now.deny_join_id0 or self._backoff.waits(now, "join"):
            return
        there = [subflow for subflow in now.subflows if _ends(subflow) == _ends(now)]
        missing = self.settings.subflows - len(there)
        await asyncio.gather(*(self._join(now) for _ in range(missing)))

    async def _join(self, connection: Connection) -> None:
        try:
            await self.pm.create_subflow(connection)  # between the connection's own addresses
        except MptcpdError as error:
            _log.info("connection %08x: %s", connection.token, error)
            self._try_later(connection)

    def _try_later(self, connection: Connection) -> None:
        seconds = self._backoff.failed(connection, "join")
        self.after(seconds, self._mend, connection, connection=connection)


def _ends(end: Connection | Subflow) -> tuple[str, str, int]:
    return end.local_address, end.remote_address, end.remote_port

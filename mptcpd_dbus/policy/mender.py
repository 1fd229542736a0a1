"""The pattern that most policies follow: whatever happens, look at what there is, and mend it."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import Iterable
from fnmatch import fnmatchcase
from itertools import islice

from mptcpd_dbus.core.errors import MptcpdError
from mptcpd_dbus.policy.backoff import Backoff
from mptcpd_dbus.policy.base import Plugin, PluginSettings, Service, Timer
from mptcpd_dbus.policy.door import PathManager
from mptcpd_dbus.policy.snapshots import Address, Connection, Interface, Subflow

_AT_ONCE = 100  # connections


class InterfaceSettings(PluginSettings):
    """Settings of a policy that works on some interfaces only."""

    interfaces: tuple[str, ...] = ("*",)
    """Globs for the names of those to use, of all that the daemon shows."""

    def uses(self, interface: Interface) -> bool:
        """Whether *interface* is one of them."""
        return any(fnmatchcase(interface.name, glob) for glob in self.interfaces)


class Mender(Plugin):
    """A policy without a memory of its own; write `mend`, and it is right after any event.

    `mend` is awaited in a connection's turn when it is established, when the peer has announced an
    address, when a subflow has joined or ended, and when the network has changed.  Local addresses
    that lost their link have been abandoned by then, at once and on all connections.
    """

    def __init__(self, pm: PathManager, settings: PluginSettings, service: Service) -> None:
        super().__init__(pm, settings, service)
        self._backoff = Backoff()
        self._soon: dict[int, tuple[float, Timer]] = {}

    async def mend(self, connection: Connection) -> None:
        """Do what is missing on *connection*, which can have subflows now."""

    async def join(
        self,
        connection: Connection,
        local: str = "",
        remote: str = "",
        port: int = 0,
        *,
        interface: str | None = None,
        backup: bool = False,
    ) -> None:
        """Create a subflow; if that fails, `mend` comes again at once, and in time for this one."""
        try:
            await self.pm.create_subflow(
                connection, remote, port, local_address=local, interface=interface, backup=backup
            )
        except MptcpdError as error:
            self.log.debug("connection %08x: %s", connection.token, error)
            self._backoff.failed(connection, _path(connection, local, remote, port))
            self.mend_soon(connection)  # there may be another way

    def may_join(
        self, connection: Connection, local: str = "", remote: str = "", port: int = 0
    ) -> bool:
        """Whether such a subflow has not failed a moment ago."""
        return not self._backoff.waits(connection, _path(connection, local, remote, port))

    def mend_soon(self, connection: Connection, seconds: float = 0) -> None:
        """Have `mend` take its turn then, or earlier if it would anyway: one waits at a time."""
        due = asyncio.get_running_loop().time() + seconds
        waiting = self._soon.get(connection.number)
        if waiting is None or due < waiting[0]:
            if waiting is not None:
                waiting[1].cancel()
            timer = self.after(seconds, self._look, connection, connection=connection)
            self._soon[connection.number] = due, timer

    # Whatever happens, the answer is the same.

    async def connection_established(self, connection: Connection) -> None:
        """Mend it at once."""
        await self._look(connection)

    async def new_address(self, connection: Connection, address: Address) -> None:
        """Mend it, once for all that the peer announces meanwhile."""
        self.mend_soon(connection)

    async def new_subflow(self, connection: Connection, subflow: Subflow) -> None:
        """Mend it: it may be one too many, or let another go."""
        self.mend_soon(connection)

    async def subflow_closed(self, connection: Connection, subflow: Subflow) -> None:
        """Mend it, later for a path that we should have."""
        if not connection.server_side and self.pm.has_link(subflow.local_address):
            path = (subflow.local_address, subflow.remote_address, subflow.remote_port)
            self._backoff.failed(connection, path)
        self.mend_soon(connection)

    async def connection_closed(self, connection: Connection) -> None:
        """Forget it."""
        self._forget(connection)

    async def connection_released(self, connection: Connection) -> None:
        """Forget it."""
        self._forget(connection)

    async def update_interface(self, interface: Interface) -> None:
        """Give up what went, and mend all."""
        await self._network_changed(interface.addresses)

    async def new_local_address(self, interface: Interface, address: str) -> None:
        """Mend all."""
        await self._network_changed([address])

    async def delete_local_address(self, interface: Interface, address: str) -> None:
        """Give up what went, and mend all."""
        await self._network_changed([address])

    async def _network_changed(self, addresses: Iterable[str]) -> None:
        # At once, and not in the connections' turns, which may be waiting for joins; but so that
        # ten thousand do not hold the daemon up.
        connections = iter(self.connections)
        while some := list(islice(connections, _AT_ONCE)):
            await asyncio.gather(*(self.pm.abandon_lost(c, addresses) for c in some))
            for connection in some:
                self.mend_soon(connection)
            await asyncio.sleep(0)  # where nothing was awaited, the loop goes round all the same

    async def _look(self, connection: Connection) -> None:
        self._soon.pop(connection.number, None)
        now = self.pm.now(connection)
        if now is not None and now.state == "established" and not now.fallback:
            await self.pm.abandon_lost(now, [subflow.local_address for subflow in now.subflows])
            await self.mend(now)
        wait = self._backoff.next(connection)
        if now is not None and wait is not None:
            self.mend_soon(connection, wait)

    def _forget(self, connection: Connection) -> None:
        self._backoff.forget(connection)
        self._soon.pop(connection.number, None)


def _path(connection: Connection, local: str, remote: str, port: int) -> tuple[str, str, int]:
    return (
        local or connection.local_address,
        remote or connection.remote_address,
        port or connection.remote_port,
    )

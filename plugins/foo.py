"""Watches everything and does nothing: the sample to start from, with every handler there is."""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.plugin import (
    Address,
    Connection,
    Interface,
    Listener,
    Plugin,
    Priority,
    Subflow,
)


class Foo(Plugin):
    """Watches everything and does nothing"""

    version = "1"
    priority = Priority.LOW
    steers = "both"

    async def start(self) -> None:
        self.log.info("here are %d interfaces", len(self.pm.interfaces))

    async def stop(self) -> None:
        self.log.info("good-bye")

    async def reload(self) -> None:
        self.log.info("the configuration was read again")

    async def ready(self) -> None:
        self.log.info("MPTCP is on")

    async def not_ready(self) -> None:
        self.log.info("MPTCP is off")

    async def events_lost(self, source: str) -> None:
        self.log.info("events of %s were lost", source)

    async def new_connection(self, connection: Connection) -> None:
        self.log.info("new connection %08x to %s", connection.token, connection.remote_address)

    async def connection_established(self, connection: Connection) -> None:
        self.log.info("connection %08x established", connection.token)

    async def connection_closed(self, connection: Connection) -> None:
        self.log.info("connection %08x closed", connection.token)

    async def connection_released(self, connection: Connection) -> None:
        self.log.info("connection %08x is somebody else's now", connection.token)

    async def new_address(self, connection: Connection, address: Address) -> None:
        self.log.info("%08x: the peer has %s, ID %d", connection.token, address.address, address.id)

    async def address_removed(self, connection: Connection, address: Address) -> None:
        self.log.info("%08x: the peer withdrew ID %d", connection.token, address.id)

    async def new_subflow(self, connection: Connection, subflow: Subflow) -> None:
        self.log.info("%08x: new subflow %s", connection.token, subflow.four_tuple)

    async def subflow_closed(self, connection: Connection, subflow: Subflow) -> None:
        self.log.info(
            "%08x: %s ended, errno %d", connection.token, subflow.four_tuple, subflow.error
        )

    async def subflow_priority(self, connection: Connection, subflow: Subflow) -> None:
        self.log.info("%08x: backup is %s now", connection.token, subflow.backup)

    async def listener_created(self, listener: Listener) -> None:
        self.log.info("listener on %s port %d", listener.address, listener.port)

    async def listener_closed(self, listener: Listener) -> None:
        self.log.info("no listener on %s port %d", listener.address, listener.port)

    async def new_interface(self, interface: Interface) -> None:
        self.log.info("interface %s (%s)", interface.name, interface.kind)

    async def update_interface(self, interface: Interface) -> None:
        self.log.info("interface %s, carrier %s", interface.name, interface.running)

    async def delete_interface(self, interface: Interface) -> None:
        self.log.info("interface %s is gone", interface.name)

    async def new_local_address(self, interface: Interface, address: str) -> None:
        self.log.info("%s on %s", address, interface.name)

    async def delete_local_address(self, interface: Interface, address: str) -> None:
        self.log.info("no %s on %s", address, interface.name)

    async def endpoints_changed(self) -> None:
        self.log.info("there are %d endpoints", len(self.pm.endpoints))

#!/usr/bin/python3
"""An application that has a second interface stand by for its own connection, without a privilege.

    python3 own_connection.py ADDRESS PORT INTERFACE

It copies what the server sends to standard output.  Whoever has the socket of a connection may
command it, so nothing needs to be configured; and without mptcpd-dbus, or with a server that speaks
TCP only, the application works as before.  Needs dbus-next (python3-dbus-next in Debian).
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import socket
import sys
from typing import Any

from dbus_next import BusType, DBusError, Message, MessageType, Variant
from dbus_next.aio import MessageBus

NAME, ROOT, BUS = "org.mptcpd1", "/org/mptcpd1", "org.freedesktop.DBus"
OWNER = f"type='signal',sender='{BUS}',member='NameOwnerChanged',arg0='{NAME}'"


class Spare:
    """The second path of one socket."""

    def __init__(self, mine: socket.socket, interface: str) -> None:
        self.mine, self.interface = mine, interface
        self.back = asyncio.Event()

    async def keep(self) -> None:
        """Add the path, and look again whenever the daemon is back: it has forgotten who we are."""
        try:
            self.bus = await MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True).connect()
        except OSError as error:
            print(f"no second path: no system bus: {error}", file=sys.stderr)
            return
        self.bus.add_message_handler(self.hear)
        await self.call(BUS, "/org/freedesktop/DBus", BUS, "AddMatch", "s", OWNER)
        while True:
            try:
                await self.add()
            except DBusError as error:
                print(f"no second path: {error.type}: {error.text}", file=sys.stderr)
            await self.back.wait()
            self.back.clear()

    async def add(self) -> None:
        """Show the socket; then join over the interface, unless the connection has done so."""
        manager, over = f"{NAME}.Manager", {"Interface": Variant("s", self.interface)}
        shown = await self.call(NAME, ROOT, manager, "GetConnectionBySocket", "h", 0)
        those = await self.call(NAME, ROOT, manager, "ListConnections", "a{sv}uu", over, 0, 0)
        if shown not in [path for path, _ in those]:
            spare = over | {"Backup": Variant("b", True)}
            own = f"{NAME}.Connection"
            await self.call(NAME, shown, own, "CreateSubflow", "sqa{sv}", "", 0, spare)

    async def call(
        self, to: str, path: str, interface: str, member: str, signature: str, *body: Any
    ) -> Any:
        """Call a method; an "h" is the number of a descriptor that goes along."""
        passed = [self.mine.fileno()] if signature == "h" else []
        reply = await self.bus.call(
            Message(
                to, path, interface, member, signature=signature, body=list(body), unix_fds=passed
            )
        )
        if reply.message_type is MessageType.ERROR:
            raise DBusError(reply.error_name, " ".join(map(str, reply.body)))
        return reply.body[0] if reply.body else None

    def hear(self, message: Message) -> None:
        """Notice a daemon that is back."""
        if message.sender == BUS and message.member == "NameOwnerChanged" and message.body[2]:
            self.back.set()


async def main(address: str, port: str, interface: str) -> None:
    """Be the application."""
    loop = asyncio.get_running_loop()
    (family, *_, target), *_ = await loop.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as mine:
        await asyncio.to_thread(mine.connect, target)  # sock_connect() knows TCP and UDP only
        mine.setblocking(False)
        data = await loop.sock_recv(mine, 65536)  # before that nobody can join
        spare = asyncio.create_task(Spare(mine, interface).keep())
        while data:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            data = await loop.sock_recv(mine, 65536)
        spare.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

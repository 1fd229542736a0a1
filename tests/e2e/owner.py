"""An application that steers its own connections: it shows their sockets to the daemon.

    python -m tests.e2e.owner

It obeys like `tests/lab/application.py`, and it has connections to the bus, by numbers.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import os
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Any

from dbus_next import Variant

from tests.lab.application import IPPROTO_MPTCP, Application, main
from tests.lab.client import ROOT, BusClient, BusError

MANAGER = "org.mptcpd1.Manager"


@dataclass
class Owner(Application):
    """What an application does, and calls."""

    clients: list[BusClient] = field(default_factory=list)

    async def enter(self) -> int:
        """Connect to the bus once more."""
        self.clients.append(await BusClient.connect())
        return len(self.clients) - 1

    async def leave(self, bus: int) -> None:
        """Leave the bus."""
        self.clients[bus].close()

    async def show(self, bus: int, number: int) -> str:
        """Show the socket of a conversation or a listener; give the path, or the error's name."""
        talk = self.talks.get(number)
        return await self._show(bus, (talk.socket if talk else self.sockets[number]).fileno())

    async def abandon(self, bus: int, talk: int, seconds: int) -> None:
        """Show a socket that takes its time to be closed, and close it without an answer."""
        asking = asyncio.ensure_future(self.show(bus, talk))
        for _ in range(2):  # the bus has passed it on, and closed its own copy
            await self.clients[bus].bus_call("GetId", "")
        asking.cancel()
        await self.close_slowly(talk, seconds)

    async def close_slowly(self, talk: int, seconds: int) -> float:
        """Close a socket that is to send all it has; give how long it took."""
        closed = self.talks.pop(talk)
        closed.quiet()
        lingering = struct.pack("ii", 1, seconds)
        closed.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingering)
        closed.socket.setblocking(True)  # else close(2) does not wait
        began = time.monotonic()
        closed.socket.close()
        return time.monotonic() - began

    async def show_other(self, bus: int, kind: str) -> str:
        """Show something else."""
        descriptor = _open(kind)
        try:
            return await self._show(bus, descriptor)
        finally:
            os.close(descriptor)

    async def ask(
        self,
        *,
        bus: int,
        path: str,
        interface: str,
        member: str,
        signature: str,
        arguments: list[Any],
        options: dict[str, list[Any]],
    ) -> str:
        """Call a method that takes options last; give its result, "", or the error's name."""
        given = {key: Variant(*value) for key, value in options.items()}
        return await self._ask(bus, path, interface, member, signature, *arguments, given)

    async def _show(self, bus: int, descriptor: int) -> str:
        call = (ROOT, MANAGER, "GetConnectionBySocket", "h", 0)
        return await self._ask(bus, *call, descriptors=[descriptor])

    async def _ask(self, bus: int, *call: Any, descriptors: list[int] | None = None) -> str:
        try:
            return await self.clients[bus].call(*call, descriptors=descriptors, within=25) or ""
        except BusError as error:
            return error.name


def _open(kind: str) -> int:
    match kind:
        case "file":
            return os.open("/etc/passwd", os.O_RDONLY)
        case "pipe":
            reader, writer = os.pipe()
            os.close(writer)
            return reader
        case "datagrams":
            return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()
        case "local":
            return socket.socket(socket.AF_UNIX).detach()
        case "unconnected":
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).detach()
        case _:
            raise KeyError(kind)


if __name__ == "__main__":
    asyncio.run(main(Owner))

"""The daemon as a program on the bus has it: calls to it, and which of its messages are believed.

Knows nothing of policies.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mptcpd_dbus.bus.error_names import BusError
from mptcpd_dbus.bus.message import INTERACTIVE, Incoming
from mptcpd_dbus.bus.names import BUS_NAME, DIALOGUE_SECONDS, MESSAGE_BYTES, ROOT
from mptcpd_dbus.bus.transport import DBUS, DBUS_PATH, Transport
from mptcpd_dbus.core.errors import NotReady
from mptcpd_dbus.remote.errors import from_the_bus

PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
_RULES = (
    f"type='signal',sender='{DBUS}',interface='{DBUS}',member='NameOwnerChanged',arg0='{BUS_NAME}'",
    f"type='signal',sender='{BUS_NAME}',interface='{OBJECT_MANAGER}'",
    f"type='signal',sender='{BUS_NAME}',interface='{PROPERTIES}'",
    f"type='signal',sender='{BUS_NAME}',member='SignalsDropped'",
)
_SECONDS = 30.0  # the daemon answers a join after 20 at most


class Daemon:
    """One connection to the bus at *address*, and the daemon that is there, if one is.

    *told* gets each message of the daemon's in its order, *owned* hears when there is another
    daemon, or none.
    """

    def __init__(
        self, address: str, told: Callable[[Incoming], None], owned: Callable[[], None]
    ) -> None:
        self._address = address
        self._transport = Transport(address, MESSAGE_BYTES)
        self._told = told
        self._owned = owned
        self.name = ""
        """The daemon's unique name; "" while there is none."""

    async def connect(self) -> None:
        """Connect and listen; raise OSError."""
        transport = self._transport
        await transport.connect()
        transport.on_call = self._hear
        for interface, member in (
            (OBJECT_MANAGER, "InterfacesAdded"),
            (OBJECT_MANAGER, "InterfacesRemoved"),
            (PROPERTIES, "PropertiesChanged"),
            ("org.mptcpd1.Manager", "SignalsDropped"),
        ):
            transport.on_signal(interface, member, self._hear)
        transport.on_signal(DBUS, "NameOwnerChanged", self._on_owner)
        for rule in _RULES:
            await transport.call(DBUS, DBUS_PATH, DBUS, "AddMatch", "s", rule)
        try:
            (self.name,) = await transport.call(
                DBUS, DBUS_PATH, DBUS, "GetNameOwner", "s", BUS_NAME
            )
        except BusError:
            self.name = ""

    @property
    def gone(self) -> "asyncio.Future[str]":
        """Done when the bus is."""
        return self._transport.disconnected

    def close(self) -> None:
        """Leave the bus."""
        self._transport.disconnect()

    async def ping(self) -> None:
        """Have the daemon answer, and the bus start it where it can; raise an MptcpdError."""
        await self.call(ROOT, "org.freedesktop.DBus.Peer", "Ping")

    async def call(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        *body: Any,
        interactive: bool = False,
    ) -> Any:
        """Call a method; give its one result, or None; raise an MptcpdError.

        An *interactive* one may wait for a password.
        """
        call = (path, interface, member, signature, *body)
        return await _call(self._transport, *call, interactive=interactive)

    def call_now(self, path: str, interface: str, member: str) -> Any:
        """Call a method that only reads and wait: everything else stands still meanwhile."""

        async def ask() -> Any:
            transport = Transport(self._address)
            await transport.connect()
            try:
                return await _call(transport, path, interface, member)
            finally:
                transport.disconnect()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, ask()).result()

    def answer(self, call: Incoming) -> None:
        """Answer a call with nothing, if it wants an answer."""
        self._transport.reply(call, "", b"")

    def refuse(self, call: Incoming, name: str, text: str) -> None:
        """Answer a call with an error, if it wants an answer."""
        self._transport.reply_error(call, name, text)

    def _hear(self, message: Incoming) -> None:
        if message.sender == self.name:  # anybody may send
            self._told(message)

    def _on_owner(self, message: Incoming) -> None:
        if message.sender == DBUS:
            _, _, self.name = message.values()
            self._owned()


async def _call(
    transport: Transport,
    path: str,
    interface: str,
    member: str,
    *given: Any,
    interactive: bool = False,
) -> Any:
    try:
        results = await transport.call(
            BUS_NAME,
            path,
            interface,
            member,
            *given,
            timeout=DIALOGUE_SECONDS if interactive else _SECONDS,
            flags=INTERACTIVE if interactive else 0,
        )
    except BusError as error:
        raise from_the_bus(error, path) from error
    except TimeoutError as error:
        raise NotReady(f"{member}: the daemon does not answer") from error
    return results[0] if results else None

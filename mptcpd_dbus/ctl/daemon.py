"""mptcpctl's side of the bus: calls to the daemon, and its objects as they are.

The only file of mptcpctl that waits for somebody; it knows the interfaces' names, no command.
"""
# SPDX-License-Identifier: BSD-3-Clause

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from mptcpd_dbus.bus.error_names import UNKNOWN_INTERFACE, UNKNOWN_OBJECT, BusError
from mptcpd_dbus.bus.message import INTERACTIVE
from mptcpd_dbus.bus.names import BUS_NAME, DIALOGUE_SECONDS, MESSAGE_BYTES, ROOT
from mptcpd_dbus.bus.transport import Transport
from mptcpd_dbus.ctl.agent import Agent
from mptcpd_dbus.ctl.failure import UNAVAILABLE, Failure

_STANDARD = "org.freedesktop.DBus."
_READ_SECONDS = 10.0
_COMMAND_SECONDS = 30.0  # a join may take 20

Properties = dict[str, Any]
Objects = dict[str, dict[str, Properties]]


class Daemon:
    """The daemon, as one that calls its methods sees it."""

    def __init__(self, transport: Transport, agent: Agent | None) -> None:
        self.transport = transport
        self._agent = agent

    @classmethod
    @asynccontextmanager
    async def at(cls, address: str, *, ask_password: bool) -> AsyncIterator[Self]:
        """Connect to the bus at *address*, where the daemon should be."""
        try:
            transport = Transport(address, MESSAGE_BYTES)
            await transport.connect()
        except (OSError, ValueError) as error:
            raise Failure(
                UNAVAILABLE, f"cannot reach the bus {address!r}: {error}; is dbus running?"
            ) from error
        try:
            with Agent() as agent:
                yield cls(transport, agent if ask_password else None)
        finally:
            transport.disconnect()

    async def read(
        self, path: str, interface: str, member: str, signature: str = "", *body: Any
    ) -> Any:
        """Call a method that needs no authorisation; give what it answers, which is one value."""
        (value,) = await self.transport.call(
            BUS_NAME, path, interface, member, signature, *body, timeout=_READ_SECONDS
        )
        return value

    def may_ask(self) -> bool:
        """Whether a password may be asked for; then there is somebody who can."""
        if self._agent:
            self._agent.start()
        return self._agent is not None

    async def command(
        self, path: str, interface: str, member: str, signature: str, *body: Any
    ) -> list[Any]:
        """Call a method that may have to ask somebody for a password first."""
        flags, seconds = 0, _COMMAND_SECONDS
        if self._agent:
            self._agent.start()
            flags, seconds = INTERACTIVE, seconds + DIALOGUE_SECONDS
        return await self.transport.call(
            BUS_NAME, path, interface, member, signature, *body, timeout=seconds, flags=flags
        )

    async def properties(self, path: str, interface: str) -> Properties:
        """Read all properties of an object."""
        found = await self.read(path, f"{_STANDARD}Properties", "GetAll", "s", interface)
        return dict(found)

    async def objects(self) -> Objects:
        """Read all objects at once: with many connections these are megabytes."""
        found = await self.read(ROOT, f"{_STANDARD}ObjectManager", "GetManagedObjects")
        return dict(found)

    async def below(self, path: str, interface: str) -> dict[str, Properties]:
        """Read the objects at and below *path* that have the interface, one by one.

        For the few of one connection this is cheaper than all of ten thousand.
        """
        found: dict[str, Properties] = {}
        try:
            xml = await self.read(path, f"{_STANDARD}Introspectable", "Introspect")
            if f'<interface name="{interface}">' in xml:
                found[path] = await self.properties(path, interface)
        except BusError as error:
            if error.name in (UNKNOWN_OBJECT, UNKNOWN_INTERFACE):
                return {}  # there is none, or it has gone meanwhile
            raise
        for child in re.findall(r'<node name="(\w+)"', xml, re.ASCII):
            found |= await self.below(f"{path}/{child}", interface)
        return found

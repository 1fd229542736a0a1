#!/usr/bin/python3
"""A program that decides for connections: those to its ports get a spare path over an interface.

    python3 policy.py INTERFACE PORT...

It needs the polkit action org.mptcpd1.register-policy, and dbus-next (python3-dbus-next in Debian).
What a policy is called with is in dbus/org.mptcpd1.Policy.xml; this one minds when a connection can
be joined, and when it decides no more.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import sys
from typing import Any

from dbus_next import BusType, DBusError, Message, MessageFlag, MessageType, Variant
from dbus_next.aio import MessageBus

NAME, ROOT, BUS = "org.mptcpd1", "/org/mptcpd1", "org.freedesktop.DBus"
OWNER = f"type='signal',sender='{BUS}',member='NameOwnerChanged',arg0='{NAME}'"
ABSENT = [f"{BUS}.Error.{why}" for why in ("ServiceUnknown", "NameHasNoOwner", "NoReply")]


class Spare:
    """Gives each connection that it decides for a backup subflow over an interface."""

    def __init__(self, bus: MessageBus, interface: str, ports: list[int]) -> None:
        self.bus, self.ports = bus, ports
        self.over = {"Interface": Variant("s", interface)}
        self.joins: set[asyncio.Task[None]] = set()
        self.turns = asyncio.Semaphore(100)  # the daemon takes 256 calls of a policy at a time
        self.back = asyncio.Event()
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def register(self) -> None:
        """Register, and again whenever the daemon is back."""
        self.bus.add_message_handler(self.hear)
        await self.call("AddMatch", "s", OWNER, to=BUS, path="/org/freedesktop/DBus", interface=BUS)
        options = {"Port": Variant("aq", self.ports)}
        while True:
            try:
                await self.call("RegisterPolicy", "osa{sv}", "/", "spare", options)
            except DBusError as error:
                if error.type not in ABSENT:
                    raise
                print("mptcpd-dbus is not running; waiting for it", file=sys.stderr)
            await self.back.wait()
            self.back.clear()

    def hear(self, message: Message) -> Message | bool:
        """Take what the bus tells and what the daemon calls; the bus lets nobody else call."""
        if message.sender == BUS and message.member == "NameOwnerChanged" and message.body[2]:
            self.back.set()
        if message.interface != f"{NAME}.Policy":
            return False
        if message.member == "ConnectionEstablished":
            self.joins.add(task := asyncio.create_task(self.join(message.body[0])))
            task.add_done_callback(self.joins.discard)
        elif message.member == "Released":
            self.end.set_result(message.body[0])
        # The rest need not be minded, but some calls want an answer, and at once.
        silent = message.flags & MessageFlag.NO_REPLY_EXPECTED
        return True if silent else Message.new_method_return(message)

    async def join(self, path: str) -> None:
        """Add the spare path, unless it is there: the connection may be older than this program."""
        spare = self.over | {"Backup": Variant("b", True)}
        own = {"path": path, "interface": f"{NAME}.Connection"}
        async with self.turns:
            try:
                those = await self.call("ListConnections", "a{sv}uu", self.over, 0, 0)
                if path not in [other for other, _ in those]:
                    await self.call("CreateSubflow", "sqa{sv}", "", 0, spare, **own)
            except DBusError as error:
                print(f"{path}: {error.type}: {error.text}", file=sys.stderr)

    async def call(
        self,
        member: str,
        signature: str,
        *body: Any,
        to: str = NAME,
        path: str = ROOT,
        interface: str = f"{NAME}.Manager",
    ) -> Any:
        """Call a method, of a daemon that is not started for it."""
        flags = MessageFlag.NO_AUTOSTART
        message = Message(
            to, path, interface, member, flags=flags, signature=signature, body=list(body)
        )
        reply = await self.bus.call(message)
        if reply.message_type is MessageType.ERROR:
            raise DBusError(reply.error_name, " ".join(map(str, reply.body)))
        return reply.body[0] if reply.body else None


async def main(interface: str, *ports: str) -> None:
    """Decide until an administrator or the bus ends it."""
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    spare = Spare(bus, interface, [int(port) for port in ports])
    ends = (spare.register(), spare.end, bus.wait_for_disconnect())
    waiting = [asyncio.ensure_future(end) for end in ends]
    (ended, *_), _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    sys.exit(f"policy.py ends: {ended.exception() or ended.result()}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

#!/usr/bin/python3
"""Follows all MPTCP connections and subflows of this host, also while mptcpd-dbus is restarted.

    python3 watch.py

A line for each one that comes (+), changes (=) and goes (-), until Ctrl-C.  Needs dbus-next, which
is python3-dbus-next in Debian.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from typing import Any

from dbus_next import BusType, Message, MessageFlag, MessageType
from dbus_next.aio import MessageBus

NAME, ROOT, BUS = "org.mptcpd1", "/org/mptcpd1", "org.freedesktop.DBus"
SHOWN = (f"{NAME}.Connection", f"{NAME}.Subflow")
RULES = (
    f"type='signal',sender='{BUS}',member='NameOwnerChanged',arg0='{NAME}'",
    f"type='signal',sender='{NAME}',path_namespace='{ROOT}'",
)

Properties = dict[str, Any]


class Watch:
    """The picture of what there is.  It is right because messages are taken in their order.

    What came before the answer to GetManagedObjects is in that answer, what comes after it is
    newer.  An answer that is awaited would lose its place among the signals that follow it.
    """

    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus
        self.owner = ""  # the daemon whose objects these are
        self.asked: int | None = None
        self.objects: dict[str, Properties] = {}

    async def start(self) -> None:
        """Subscribe first, then ask."""
        self.bus.add_message_handler(self.hear)
        for rule in RULES:
            body = [rule]
            await self.bus.call(
                Message(BUS, "/org/freedesktop/DBus", BUS, "AddMatch", signature="s", body=body)
            )
        self.ask()

    def ask(self) -> None:
        """Ask for all objects; only the last answer counts."""
        self.asked = self.bus.next_serial()
        flags = MessageFlag.NO_AUTOSTART  # who only looks does not start a service
        question = Message(
            NAME, ROOT, f"{BUS}.ObjectManager", "GetManagedObjects", flags=flags, serial=self.asked
        )
        self.bus.send(question)

    def hear(self, message: Message) -> None:
        """Take the next message."""
        if message.message_type is not MessageType.SIGNAL:
            if message.reply_serial == self.asked:
                self.answered(message)
        elif message.sender == BUS and message.member == "NameOwnerChanged":
            self.owner, self.asked = "", None
            self.replace({})
            if message.body[2]:
                self.ask()
            else:
                say("mptcpd-dbus has stopped; waiting for it")
        elif message.sender == self.owner:  # anybody may send us signals
            self.changed(message)

    def answered(self, message: Message) -> None:
        """Take the answer; without a daemon NameOwnerChanged tells when there is one."""
        if message.message_type is MessageType.METHOD_RETURN:
            self.owner = message.sender
            self.replace(message.body[0])
        elif message.error_name in (f"{BUS}.Error.ServiceUnknown", f"{BUS}.Error.NameHasNoOwner"):
            say("mptcpd-dbus is not running; waiting for it (systemctl start mptcpd-dbus)")
        else:
            say(f"asking again in a second: {message.error_name}: {message.body}")
            asyncio.get_running_loop().call_later(1, self.ask)

    def changed(self, message: Message) -> None:
        """Take a signal of the daemon."""
        match message.member, message.body:
            case "InterfacesAdded", [path, interfaces]:
                self.put(path, shown(interfaces))
            case "InterfacesRemoved", [path, _]:
                self.put(path, None)
            case "PropertiesChanged", [interface, properties, _] if message.path in self.objects:
                now = shown({interface: properties}) or {}
                self.put(message.path, self.objects[message.path] | now)
            case "SignalsDropped", _:
                self.ask()
            case _:
                pass  # the signals of events change no object

    def replace(self, objects: dict[str, dict[str, Properties]]) -> None:
        """Make this all that there is."""
        for path in {**self.objects, **objects}:
            self.put(path, shown(objects.get(path, {})))

    def put(self, path: str, now: Properties | None) -> None:
        """Keep what is at a path, and tell what is new about it."""
        before = self.objects.pop(path, None)
        if now is not None:
            self.objects[path] = now
        if before is None and now is not None:
            say(f"+ {path} {ends(now)}")
        elif before is not None and now is None:
            say(f"- {path} {ends(before)}")
        elif before is not None and now is not None:
            for name in sorted(name for name in now if now[name] != before.get(name)):
                say(f"= {path} {name} {now[name]}")


def shown(interfaces: dict[str, Properties]) -> Properties | None:
    """Give the properties of a connection or a subflow without their variants, else None."""
    for name in SHOWN:
        if name in interfaces:
            return {key: variant.value for key, variant in interfaces[name].items()}
    return None


def ends(its: Properties) -> str:
    """Give both ends of a connection or a subflow."""
    local = f"{its['LocalAddress']} {its['LocalPort']}"
    return f"{local} -> {its['RemoteAddress']} {its['RemotePort']}"


def say(line: str) -> None:
    """Write a line at once, also into a pipe."""
    print(line, flush=True)


async def main() -> None:
    """Watch until the bus goes."""
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    await Watch(bus).start()
    await bus.wait_for_disconnect()


if __name__ == "__main__":
    asyncio.run(main())

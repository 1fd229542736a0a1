"""A D-Bus client for tests: calls, plain values, and every signal that it was sent.

It stands on dbus-next's messages, not on anything of the daemon.  A client may be another user:
the bus asks the kernel who connects, see SO_PEERCRED in unix(7).
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import json
import os
import pwd
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from dbus_next import Message, MessageFlag, MessageType, Variant
from dbus_next.aio import MessageBus
from dbus_next.auth import AuthExternal

from tests.lab.bus import ADDRESS

NAME = "org.mptcpd1"
ROOT = "/org/mptcpd1"
BUS = "org.freedesktop.DBus"


class BusError(Exception):
    """An error reply: its D-Bus name and its text."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name, self.text = name, text


@dataclass(frozen=True)
class Signal:
    """A signal as it came."""

    sender: str
    path: str
    interface: str
    member: str
    body: list[Any]


class BusClient:
    """A connection to the private bus; `signals` has all that came, the oldest first."""

    def __init__(self, user: str | None = None) -> None:
        self.signals: list[Signal] = []
        self._arrival = asyncio.Event()
        with _being(user):
            authentication = _Authentication(os.geteuid())
            self._bus = _Connection(ADDRESS, auth=authentication, negotiate_unix_fd=True)
        self._bus.add_message_handler(self._receive)

    @classmethod
    async def connect(cls, user: str | None = None) -> Self:
        """Connect to the bus, as another user if one is given."""
        client = cls(user)
        await client._bus.connect()
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bus; calls that wait for an answer fail."""
        self._bus.close()

    @property
    def name(self) -> str:
        """The unique name of this connection."""
        return str(self._bus.unique_name)

    async def call(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        *arguments: Any,
        destination: str = NAME,
        interactive: bool = False,
        descriptors: list[int] | None = None,
        within: float = 10.0,
    ) -> Any:
        """Call a method; return nothing, the value, or a list of the values that it returned."""
        flags = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION if interactive else MessageFlag.NONE
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(arguments),
            flags=flags,
            unix_fds=descriptors or [],
        )
        async with asyncio.timeout(within):
            reply = await self._bus.call(message)
        assert reply is not None
        body = plain(reply.body)
        if reply.message_type is MessageType.ERROR:
            raise BusError(reply.error_name, str(body[0]) if body else "")
        return body[0] if len(body) == 1 else body or None

    def send(self, message: Message) -> None:
        """Send a message as it is."""
        self._bus.send(message)

    async def get(self, path: str, interface: str, member: str) -> Any:
        """Return the value of a property."""
        return await self.call(path, f"{BUS}.Properties", "Get", "ss", interface, member)

    async def managed_objects(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return all objects: path, interface, property."""
        objects = await self.call(ROOT, f"{BUS}.ObjectManager", "GetManagedObjects")
        assert isinstance(objects, dict)
        return objects

    async def owns(self, name: str) -> bool:
        """Return whether anybody owns a name."""
        return bool(await self.bus_call("NameHasOwner", "s", name))

    async def bus_call(self, member: str, signature: str, *arguments: Any) -> Any:
        """Call the bus itself."""
        path = "/org/freedesktop/DBus"
        return await self.call(path, BUS, member, signature, *arguments, destination=BUS)

    async def listen(self, rule: str = f"type='signal',sender='{NAME}'") -> None:
        """Have the signals sent that match the rule."""
        await self.bus_call("AddMatch", "s", rule)

    async def signal(self, wanted: Callable[[Signal], bool], within: float = 5.0) -> Signal:
        """Return the first signal that is wanted, of those that came and those to come."""
        try:
            async with asyncio.timeout(within):
                while True:
                    for signal in self.signals:
                        if wanted(signal):
                            return signal
                    self._arrival.clear()
                    await self._arrival.wait()
        except TimeoutError:
            came = "\n".join(map(str, self.signals)) or "none at all"
            raise AssertionError(f"no such signal within {within} s; there came\n{came}") from None

    def serve(self, called: Callable[[str, list[Any]], None]) -> None:
        """Answer every call of others with nothing, after *called* got its member and arguments."""

        def answer(message: Message) -> Message | bool:
            if message.message_type is not MessageType.METHOD_CALL:
                return False
            called(message.member, plain(message.body))
            silent = message.flags & MessageFlag.NO_REPLY_EXPECTED
            return True if silent else Message.new_method_return(message)

        self._bus.add_message_handler(answer)

    def watch(self, seen: Callable[[Message], None]) -> None:
        """Let *seen* have every message that comes; a monitor must not answer any."""

        def look(message: Message) -> bool:
            seen(message)
            return message.message_type is MessageType.METHOD_CALL

        self._bus.add_message_handler(look)

    def _receive(self, message: Message) -> None:
        if message.message_type is MessageType.SIGNAL:
            fields = (message.sender, message.path, message.interface, message.member)
            self.signals.append(Signal(*fields, plain(message.body)))
            self._arrival.set()


def plain(value: Any) -> Any:
    """Return a value without its variants."""
    match value:
        case Variant():
            return plain(value.value)
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case list():
            return [plain(item) for item in value]
        case _:
            return value


def busctl(*arguments: str, prefix: tuple[str, ...] = ()) -> Any:
    """Return the data that busctl prints, run under a prefix such as that of another user."""
    argv = [*prefix, "busctl", "--json=short", *arguments]
    ran = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=30)
    if ran.returncode != 0:
        raise BusError("busctl", ran.stderr.strip())
    return json.loads(ran.stdout)["data"] if ran.stdout.strip() else None


class _Connection(MessageBus):  # type: ignore[misc]  # dbus-next is untyped
    """Can be closed at once; dbus-next would leave the socket to the garbage collector."""

    def close(self) -> None:
        self._user_disconnect = True
        self._finalize(ConnectionError("the client has left the bus"))
        self._stream.close()
        self._sock.close()


class _Authentication(AuthExternal):  # type: ignore[misc]  # dbus-next is untyped
    """Says who connects; dbus-next would say who this process is."""

    def __init__(self, uid: int) -> None:
        super().__init__()
        self._uid = uid

    def _authentication_start(self, negotiate_unix_fd: bool = False) -> str:
        super()._authentication_start(negotiate_unix_fd)
        return f"AUTH EXTERNAL {str(self._uid).encode().hex()}"


@contextmanager
def _being(name: str | None) -> Iterator[None]:
    """Have the effective ids and groups of another user for a moment."""
    if name is None:
        yield
        return
    user, groups = pwd.getpwnam(name), os.getgroups()
    os.setgroups(os.getgrouplist(name, user.pw_gid))
    os.setegid(user.pw_gid)
    os.seteuid(user.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)

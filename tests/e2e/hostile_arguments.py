"""Calls that nobody means well: every method that an object shows, with hostile arguments by type.

From introspection data and a table of values, without knowing any method.  What a bus itself cuts
a client off for (bytes that are no D-Bus) is not here: it never reaches a service.
"""
# SPDX-License-Identifier: BSD-3-Clause

import itertools
import os
import re
import select
import socket
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from dbus_next import Message, MessageFlag, MessageType, Variant

from mptcpd_dbus.bus import contract  # noqa: F401  # it brings the options of all interfaces
from mptcpd_dbus.bus.options import Options
from tests.lab.client import NAME, BusClient, plain
from tests.lab.wait import eventually

IPPROTO_MPTCP = 262
BUS = "org.freedesktop.DBus"
ASKS = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION
WINDOW = 8  # calls on their way: more would only be refused for their rate
BYTES = 65536  # a call may weigh
NUMBERS = {"y": 8, "q": 16, "u": 32, "t": 64}

TEXTS = (
    "",
    "x" * (BYTES - 4096),
    "x" * BYTES,
    "a\nb\r\nc",
    "\x01\x1b[31m\x07\x7f",
    "ünï\u202e\U0001f600\uffff",
    "%n%s{0}{x!r}",
    "../../../etc/passwd",
    "org.mptcpd1.Manager",
    "255.255.255.255",
)
PATHS = ("/", "/org/freedesktop/DBus", "/org/mptcpd1/connection/0", "/" + "a/" * 9000 + "b")
WORDS: tuple[list[str], ...] = (
    *([""], ["signal"] * 4000, ["0xffffffff"], ["0x-1"], ["\n"], ["x" * 60000]),
)


def _names(model: type[Options]) -> set[str]:
    return set(model.model_fields).union(*map(_names, model.__subclasses__()))


OPTIONS = sorted(_names(Options))  # of all methods, so that each meets those of the others, too
ODD = (
    *(Variant("t", (1 << 64) - 1), Variant("as", ["\n"]), Variant("i", -(1 << 31))),
    *(Variant("s", "%n\x01"), Variant("au", [1 << 31] * 500)),
)


def nested(depth: int) -> Variant:
    """Give variants in variants: the bus lets 64 through, and dbus-next goes to half of that."""
    value = Variant("s", "deep")
    for _ in range(depth):
        value = Variant("v", value)
    return value


DICTIONARIES: tuple[dict[str, Variant], ...] = (
    {"Unknown": Variant("s", "")},
    {"": Variant("b", True)},
    {"x" * 60000: Variant("b", True)},
    {str(number): Variant("y", 0) for number in range(3000)},
    {"Port": nested(30)},
    {"Port": Variant("(ii)", [1, 2])},
    {"Port": Variant("a{sv}", {"Port": Variant("q", 1)})},
    {"Port": Variant("h", 0)},
    *({name: odd} for name in OPTIONS for odd in ODD),
)


class Twice(Message):  # type: ignore[misc]  # dbus-next is untyped
    """A call whose dictionary has a key twice: packed as an array of structs, which look alike."""

    def _marshall(self, negotiate_unix_fd: bool = False) -> bytes:
        data = super()._marshall(negotiate_unix_fd=negotiate_unix_fd)
        return bytes(data).replace(b"a(sv)", b"a{sv}")


@dataclass(frozen=True)
class Row:
    """A call of the table, how a report names it, and whether it may well be allowed."""

    title: str
    message: Message
    may_work: bool = False


def shown(xml: str) -> list[tuple[str, str, list[str]]]:
    """Give interface, name and argument types of the methods in introspection data."""
    return [
        (
            interface.attrib["name"],
            method.attrib["name"],
            [a.attrib["type"] for a in method.iter("arg") if a.get("direction") == "in"],
        )
        for interface in ET.fromstring(xml).iter("interface")  # noqa: S314 - the daemon's own
        for method in interface.iter("method")
    ]


def rows(path: str, xml: str) -> Iterator[Row]:
    """Give the calls of one object."""
    methods = shown(xml)
    for interface, member, types in methods:
        title = f"{path} {interface.rpartition('.')[2]}.{member}"
        for number, kind in enumerate(types):
            for value in _hostile(kind):
                values = [_harmless(t) for t in types]
                values[number] = value
                what = f"{title} {number}: {repr(plain(value))[:60]}"
                row = _row(what, path, interface, member, "".join(types), values)
                yield replace(row, may_work=kind in NUMBERS or kind == "b")
        if types[-1:] == ["a{sv}"]:
            values = [*map(_harmless, types[:-1]), [["Port", Variant("q", 1)]] * 1500]
            signature = "".join(types[:-1]) + "a(sv)"
            yield _row(f"{title} twice", path, interface, member, signature, values, kind=Twice)
        values = list(map(_harmless, types))
        signature = "".join(types)
        for wrong, more in (("x", [1]), ("a(sas)", [[]]), ("s" * 100, [""] * 100)):
            yield _row(f"{title} {wrong}", path, interface, member, wrong, more)
        yield _row(f"{title} + y", path, interface, member, signature + "y", [*values, 1])
        yield _row(f"{title} of nobody", path, None, member, signature, values)
        yield _row(f"{title} nowhere", f"{path}/0", interface, member, signature, values)
        row = _row(f"{title} asks", path, interface, member, signature, values, flags=ASKS)
        yield replace(row, may_work=True)
    for interface in {interface for interface, _, _ in methods}:
        for member in ("Nothing", "__init__", "X" * 255):
            yield _row(f"{path} {interface} {member}", path, interface, member)
    yield _row(f"{path} undeclared", path, f"{NAME}.Undeclared", "Get")


def _row(  # noqa: PLR0917  # they are what a call consists of
    title: str,
    path: str,
    interface: str | None,
    member: str,
    signature: str = "",
    values: Iterable[Any] = (),
    *,
    kind: type[Message] = Message,
    flags: MessageFlag = MessageFlag.NONE,
) -> Row:
    return Row(
        title,
        kind(
            destination=NAME,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(values),
            flags=flags,
        ),
    )


_numbers = itertools.count()


def _harmless(kind: str) -> Any:
    if kind == "s":
        return f"x{next(_numbers)}"
    return {"o": "/x", "b": False, "as": [], "a{sv}": {}, "v": Variant("s", "")}.get(kind, 0)


def _hostile(kind: str) -> Iterable[Any]:
    if kind in NUMBERS:
        return (0, (1 << NUMBERS[kind]) - 1)
    return {
        "s": TEXTS,
        "o": PATHS,
        "b": (True,),
        "as": WORDS,
        "a{sv}": DICTIONARIES,
        "v": (nested(30), *ODD),
        "h": (0, 7, (1 << 32) - 1),
    }[kind]


def descriptors() -> Iterator[tuple[str, list[int]]]:
    """Give what a caller may pass for a socket; each is closed when the next is taken."""
    mptcp = (socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    with socket.socket(*mptcp) as unconnected, socket.socket(*mptcp) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield "unconnected", [unconnected.fileno()]
        yield "listening", [listening.fileno()]
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        yield "tcp", [tcp.fileno()]
        yield "udp", [udp.fileno()]
        yield "two", [tcp.fileno(), udp.fileno()]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        yield "netlink", [netlink.fileno()]
    with select.epoll() as epoll:
        yield "epoll", [epoll.fileno()]
    for name in ("/dev/null", "/proc/self/status", "/"):
        descriptor = os.open(name, os.O_RDONLY)
        yield name, [descriptor]
        os.close(descriptor)


class Caller:
    """A client that sends rows and keeps every answer to each."""

    def __init__(self, client: BusClient, patience: float = 25.0) -> None:
        self._client = client
        self._patience = patience
        self.errors: Counter[str] = Counter()
        self.answers: defaultdict[int, list[Message]] = defaultdict(list)
        client.watch(self._take)

    def _take(self, message: Message) -> None:
        if message.message_type in (MessageType.ERROR, MessageType.METHOD_RETURN):
            self.answers[message.reply_serial].append(message)

    async def faults(
        self, rows: Iterable[Row], documented: set[str], window: int = WINDOW
    ) -> list[str]:
        """Send all, so many at a time; give what is wrong with the answers."""
        sent: dict[int, Row] = {}
        waiting: set[int] = set()

        async def fewer_than(most: int) -> None:
            def few() -> bool:
                waiting.difference_update(self.answers)
                return len(waiting) < most

            await eventually(few, within=self._patience)

        with suppress(AssertionError):  # they are named below
            for row in rows:
                self._client.send(row.message)
                sent[row.message.serial] = row
                waiting.add(row.message.serial)
                await fewer_than(window)
            await fewer_than(1)
        await self._client.call("/", f"{BUS}.Peer", "Ping")  # what comes twice has come by now
        self.errors.update(a.error_name or "" for serial in sent for a in self.answers[serial])
        told = [
            (row.title, judge(self.answers[serial], documented)) for serial, row in sent.items()
        ]
        return [f"{title}: {fault}" for title, fault in told if fault]


_LEAKS = (
    (r"Traceback|NoneType|object at 0x|<class|\bself\b", "Python"),
    (r"\b[A-Za-z]+(Error|Exception)\b(?!\.)", "a class of Python"),
    (r"mptcpd_dbus|\.py\b|site-packages", "a module"),
    (r"(?<![\w.])/(usr|proc|sys|run|home|tmp|var|lib)\b", "a path"),
    (r"internal error", "a fault of the service"),
    (r"[\x00-\x1f\x7f]", "what a terminal obeys"),
)


def judge(answers: list[Message], documented: set[str]) -> str:
    """Say what is wrong with the answers to one call; "" if nothing is."""
    if len(answers) != 1:
        return f"{len(answers)} answers"
    [answer] = answers
    if answer.message_type is MessageType.METHOD_RETURN:
        return ""
    if answer.sender == BUS:  # it says no more than it always does
        return ""
    if answer.error_name not in documented:
        return f"{answer.error_name} is in no document"
    if [type(value) for value in answer.body] != [str]:
        return f"an error without a text: {answer.body}"
    [text] = answer.body
    if len(text) > 1000:
        return f"a text of {len(text)} characters"
    leaks = (f"{what}: {text!r}" for pattern, what in _LEAKS if re.search(pattern, text))
    return next(leaks, "")

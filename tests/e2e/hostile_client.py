"""What an ordinary user can do to a service on the system bus, and an honest one beside it.

    python -m tests.e2e.hostile_client ROLE [VICTIM]

It begins at the first line of standard input; each role is a generator that tells a line of JSON
and goes on at the next one.  The attacks are what dbus-next was measured to fall for.
"""
# SPDX-License-Identifier: BSD-3-Clause

import array
import fcntl
import itertools
import json
import os
import select
import socket
import statistics
import struct
import sys
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from tests.e2e.hostile_sockets import sockets
from tests.e2e.hostile_wire import (
    BUS,
    CALL,
    INTERACTIVE,
    NAME,
    NO_REPLY,
    RETURN,
    ROOT,
    SERIAL_AT,
    SIGNAL,
    RawBus,
    message,
    text,
)

Report = dict[str, Any]

MANAGER = f"{NAME}.Manager"
PEER, PROPERTIES, OBJECTS, INTROSPECTABLE = (
    f"{BUS}.{name}" for name in ("Peer", "Properties", "ObjectManager", "Introspectable")
)
NO_OPTIONS = bytes(8)  # an empty a{sv}, on its boundary
PING = message(ROOT, PEER, "Ping")
GIANT = 31 << 20
BARE = "org.example.Bare"
SENDER = b"\x07\x01s\0"
NAMES = 8
SECONDS = 5.0
FLOOD_SECONDS = 10.0
GLUTTONY_SECONDS = 12.0
GREED = 20  # calls of each name in a tenth of a second: all that its rate allows
PACE = 12  # calls of each name in a tenth of a second


def hoard() -> Iterator[Report]:
    """Subscribe to everything and never read."""
    bus = RawBus()
    rule = text("type='signal'")
    call = message("/org/freedesktop/DBus", BUS, "AddMatch", "s", rule, destination=BUS)
    yield {"error": bus.ask(call).error}
    yield {"unread": _waiting(bus.socket)}
    kept, end = 0, None  # now see what the bus has kept for us
    bus.socket.settimeout(0.5)
    try:
        while end is None:
            data = bus.socket.recv(1 << 20)
            kept, end = kept + len(data), None if data else "cut off by the bus"
    except TimeoutError:
        end = "still connected"
    except ConnectionResetError:
        end = "cut off by the bus"
    yield {"kept": kept, "end": end}


def _waiting(sock: socket.socket) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(sock, termios.FIONREAD, count)
    return count[0]


def giant() -> Iterator[Report]:
    """Send messages of 31 MiB to a method that does not exist, and one small one."""
    bus = RawBus()
    body = struct.pack("<I", GIANT) + bytes(GIANT)
    call = message(ROOT, MANAGER, "Nothing", "ay", body)
    answers = Counter(bus.ask(call).error for _ in range(10))
    small = bus.ask(message(ROOT, MANAGER, "Nothing", "ay", struct.pack("<I", 0)))
    yield {"sent": len(call) * answers.total(), "answers": answers, "small": small.error}


def calls() -> Iterator[Report]:
    """Flood with cheap calls, wanting no answer, from as many names as told."""
    listing = NO_OPTIONS + struct.pack("<II", 0, 0)
    to = sys.argv[3] if sys.argv[3:] else NAME
    yield _flood(
        message(ROOT, PEER, "Ping", destination=to, flags=NO_REPLY),
        message(ROOT, MANAGER, "Nothing", destination=to, flags=NO_REPLY),
        message(
            *(ROOT, MANAGER, "ListConnections", "a{sv}uu", listing),
            destination=to,
            flags=NO_REPLY,
        ),
    )


def objects() -> Iterator[Report]:
    """Flood with the most expensive call there is, half of them wanting no answer."""
    to = sys.argv[3] if sys.argv[3:] else NAME
    call = message(ROOT, OBJECTS, "GetManagedObjects", destination=to)
    silent = message(ROOT, OBJECTS, "GetManagedObjects", destination=to, flags=NO_REPLY)
    yield _flood(call, silent)


def greedy() -> Iterator[Report]:
    """Ask for whatever has a large answer, and read it, as often as calls are let in."""
    listing = NO_OPTIONS + struct.pack("<II", 0, 0)
    listeners = text(MANAGER) + bytes(-len(text(MANAGER)) & 3) + text("Listeners")
    kinds = (
        message(ROOT, OBJECTS, "GetManagedObjects"),
        message(ROOT, MANAGER, "ListConnections", "a{sv}uu", listing),
        message(f"{ROOT}/connection", INTROSPECTABLE, "Introspect"),
        message(ROOT, INTROSPECTABLE, "Introspect"),
        message(ROOT, PROPERTIES, "Get", "ss", listeners),
        message(ROOT, PROPERTIES, "GetAll", "s", text(MANAGER)),
    )
    flooders = [_Flooder(kind, batch=GREED) for kind in kinds]
    until = time.monotonic() + FLOOD_SECONDS
    while time.monotonic() < until:
        for flooder in flooders:
            flooder.push()
        pause = time.monotonic() + 0.1
        while (left := pause - time.monotonic()) > 0:
            for flooder in select.select(flooders, [], [], left)[0]:
                flooder.drain()
    yield _told(flooders)


def _flood(*kinds: bytes) -> Report:
    """Send without pause, each kind from its own names, and throw away what comes back."""
    flooders = [_Flooder(kind) for kind, _ in zip(itertools.cycle(kinds), range(int(sys.argv[2])))]
    until = time.monotonic() + FLOOD_SECONDS
    while time.monotonic() < until:
        readable, writable, _ = select.select(flooders, flooders, [], 0.1)
        for flooder in readable:
            flooder.drain()
        for flooder in writable:
            flooder.push()
    return _told(flooders)


def _told(flooders: list["_Flooder"]) -> Report:
    return {
        "sent": sum(f.sent // len(f.call) for f in flooders),
        "bytes": sum(f.sent for f in flooders),
        "received": sum(f.received for f in flooders),
        "refused": sum(f.refused for f in flooders),
    }


class _Flooder:
    """A connection that sends the same call again and again."""

    def __init__(self, call: bytes, batch: int = 500) -> None:
        self.call = call
        self._calls = batch
        self.sent = self.received = self.refused = 0
        self._socket = RawBus().socket
        self._socket.setblocking(False)
        self._serials = itertools.count(2)
        self._batch = memoryview(b"")

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def push(self) -> None:
        """Send as much as the socket takes."""
        if not self._batch:
            batch = bytearray(self.call * self._calls)
            for at in range(SERIAL_AT, len(batch), len(self.call)):
                struct.pack_into("<I", batch, at, next(self._serials))
            self._batch = memoryview(batch)
        done = self._socket.send(self._batch)
        self._batch = self._batch[done:]
        self.sent += done

    def drain(self) -> None:
        """Throw away what has come."""
        data = self._socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the bus has cut this client off")
        self.received += len(data)
        self.refused += data.count(b"LimitsExceeded")


def glutton() -> Iterator[Report]:
    """Ask for everything there is, again and again, and read nothing of it."""
    buses = [RawBus() for _ in range(NAMES)]
    call = message(ROOT, OBJECTS, "GetManagedObjects")
    until, sent = time.monotonic() + GLUTTONY_SECONDS, 0
    while time.monotonic() < until:
        for bus in buses:
            bus.send(call)
        sent += NAMES
        select.select([], [], [], 0.05)
    yield {"sent": sent}


def strange() -> Iterator[Report]:
    """Send calls and signals with header fields that no specification knows, to whoever is told."""
    victim = sys.argv[2] if sys.argv[2:] else NAME
    fields = [(10, "o", text("/new")), (200, "u", struct.pack("<I", 7))]
    bus = RawBus()
    bus.send(
        message("/", "org.example.Odd", "Came", kind=SIGNAL, destination=victim, strange=fields)
    )
    call = message(ROOT, PEER, "Ping", strange=fields)
    yield {"answers": Counter(bus.ask(call).error for _ in range(100))}


def park() -> Iterator[Report]:
    """Ask for many dialogues with an administrator who does not answer."""
    add = text("10.0.2.1") + bytes(3) + struct.pack("<II", 0, 0)
    call = message(ROOT, MANAGER, "AddEndpoint", "sasa{sv}", add, flags=INTERACTIVE)
    buses = [RawBus() for _ in range(NAMES)]
    for bus in buses:
        bus.socket.settimeout(0.2)
        for _ in range(25):
            bus.send(call)
    errors: Counter[str] = Counter()
    for bus in buses:
        try:
            for answer in bus.answers():
                if answer.serial:  # and no signal
                    errors[answer.error] += 1
        except TimeoutError:
            pass  # what has no answer by now is parked
    yield {"sent": 25 * NAMES, "answers": errors}


def signatures() -> Iterator[Report]:
    """Send options whose variants have each another type, which a decoder may remember.

    Not faster than calls are let in: those that are refused are not decoded.
    """
    numbers = itertools.count()
    errors: Counter[str] = Counter()
    buses = [RawBus() for _ in range(NAMES)]
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        for bus in buses:
            serials = {bus.send(_odd_option(next(numbers))) for _ in range(PACE)}
            for answer in bus.answers():
                if answer.serial in serials:
                    serials.remove(answer.serial)
                    errors[answer.error] += 1
                if not serials:
                    break
        select.select([], [], [], 0.1)
    yield {"sent": next(numbers), "answers": errors}


def _odd_option(number: int) -> bytes:
    """List connections with a filter {"X": an empty array of a struct that nobody has seen}."""
    digits = f"{number:060b}".replace("0", "yq").replace("1", "ut")
    kind = f"a({digits}{digits[:60]})"
    entry = text("X") + bytes([len(kind)]) + kind.encode() + b"\0"
    entry += bytes(-len(entry) & 3) + struct.pack("<I", 0)
    entry += bytes(-len(entry) & 7)
    body = struct.pack("<II", len(entry), 0) + entry + struct.pack("<II", 0, 0)
    return message(ROOT, MANAGER, "ListConnections", "a{sv}uu", body)


def descriptors() -> Iterator[Report]:
    """Send sixteen descriptors with each call."""
    bus = RawBus(descriptors=True)
    null = os.open("/dev/null", os.O_RDONLY)
    call = message(ROOT, PEER, "Ping", descriptors=16)
    errors: Counter[str] = Counter()
    for _ in range(1000):
        serial = bus.send(call, [null] * 16)
        errors[next(a for a in bus.answers() if a.serial == serial).error] += 1
    yield {"sent": 1000 * 16, "answers": errors}


def bare() -> Iterator[Report]:
    """Be a service that does nothing but answer: for what it takes, the bus is to blame."""
    bus = RawBus()
    wanted = text(BARE) + bytes(-len(text(BARE)) & 3) + struct.pack("<I", 0)
    path = "/org/freedesktop/DBus"
    bus.ask(message(path, BUS, "RequestName", "su", wanted, destination=BUS))
    yield {}
    buffer = bytearray()
    while True:
        buffer += bus.socket.recv(1 << 20)
        at = 0
        while len(buffer) - at >= 16:
            kind, flags, body, serial, fields = struct.unpack_from("<xBBxIII", buffer, at)
            end = at + 16 + fields
            total = 16 + fields + (-fields & 7) + body
            if len(buffer) - at < total:
                break
            if kind == CALL and not flags & NO_REPLY:
                sender = buffer.index(SENDER, at, end) + len(SENDER)
                length = buffer[sender]
                name = bytes(buffer[sender + 4 : sender + 4 + length]).decode()
                answers = [(5, "u", struct.pack("<I", serial))]
                bus.send(message("", "", "", kind=RETURN, destination=name, strange=answers))
            at += total
        del buffer[:at]


def neighbour() -> Iterator[Report]:
    """Be honest: call and read, a hundred times a second until told to stop, and mind the time."""
    bus = RawBus()
    if sys.argv[2:]:
        yield from _mind(bus, itertools.repeat(message(ROOT, PEER, "Ping", destination=BARE)))
        return
    page = NO_OPTIONS + struct.pack("<II", 0, 10)
    count = text(MANAGER) + bytes(-len(text(MANAGER)) & 3) + text("ConnectionCount")
    turns = itertools.cycle(
        (
            PING,
            message(ROOT, MANAGER, "ListConnections", "a{sv}uu", page),
            message(ROOT, PROPERTIES, "Get", "ss", count),
        )
    )
    yield from _mind(bus, turns)


def _mind(bus: RawBus, turns: Iterator[bytes]) -> Iterator[Report]:
    ping_bus = message("/org/freedesktop/DBus", BUS, "GetId", destination=BUS)
    for _ in range(6):
        bus.ask(next(turns))
    times: list[float] = []
    of_bus: list[float] = []
    errors: list[str] = []
    while not (select.select([sys.stdin], [], [], 0.01)[0] and times):
        begun = time.monotonic()
        bus.ask(ping_bus)
        asked = time.monotonic()
        error = bus.ask(next(turns)).error
        times.append(time.monotonic() - asked)
        of_bus.append(asked - begun)
        errors += [error] if error else []
    yield {
        "calls": len(times),
        "longest": max(times),
        "median": statistics.median(times),
        "bus": max(of_bus),
        "errors": errors,
    }


ROLES: tuple[Callable[[], Iterator[Report]], ...] = (
    *(
        hoard,
        giant,
        calls,
        objects,
        greedy,
        glutton,
        strange,
        park,
        signatures,
        descriptors,
    ),
    *(descriptors, sockets, bare, neighbour),
)


def main(name: str) -> None:
    """Play a role, one report for each line."""
    role = next(role for role in ROLES if role.__name__ == name)
    for report in itertools.chain([{}], role()):
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
        if not sys.stdin.readline():
            return


if __name__ == "__main__":
    main(sys.argv[1])

"""Somebody who follows the daemon on the bus, as cheaply as can be: it counts, or it stamps.

    python -m tests.bench.subscriber

It obeys like `tests/lab/application.py`.  It has one match rule, for the signals of Manager, and
looks at no more of a message than its lengths and its member.  Source: D-Bus specification,
"Message Protocol".
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import struct
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.e2e.hostile_wire import BUS, RawBus, message, text
from tests.lab.application import Application, main

RULE = "type='signal',interface='org.mptcpd1.Manager'"
LENGTHS = struct.Struct("<4xI4xI")  # of the body; of the header's fields
FIRST_PATH = struct.Struct("<I")
MEMBER = b"\x03\x01s\0"
READ = 1 << 18


@dataclass
class Subscriber(Application):
    """What it has heard since it was last asked to forget."""

    counts: Counter[str] = field(default_factory=Counter)
    stamps: list[tuple[float, str, int]] | None = None
    rest: bytes = b""

    async def subscribe(self) -> None:
        """Join the bus and listen."""
        bus = RawBus()
        bus.ask(message("/org/freedesktop/DBus", BUS, "AddMatch", "s", text(RULE), destination=BUS))
        bus.socket.setblocking(False)
        self.loop.add_reader(bus.socket, self._read, bus)

    async def forget(self, *, stamp: bool = False) -> None:
        """Begin anew; on request remember when which connection's signals came."""
        self.counts.clear()
        self.stamps = [] if stamp else None

    async def heard(self) -> dict[str, int]:
        """Tell how many signals came, by member."""
        return dict(self.counts)

    async def stamped(self) -> list[tuple[float, str, int]]:
        """Tell when which signal came, of which local port; 0 for one that names none."""
        return self.stamps or []

    def _read(self, bus: RawBus) -> None:
        data = self.rest + bus.socket.recv(READ)
        now, at, end = time.time(), 0, len(data)
        while end - at >= LENGTHS.size:
            body, fields = LENGTHS.unpack_from(data, at)
            begins = at + LENGTHS.size + (fields + 7 & ~7)
            if begins + body > end:
                break
            found = data.find(MEMBER, at, begins) + len(MEMBER)
            length = data[found]  # and three more bytes: no name is longer than 255
            member = data[found + 4 : found + 4 + length].decode()
            self.counts[member] += 1
            if self.stamps is not None:
                self.stamps.append((now, member, _local_port(data[begins : begins + body])))
            at = begins + body
        self.rest = data[at:]


def _local_port(body: bytes) -> int:
    """Read the fourth argument of NewConnection and ConnectionEstablished: o, u, s, q."""
    at = FIRST_PATH.unpack_from(body)[0] + 5
    at = (at + 3 & ~3) + 4
    if at >= len(body):
        return 0
    at += FIRST_PATH.unpack_from(body, at)[0] + 5
    return int(struct.unpack_from("<H", body, at + 1 & ~1)[0])


if __name__ == "__main__":
    asyncio.run(main(Subscriber))

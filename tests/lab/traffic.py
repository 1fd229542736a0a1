"""Traffic over a connection, of the kinds that applications have, and for how long it stood still.

A stall is what the receiving application sees: the longest time without an arrival.  What the
machine took from the applications meanwhile is told beside it, so that a busy machine is not taken
for a slow recovery.  It knows nothing of links but their counters, and of no policy.
"""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import dataclass
from typing import Literal

from tests.lab.app import App, Pair
from tests.lab.hosts import LINKS, Host, Lab

Kind = Literal["bulk up", "bulk down", "paced up", "paced down", "ping-pong", "push"]
KINDS: tuple[Kind, ...] = ("bulk up", "bulk down", "paced up", "paced down", "ping-pong", "push")

MESSAGE = 512  # bytes of a request, of its response, and of what a server pushes
EVERY = 0.005  # seconds between two messages of a push and of paced bulk


@dataclass(frozen=True)
class Stall:
    """A time without an arrival, in seconds; *kept* of it an application could not run."""

    begun: float  # on the monotonic clock
    seconds: float
    kept: float

    @property
    def own(self) -> float:
        """What is left when the time is taken off that the machine took."""
        return self.seconds - self.kept

    def __str__(self) -> str:
        return f"{self.seconds * 1e3:.0f} ms ({self.kept * 1e3:.0f} the machine's)"


class Traffic:
    """One kind of traffic between the two ends of a connection."""

    def __init__(self, kind: Kind, client: App, server: App, pair: Pair, rate: int = 0) -> None:
        """Take the ends, and for paced bulk its rate in bit/s."""
        self.kind, self._rate = kind, rate
        upwards = (client, pair.client), (server, pair.server)
        to_client = kind in ("bulk down", "paced down", "push")
        self._sender, self._receiver = reversed(upwards) if to_client else upwards
        if kind == "ping-pong":  # the client asks and measures
            self._sender, self._receiver = self._receiver, self._sender
        self._apps = client, server

    async def start(self) -> None:
        """Have both ends send and read without end."""
        for app in self._apps:
            await app.call("tick")
        (sender, talk), (receiver, reading) = self._sender, self._receiver
        if self.kind == "ping-pong":
            await sender.call("pong", talk=talk)
            await receiver.call("ping", talk=reading, size=MESSAGE)
            return
        await receiver.call("drain", talk=reading)
        if self.kind in ("bulk up", "bulk down"):
            await sender.call("stream", talk=talk)
        else:
            size = MESSAGE if self.kind == "push" else int(self._rate / 8 * EVERY)
            await sender.call("push", talk=talk, size=size, every=EVERY)

    async def stop(self) -> None:
        """Have both ends fall silent."""
        for app, talk in (self._sender, self._receiver):
            await app.call("silent", talk=talk)

    async def received(self) -> int:
        """Tell how many bytes have come to where stalls are measured."""
        app, talk = self._receiver
        return int((await app.call("progress", talk=talk))["received"])

    async def stall(self, since: float, until: float | None = None) -> Stall:
        """Tell the longest stall since a moment of the monotonic clock, begun by another at most.

        What began before the moment counts from there, and what still goes on until now.
        """
        app, talk = self._receiver
        begun, ended = await app.call("silence", talk=talk, since=since, until=until)
        kept = [await app.call("kept", since=begun, until=ended) for app in self._apps]
        # Both may have been kept at the same time: no more is excused than the longer one.
        return Stall(begun, ended - begun, max(kept))


class Meter:
    """Counts the bytes that a host's links carry, both ways, from when it is made."""

    def __init__(self, lab: Lab, host: Host = "client") -> None:
        self._lab, self._host = lab, host
        self._before = self._read()

    def carried(self) -> dict[int, int]:
        """Tell the bytes of each link since this was last asked."""
        before, self._before = self._before, self._read()
        return {link: self._before[link] - before[link] for link in LINKS}

    def _read(self) -> dict[int, int]:
        return {link: sum(self._lab.counters(self._host, link)) for link in LINKS}

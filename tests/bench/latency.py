"""From the kernel's event to its signal at a subscriber.

The first moment is a packet that the kernel has stamped: the answer to the SYN raises CREATED, the
peer's first acknowledgement after it ESTABLISHED.  The second is when the subscriber, a process of
its own, has read the signal from its socket.
"""
# SPDX-License-Identifier: BSD-3-Clause

from statistics import quantiles

from tests.bench.figures import Figure
from tests.bench.follow import follow
from tests.bench.setting import Setting
from tests.lab.wire import ACK, SYN, Wire

RATES = {100: 300, 3_000: 3_000}  # events a second: connections, of three events each
WANTED = 2.0  # milliseconds, at the lower rate
MEMBERS = {SYN | ACK: "NewConnection", ACK: "ConnectionEstablished"}


async def latency(it: Setting, quick: bool) -> list[Figure]:
    """Measure ours; mptcpd tells nobody."""
    figures = []
    for events, count in RATES.items():
        async with it.running("ours") as subject:
            await it.subscriber.call("forget", stamp=True)
            with Wire(it.lab, 1) as wire:
                rounds = count // 10 if quick else count
                await follow(it, subject, it.churn(rounds, events / 3))
                moments = _moments(wire, it.port)
            stamped = await it.subscriber.call("stamped")
        taken = [
            (when - moments[member, port]) * 1e3
            for when, member, port in stamped
            if (member, port) in moments
        ]
        cuts = quantiles(taken, n=100)
        what = f"signal, {events:,} events/s"
        most = WANTED if events == min(RATES) else None
        figures += [
            Figure(what, "event to subscriber, median", "ms", cuts[49], most=most, judged="ours"),
            Figure(what, "event to subscriber, p99", "ms", cuts[98]),
        ]
    return figures


def _moments(wire: Wire, port: int) -> dict[tuple[str, int], float]:
    """Give when the packets passed that raise events, by signal and local port."""
    found: dict[tuple[str, int], float] = {}
    for packet in wire.packets():
        if not packet.outgoing and packet.source == port:
            member = MEMBERS[packet.flags & (SYN | ACK)]
            found.setdefault((member, packet.destination), packet.time)
    return found

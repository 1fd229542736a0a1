"""From the kernel's ESTABLISHED to a policy's command on the wire, one subflow per connection.

Both moments are packets that the kernel has stamped: the peer's first acknowledgement, which makes
the connection established on the client and so raises the event, and the SYN of the join that the
policy commands then.  The join has the connection's own source port, which tells whose it is.
Beside the daemons stands the least that Python needs for that (`bare.py`).
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Awaitable
from math import inf
from statistics import median

from tests.bench.daemons import Name, bare
from tests.bench.figures import Figure, alternate
from tests.bench.setting import Setting
from tests.lab.hosts import Lab
from tests.lab.wait import eventually
from tests.lab.wire import ACK, SYN, Wire

RATES = {1: 10, 100: 500, 1_000: 3_000, 2_000: 6_000}  # a second: connections
WANTED = 2.0
SILENT = 100  # looks without another join: what is missing does not come


async def command(it: Setting, quick: bool) -> list[Figure]:
    """Compare the time it takes at each rate."""
    figures = []
    for rate, count in RATES.items():

        async def measure(name: Name, rate: int = rate, count: int = count) -> list[float]:
            async with it.running(name, "join"):
                found = await latencies(it.lab, it.port, count, it.hold(count, rate))
                await it.let_go()
                return [*found, *[inf] * (count - len(found))]  # it never came

        runs = await alternate(1 if quick else 3, measure)
        floor = []
        for _ in runs.mptcpd:
            async with bare(it.lab):
                floor.append(_median(await latencies(it.lab, it.port, count, it.hold(count, rate))))
                await it.let_go()
        what = f"command, {rate:,} a second"
        theirs = median(map(_median, runs.mptcpd))
        most = WANTED if rate <= 1_000 else None
        figures += [
            runs.figure((what, "ESTABLISHED to SYN, median", "us"), _median, most=most),
            runs.figure((what, "ESTABLISHED to SYN, p99", "us"), _p99),
            Figure(
                what,
                "the least in Python, median",
                "us",
                least := median(floor),
                theirs,
                least / theirs,
            ),
        ]
    return figures


async def latencies(lab: Lab, port: int, count: int, connecting: Awaitable[object]) -> list[float]:
    """Give the seconds from event to command of each connection to the port that is made."""
    with Wire(lab, 1) as first, Wire(lab, 2) as second:
        await connecting
        joins: dict[int, float] = {}
        seen: list[int] = []

        def over() -> bool:
            for packet in second.packets():
                if packet.outgoing and packet.flags & (SYN | ACK) == SYN:
                    joins.setdefault(packet.source, packet.time)  # not one sent again
            seen.append(len(joins))
            still = len(seen) > SILENT and seen[-1] == seen[-1 - SILENT]
            return len(joins) == count or still

        await eventually(over, within=30)
        confirmed: dict[int, float] = {}
        for packet in first.packets():
            if not packet.outgoing and packet.source == port and packet.flags & (SYN | ACK) == ACK:
                confirmed.setdefault(packet.destination, packet.time)
    return [when - confirmed[source] for source, when in joins.items()]


def _median(values: list[float]) -> float:
    return median(values) * 1e6


def _p99(values: list[float]) -> float:
    return sorted(values)[-1 - len(values) // 100] * 1e6

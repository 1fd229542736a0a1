"""How long a policy takes from the kernel's event to its command on the wire.

    make bench

Both moments are packets that the kernel has stamped: the peer's first acknowledgement, which makes
the connection established on the client and so raises the event, and the SYN of the join that the
policy commands then.  The join has the connection's own source port, which tells whose it is.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import os
from statistics import quantiles

from tests.bench.setting import setting
from tests.e2e.stage import Stage
from tests.lab.hosts import SERVER
from tests.lab.plugin_files import PluginFiles
from tests.lab.wait import eventually
from tests.lab.wire import ACK, SYN, Wire

RUNS = ((30, 1), (5_000, 1_000))  # connections, and how many of them in a second

POLICY = """
    from mptcpd_dbus.plugin import Plugin


    class Join(Plugin):
        '''Joins over link2'''

        async def connection_established(self, connection):
            await self.pm.create_subflow(
                connection, interface="link2", local_port=connection.local_port
            )
"""


def joining() -> PluginFiles:
    """Give a directory with the policy."""
    files = PluginFiles()
    files.write("join", POLICY)
    return files


async def latencies(play: Stage, count: int, rate: float) -> list[float]:
    """Open connections, so many a second; give the seconds from event to command of each."""
    echo, port = await play.server.call("listen", address=SERVER[4])
    await play.server.call("echo", listener=echo)
    with Wire(play.lab, 1) as first, Wire(play.lab, 2) as second:
        await play.client.call(
            "meet", count=count, address=SERVER[4], port=port, rate=rate, limit=60 + count / rate
        )
        joins: dict[int, float] = {}

        def all_joined() -> bool:
            for packet in second.packets():
                if packet.outgoing and packet.flags & (SYN | ACK) == SYN:
                    joins.setdefault(packet.source, packet.time)  # not one sent again
            return len(joins) == count

        await eventually(all_joined, within=30)
        confirmed: dict[int, float] = {}
        for packet in first.packets():
            if not packet.outgoing and packet.source == port and packet.flags & (SYN | ACK) == ACK:
                confirmed.setdefault(packet.destination, packet.time)
    await play.client.call("close_all")
    return [when - confirmed[source] for source, when in joins.items()]


def told(values: list[float]) -> str:
    """Say median and 99th percentile."""
    cuts = quantiles(values, n=100)
    return f"median {cuts[49] * 1000:.2f} ms, p99 {cuts[98] * 1000:.2f} ms, {len(values)} commands"


async def main() -> None:
    """Measure and print."""
    print(f"{os.uname().release}, {os.cpu_count()} CPUs")
    async with setting("--plugin-dir", str(joining().path)) as play:
        for count, rate in RUNS:
            found = await latencies(play, count, rate)
            print(f"event to command at {rate:4} connections a second: {told(found)}")


if __name__ == "__main__":
    asyncio.run(main())

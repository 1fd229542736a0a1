"""The least that a Python program with an event loop does to join: what no policy of ours can beat.

    python -m tests.bench.bare

It waits for events with asyncio, decodes them as the daemon does, and packs and sends the command
as the daemon does.  It has no state, no policy, no bus, and asks nobody.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import socket

from mptcpd_dbus.core.commands import SubflowCreate
from mptcpd_dbus.core.events import ConnectionEstablished
from mptcpd_dbus.core.types import AddressEntry
from mptcpd_dbus.kernel.event_socket import EventSocket
from mptcpd_dbus.kernel.family import GENL_HEADER, NETLINK_GENERIC, VERSION, find_family
from mptcpd_dbus.kernel.mptcp_pm import FAMILY, encode
from mptcpd_dbus.kernel.netlink import NLM_F_ACK
from mptcpd_dbus.kernel.netlink_socket import NetlinkSocket
from tests.lab.hosts import SERVER, address

READY = "it listens"


async def join() -> None:
    """Join over link2 what goes to the server's one address, for ever."""
    events, commands = EventSocket(), NetlinkSocket(NETLINK_GENERIC)
    family = find_family(commands, FAMILY).id
    local, link2 = address("client", 2), socket.if_nametoindex("link2")

    def read() -> None:
        for event in events.drain()[0]:
            if type(event) is ConnectionEstablished:
                ends = event.four_tuple
                if ends.remote_address == SERVER[4]:
                    source = AddressEntry(local, 1, ends.local_port, 0, link2)
                    target = AddressEntry(ends.remote_address, port=ends.remote_port)
                    number, payload = encode(SubflowCreate(event.token, source, target))
                    head = GENL_HEADER.pack(number, VERSION, 0)
                    list(commands.ask(family, NLM_F_ACK, head + payload))

    asyncio.get_running_loop().add_reader(events, read)
    print(READY, flush=True)  # to whom has started it
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(join())

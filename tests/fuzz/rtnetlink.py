"""Fuzz target: datagrams of rtnetlink.  What the monitor tells of them could have happened."""
# SPDX-License-Identifier: BSD-3-Clause

import struct
from collections.abc import Iterator

from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from mptcpd_dbus.core import events
from mptcpd_dbus.core.readings import AddressTraitsRead
from mptcpd_dbus.kernel.netlink import pack_attribute, pack_message
from mptcpd_dbus.kernel.rtnl import RouteMonitor, Told

LENGTH = 512

NEWLINK, DELLINK, NEWADDR, DELADDR, NEWROUTE, DELRULE = 16, 17, 20, 21, 24, 33
_MARSHAL = MarshalRtnl()


def seeds() -> Iterator[bytes]:
    """Give a history of two devices, one with an address of each family."""
    name, up = pack_attribute(3, b"veth0\0"), 0x1 | 0x40
    kind = pack_attribute(18, pack_attribute(1, b"veth\0"))
    link = struct.pack("=BxHiII", 0, 1, 3, up, 0xFFFFFFFF) + name + kind
    other = struct.pack("=BxHiII", 0, 772, 1, 0, 0xFFFFFFFF) + pack_attribute(3, b"lo\0")
    bridge = struct.pack("=BxHiII", 7, 1, 3, up, 0xFFFFFFFF) + name
    ipv4 = struct.pack("=BBBBI", 2, 24, 0, 0, 3)
    ipv4 += pack_attribute(1, b"\x0a\0\0\1") + pack_attribute(2, b"\x0a\0\0\1")
    ipv6 = struct.pack("=BBBBI", 10, 64, 0x40, 253, 3) + pack_attribute(1, b"\xfe\x80" + bytes(14))
    flags = pack_attribute(8, struct.pack("=I", 0x121))
    history = [
        (NEWLINK, link),
        (NEWLINK, other),
        (NEWLINK, bridge),
        (NEWADDR, ipv4),
        (NEWADDR, ipv6),
        (NEWADDR, ipv6 + flags),
        (NEWROUTE, bytes(12)),
        (DELRULE, bytes(12)),
        (DELADDR, ipv4),
        (DELLINK, link),
    ]
    messages = [pack_message(number, 0, 0, payload) for number, payload in history]
    yield b"".join(messages)
    yield from messages


def check(data: bytes) -> None:
    """Let a monitor that knows nothing hear *data*, and follow what it tells."""
    told: list[Told] = []
    monitor = RouteMonitor(told.append)
    try:
        for message in _MARSHAL.parse(data):
            monitor._apply(message)  # noqa: SLF001 - what is above it waits for a socket
    except Exception:  # noqa: BLE001 - the monitor then reads everything anew, whatever it was
        return
    finally:
        monitor._lookup.close()  # noqa: SLF001 - likewise
    _follow(told)


def _follow(told: list[Told]) -> None:
    interfaces: set[int] = set()
    addresses: set[tuple[int, str]] = set()
    for event in told:
        match event:
            case events.NewInterface(index):
                assert index not in interfaces
                interfaces.add(index)
            case events.UpdateInterface(index):
                assert index in interfaces
            case events.DeleteInterface(index):
                assert index not in {of for of, _ in addresses}
                interfaces.remove(index)
            case events.NewLocalAddress(index, address, _):
                addresses.add((index, address))
            case events.DeleteLocalAddress(index, address):
                addresses.remove((index, address))
            case AddressTraitsRead(index, address):
                assert (index, address) in addresses
            case _:
                pass

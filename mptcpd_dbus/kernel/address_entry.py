"""The nested address of commands and replies (MPTCP_PM_ADDR_ATTR_*), in both directions.

Pure.  Knows no command.  Unlike in events, the port is in host order.  Source: <linux/mptcp_pm.h>.
"""
# SPDX-License-Identifier: BSD-3-Clause

from socket import AF_INET
from struct import Struct

from mptcpd_dbus.core.errors import DecodeError
from mptcpd_dbus.core.types import AddressEntry
from mptcpd_dbus.kernel.addresses import ipv4_text, ipv6_text, pack
from mptcpd_dbus.kernel.netlink import (
    S32,
    U8,
    U16,
    U32,
    attribute_map,
    number,
    octets,
)

FAMILY, ID, ADDR4, ADDR6, PORT, FLAGS, IF_IDX = 1, 2, 3, 4, 5, 6, 7

# Attributes with their headers (length and type) and padding: a join waits for this.
_U8, _U16, _U32, _S32 = map(Struct, ("=HHB3x", "=HHH2x", "=HHI", "=HHi"))
_IPV4, _IPV6 = Struct("=HH4s"), Struct("=HH16s")


def encode_address(entry: AddressEntry, *, flags_always: bool = False) -> bytes:
    """Pack what is given; *flags_always* where no flags mean that they be cleared."""
    parts = []
    family, packed = pack(entry.address, mapped=entry.mapped) if entry.address else (0, b"")
    if family:
        parts.append(_U16.pack(6, FAMILY, family))
    if entry.id:
        parts.append(_U8.pack(5, ID, entry.id))
    if family == AF_INET:
        parts.append(_IPV4.pack(8, ADDR4, packed))
    elif family:
        parts.append(_IPV6.pack(20, ADDR6, packed))
    if entry.port:
        parts.append(_U16.pack(6, PORT, entry.port))
    if entry.flags or flags_always:
        parts.append(_U32.pack(8, FLAGS, entry.flags))
    if entry.interface_index:
        parts.append(_S32.pack(8, IF_IDX, entry.interface_index))
    return b"".join(parts)


def decode_address_nest(data: bytes, start: int, end: int) -> AddressEntry:
    """Read the attributes between *start* and *end*."""
    found = attribute_map(data, start, end)

    def value(kind: int, layout: Struct) -> int:
        return number(layout, data, *found[kind]) if kind in found else 0

    if ADDR4 in found:
        address, mapped = ipv4_text(octets(data, *found[ADDR4], 4)), False
    elif ADDR6 in found:
        address, mapped = ipv6_text(octets(data, *found[ADDR6], 16))
    else:
        raise DecodeError("an address entry without an address")
    return AddressEntry(
        address, value(ID, U8), value(PORT, U16), value(FLAGS, U32), value(IF_IDX, S32), mapped
    )

"""Asks the kernel whether a default route leads out from an address over its interface.

The question is that of a packet with this source, so policy rules and all tables count.  Knows
neither when to ask nor what for.  Source: rtnetlink(7), <linux/rtnetlink.h>.
"""
# SPDX-License-Identifier: BSD-3-Clause

import errno
from collections.abc import Mapping
from socket import AF_INET
from struct import Struct

from mptcpd_dbus.kernel.addresses import pack
from mptcpd_dbus.kernel.netlink import U32, align, attribute_map, number, pack_attribute
from mptcpd_dbus.kernel.netlink_socket import NetlinkSocket, RefusedError

NETLINK_ROUTE = 0
RTM_GETROUTE = 26
# struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
RTMSG = Struct("=BBBBBBBBI")
RTA_DST, RTA_SRC, RTA_OIF, RTA_MULTIPATH = 1, 2, 4, 9
RTN_UNICAST = 1
FIB_MATCH = 0x2000  # RTM_F_FIB_MATCH: answer with the route of the table, not with the packet's way
NEXT_HOP = Struct("=HBBi")  # struct rtnexthop: length, flags, hops, interface index
# Of the networks for documentation (RFC 5737, RFC 3849): only a default route leads there.
ANYWHERE = dict(pack(address, mapped=False) for address in ("192.0.2.1", "2001:db8::"))
# Not an answer to the question; any other errno is "no route", said in one of many ways.
FAILURES = {errno.EBADF, errno.ENOBUFS, errno.ENOMEM, errno.ETIMEDOUT, errno.EBADMSG}


class RouteLookup:
    """One socket; each question takes some 20 us."""

    def __init__(self) -> None:
        self._socket = NetlinkSocket(NETLINK_ROUTE)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def is_routed(self, interface_index: int, address: str) -> bool:
        """Whether a unicast default route leads from *address* over the interface."""
        family, source = pack(address, mapped=False)
        routes = self._ask(interface_index, family, source)
        found = any(_is_default(route, interface_index) for route in routes)
        if found or not routes or family == AF_INET:
            return found
        # Given a source, IPv6 takes the interface as a mere wish and answers with the best route of
        # all; a socket that is bound to the interface takes no other.  So does this question.
        routes = self._ask(interface_index, family, b"")
        return any(_is_default(route, interface_index) for route in routes)

    def _ask(self, interface_index: int, family: int, source: bytes) -> list[bytes]:
        destination = ANYWHERE[family]
        request = (
            RTMSG.pack(family, 8 * len(destination), 8 * len(source), 0, 0, 0, 0, 0, FIB_MATCH)
            + pack_attribute(RTA_DST, destination)
            + (pack_attribute(RTA_SRC, source) if source else b"")
            + pack_attribute(RTA_OIF, U32.pack(interface_index))
        )
        try:
            return [r for part in self._socket.ask(RTM_GETROUTE, 0, request) for r in part]
        except RefusedError as refused:
            if refused.reply.errno in FAILURES:
                raise
            return []


def _is_default(route: bytes, interface_index: int) -> bool:
    kind = RTMSG.unpack_from(route)[7]
    found = attribute_map(route, RTMSG.size, len(route))
    return kind == RTN_UNICAST and RTA_DST not in found and interface_index in _hops(route, found)


def _hops(route: bytes, found: Mapping[int, tuple[int, int]]) -> set[int]:
    hops = {number(U32, route, *found[RTA_OIF])} if RTA_OIF in found else set()
    start, end = found.get(RTA_MULTIPATH, (0, 0))
    while end - start >= NEXT_HOP.size:
        length, _, _, index = NEXT_HOP.unpack_from(route, start)
        hops.add(index)
        start += max(align(length), NEXT_HOP.size)
    return hops

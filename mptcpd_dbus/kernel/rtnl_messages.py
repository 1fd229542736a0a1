"""What the messages of rtnetlink say of interfaces, addresses and default routes.

Reads the messages that pyroute2 has taken apart; knows no socket.  Source: rtnetlink(7),
<linux/if_link.h>, <linux/if_addr.h>.
"""
# SPDX-License-Identifier: BSD-3-Clause

import socket
from typing import Any

from mptcpd_dbus.core.events import NewInterface, NewLocalAddress
from mptcpd_dbus.core.network import NO_TRAITS, AddressTrait
from mptcpd_dbus.core.readings import DefaultRoutesRead

IFF_UP, IFF_RUNNING = 0x1, 0x40
IFA_F_OPTIMISTIC, IFA_F_DADFAILED, IFA_F_TENTATIVE = 0x04, 0x08, 0x40
IFA_F_TEMPORARY, IFA_F_DEPRECATED = 0x01, 0x20  # the first is IPv4's mark of a secondary address
SCOPES = {253: AddressTrait.LINK_SCOPE, 254: AddressTrait.HOST_SCOPE}  # RT_SCOPE_*
RT_TABLE_MAIN, RTN_UNICAST = 254, 1
# enum ARPHRD_*, for interfaces of no software kind
HARDWARE = {1: "ether", 772: "loopback"}
FAMILIES = {socket.AF_INET: 4, socket.AF_INET6: 6}


def decode_interface(message: Any) -> NewInterface | None:
    """Read a link message; None for a bridge's word about its port, which is no interface."""
    if message["family"] != socket.AF_UNSPEC:
        return None
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info is not None else None
    return NewInterface(
        message["index"],
        message.get_attr("IFLA_IFNAME") or "",
        kind or HARDWARE.get(message["ifi_type"], ""),
        bool(message["flags"] & IFF_UP),
        bool(message["flags"] & IFF_RUNNING),
    )


def decode_address(message: Any, *, usable: bool = True) -> NewLocalAddress | None:
    """Read an address message; where it must be *usable*, None for one that is not."""
    # On a point-to-point link IFA_ADDRESS is the peer's; IPv6 has IFA_LOCAL there only.
    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    flags = message.get_attr("IFA_FLAGS") or message["flags"]
    tentative = flags & IFA_F_TENTATIVE and not flags & IFA_F_OPTIMISTIC
    if message["family"] not in FAMILIES or not text:
        return None
    if usable and (tentative or flags & IFA_F_DADFAILED):
        return None
    traits = SCOPES.get(message["scope"], NO_TRAITS)
    if flags & IFA_F_DEPRECATED:
        traits |= AddressTrait.DEPRECATED
    if flags & IFA_F_TEMPORARY and message["family"] == socket.AF_INET6:
        traits |= AddressTrait.TEMPORARY
    return NewLocalAddress(message["index"], text, message["prefixlen"], traits)


async def read_default_routes(route: Any) -> DefaultRoutesRead:
    """Ask for those of the main table on the AsyncIPRoute *route*."""
    routes: dict[tuple[int, int], int] = {}
    for family, version in FAMILIES.items():
        async for message in await route.get_default_routes(family, RT_TABLE_MAIN):
            if message["type"] != RTN_UNICAST:
                continue
            hops = message.get_attr("RTA_MULTIPATH") or ()
            indices = {hop["oif"] for hop in hops} | {message.get_attr("RTA_OIF")}
            metric = message.get_attr("RTA_PRIORITY") or 0
            for index in filter(None, indices):
                key = (index, version)
                routes[key] = min(metric, routes.get(key, metric))
    return DefaultRoutesRead(frozenset((*key, metric) for key, metric in routes.items()))

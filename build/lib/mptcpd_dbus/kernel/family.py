"""Finds the number of a generic netlink family and of its groups.

Knows the controller family and nothing of what the family found is for.  Source: genl(8),
<linux/genetlink.h>.
"""
# SPDX-License-Identifier: BSD-3-Clause

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import Struct

from mptcpd_dbus.core.errors import DecodeError, KernelRefused, NotReady
from mptcpd_dbus.kernel.netlink import U16, U32, attributes, number, pack_attribute
from mptcpd_dbus.kernel.netlink_socket import NetlinkSocket, RefusedError

NETLINK_GENERIC = 16
GENL_ID_CTRL = 16
CTRL_CMD_GETFAMILY = 3
CTRL_ATTR_FAMILY_ID = 1
CTRL_ATTR_FAMILY_NAME = 2
CTRL_ATTR_MCAST_GROUPS = 7
CTRL_ATTR_MCAST_GRP_NAME = 1
CTRL_ATTR_MCAST_GRP_ID = 2

GENL_HEADER = Struct("=BBH")  # command, version, reserved
VERSION = 1


@dataclass(frozen=True, slots=True)
class Family:
    """The numbers that this boot of the kernel gave to a family."""

    id: int
    groups: Mapping[str, int] = field(default_factory=dict)


def find_family(sock: NetlinkSocket, name: str) -> Family:
    """Ask the kernel; NotReady where it has no such family."""
    request = GENL_HEADER.pack(CTRL_CMD_GETFAMILY, VERSION, 0) + pack_attribute(
        CTRL_ATTR_FAMILY_NAME, name.encode() + b"\0"
    )
    try:
        replies = [p for part in sock.ask(GENL_ID_CTRL, 0, request) for p in part]
    except RefusedError as refused:
        if refused.reply.errno == errno.ENOENT:
            raise NotReady(
                f"the kernel has no netlink family {name}: it needs Linux 5.19 or later, "
                "built with CONFIG_MPTCP"
            ) from None
        raise KernelRefused("GETFAMILY", refused.reply.errno, refused.reply.text) from None
    return decode_family(replies[0])


def decode_family(payload: bytes) -> Family:
    """Read the answer to CTRL_CMD_GETFAMILY."""
    identity = 0
    groups = {}
    for kind, start, end in attributes(payload, GENL_HEADER.size, len(payload)):
        if kind == CTRL_ATTR_FAMILY_ID:
            identity = number(U16, payload, start, end)
        elif kind == CTRL_ATTR_MCAST_GROUPS:
            for _, first, last in attributes(payload, start, end):
                name, group = _decode_group(payload, first, last)
                groups[name] = group
    if not identity:
        raise DecodeError("a netlink family without a number")
    return Family(identity, groups)


def _decode_group(payload: bytes, start: int, end: int) -> tuple[str, int]:
    name, group = "", 0
    for kind, first, last in attributes(payload, start, end):
        if kind == CTRL_ATTR_MCAST_GRP_NAME:
            name = payload[first:last].rstrip(b"\0").decode("ascii", "replace")
        elif kind == CTRL_ATTR_MCAST_GRP_ID:
            group = number(U32, payload, first, last)
    return name, group

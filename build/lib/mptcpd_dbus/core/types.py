"""The words of the domain: addresses, 4-tuples and flags.

Addresses are text, an IPv4 address mapped into IPv6 is shown as IPv4 and marked `mapped`, so that
one address has one name whatever socket carries it.  Ports are in host order everywhere.
"""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import dataclass
from enum import Enum, IntFlag
from typing import NamedTuple


class FourTuple(NamedTuple):
    """What identifies a subflow: the 4-tuple of RFC 8684, section 1.3, seen from this host."""

    local_address: str
    local_port: int
    remote_address: str
    remote_port: int

    def __str__(self) -> str:
        local, remote = (f"[{a}]" if ":" in a else a for a in (self[0], self[2]))
        return f"{local}:{self.local_port} - {remote}:{self.remote_port}"


class AddressFlag(IntFlag):
    """MPTCP_PM_ADDR_FLAG_*, <linux/mptcp.h>; the words are those of ip-mptcp(8)."""

    SIGNAL = 1
    SUBFLOW = 2
    BACKUP = 4
    FULLMESH = 8
    IMPLICIT = 16
    LAMINAR = 32


class ConnectionState(Enum):
    """How far a connection has come; the values are the words of the D-Bus property."""

    CREATED = "created"
    ESTABLISHED = "established"
    CLOSING = "closing"


@dataclass(frozen=True, slots=True)
class AddressEntry:
    """An address as the path-manager commands carry it (MPTCP_PM_ADDR_ATTR_*, <linux/mptcp_pm.h>).

    Zero stands for "not given" in `id`, `port`, `flags` and `interface_index`.
    """

    address: str
    id: int = 0
    port: int = 0
    flags: int = 0
    interface_index: int = 0
    mapped: bool = False


def is_ipv6(address: str) -> bool:
    """Whether the textual *address* is an IPv6 one (a mapped one is IPv4)."""
    return ":" in address

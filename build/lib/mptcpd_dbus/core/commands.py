"""The eleven commands of the kernel's `mptcp_pm` family (enum mptcp_pm_cmd, <linux/mptcp_pm.h>).

Names are the kernel's.  Commands with a token steer one connection under the userspace path
manager, the others the in-kernel path manager.
"""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import dataclass

from mptcpd_dbus.core.types import AddressEntry


@dataclass(frozen=True, slots=True)
class AddAddr:
    """Add an endpoint; id 0 lets the kernel choose."""

    endpoint: AddressEntry


@dataclass(frozen=True, slots=True)
class DelAddr:
    """Delete the endpoint with this ID; it takes the kernel 12-15 ms."""

    id: int


@dataclass(frozen=True, slots=True)
class GetAddr:
    """Read all endpoints or, with a token, the local addresses of that connection."""

    token: int | None = None


@dataclass(frozen=True, slots=True)
class FlushAddrs:
    """Delete all endpoints; limits stay."""


@dataclass(frozen=True, slots=True)
class SetLimits:
    """Set the limits of the in-kernel path manager; None leaves one as it is."""

    subflows: int | None = None
    add_addr_accepted: int | None = None


@dataclass(frozen=True, slots=True)
class GetLimits:
    """Read the limits of the in-kernel path manager."""


@dataclass(frozen=True, slots=True)
class SetFlags:
    """Change the flags of an endpoint, or (with token and remote) the priority of a subflow."""

    local: AddressEntry
    token: int | None = None
    remote: AddressEntry | None = None


@dataclass(frozen=True, slots=True)
class Announce:
    """Send ADD_ADDR for a local address."""

    token: int
    local: AddressEntry


@dataclass(frozen=True, slots=True)
class Remove:
    """Send RM_ADDR for a local address ID."""

    token: int
    local_id: int


@dataclass(frozen=True, slots=True)
class SubflowCreate:
    """Send MP_JOIN from a local to a remote address; the ack means that the SYN was sent."""

    token: int
    local: AddressEntry
    remote: AddressEntry


@dataclass(frozen=True, slots=True)
class SubflowDestroy:
    """Close a subflow; both need their ports."""

    token: int
    local: AddressEntry
    remote: AddressEntry


Command = (
    AddAddr
    | DelAddr
    | GetAddr
    | FlushAddrs
    | SetLimits
    | GetLimits
    | SetFlags
    | Announce
    | Remove
    | SubflowCreate
    | SubflowDestroy
)

"""Connections, their subflows and their addresses, as they are now.

These are the living objects of the state; only `State` changes them.
"""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import dataclass, field

from mptcpd_dbus.core.network import Interface
from mptcpd_dbus.core.types import ConnectionState, FourTuple


@dataclass(slots=True, eq=False, weakref_slot=True)
class Connection:
    """An MPTCP connection (RFC 8684, section 1.3).

    `number` names it for ever, `token` only while it lives: the kernel uses tokens again.
    `confirmed` says that it was told to be established, which it may be told when it is closing.
    `path_manager` ("kernel" or "userspace"), `uid` and `cgroup` are read from the kernel once the
    connection has settled or a policy wants to know; until then they are "" and None.  `owner`
    is the name of the policy that decides for it, "" while nobody does.
    """

    number: int
    token: int
    four_tuple: FourTuple
    server_side: bool
    deny_join_id0: bool
    mapped: bool
    state: ConnectionState = ConnectionState.CREATED
    confirmed: bool = False
    path_manager: str = ""
    uid: int | None = None
    cgroup: int | None = None
    fallback: bool = False
    owner: str = ""
    subflows: "dict[FourTuple, Subflow]" = field(default_factory=dict)
    local_addresses: "dict[int, Address]" = field(default_factory=dict)
    remote_addresses: "dict[int, Address]" = field(default_factory=dict)
    subflows_made: int = 0


@dataclass(slots=True, eq=False)
class Subflow:
    """One TCP flow of a connection; `backup` was asked by the peer, `backup_requested` by us.

    `interface` is the device the socket is bound to (then `bound_to` is its index), else the one
    that owns the local address.
    """

    connection: Connection
    number: int
    four_tuple: FourTuple
    local_id: int
    remote_id: int
    backup: bool
    mapped: bool
    initial: bool
    bound_to: int
    interface: Interface | None
    backup_requested: bool = False


@dataclass(slots=True, eq=False)
class Address:
    """An address that one end has announced or uses on a connection, under its address ID."""

    connection: Connection
    id: int
    address: str
    port: int
    remote: bool
    flags: int = 0

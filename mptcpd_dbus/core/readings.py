"""What is read back where the kernel sends no event; `State.apply` takes it like an event.

A reading is the whole present truth about its subject, never a difference.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Mapping
from dataclasses import dataclass

from mptcpd_dbus.core.network import AddressTrait, Management
from mptcpd_dbus.core.policies import PolicyState
from mptcpd_dbus.core.types import AddressEntry, FourTuple


@dataclass(frozen=True, slots=True)
class ConnectionRead:
    """A connection in sock_diag, protocol 262 (struct mptcp_info, <linux/mptcp.h>).

    `state` is the TCP state of the MPTCP socket (enum in <net/tcp_states.h>: 1 ESTABLISHED,
    2 SYN_SENT, ...); `cgroup` is the cgroup ID at creation, 0 where the kernel does not tell;
    `inode` is 0 before accept() and after close().
    """

    token: int
    four_tuple: FourTuple
    mapped: bool
    state: int
    uid: int
    inode: int
    cgroup: int
    fallback: bool


@dataclass(frozen=True, slots=True)
class SubflowRead:
    """A subflow in TCP's sock_diag with its ULP information (INET_ULP_INFO_MPTCP)."""

    token: int
    four_tuple: FourTuple
    mapped: bool
    state: int
    local_id: int
    remote_id: int
    backup: bool
    backup_requested: bool
    interface_index: int
    initial: bool
    opened_here: bool
    fully_established: bool


@dataclass(frozen=True, slots=True)
class LocalAddressesRead:
    """A connection's path manager and, under the userspace one, its table of local address IDs.

    `entries` is None where the in-kernel path manager owns the connection.  `table` is False where
    the kernel shows no table (before 6.9): then `entries` says nothing else.
    """

    token: int
    entries: tuple[AddressEntry, ...] | None
    table: bool = True


@dataclass(frozen=True, slots=True)
class ListenerRead:
    """An MPTCP socket that listens, as TCP's sock_diag shows it."""

    address: str
    port: int
    interface_index: int
    uid: int
    inode: int


@dataclass(frozen=True, slots=True)
class EndpointsRead:
    """All endpoints of the in-kernel path manager (GET_ADDR)."""

    endpoints: tuple[AddressEntry, ...]


@dataclass(frozen=True, slots=True)
class OwnEndpointsRead:
    """Which endpoints this daemon has added: ID, address and port of each.

    An ID alone would not do: the kernel gives it to another program's endpoint afterwards.
    """

    keys: frozenset[tuple[int, str, int]]


@dataclass(frozen=True, slots=True)
class LimitsRead:
    """The limits of the in-kernel path manager (GET_LIMITS)."""

    subflows: int
    add_addr_accepted: int


@dataclass(frozen=True, slots=True)
class SettingsRead:
    """The sysctls of net.mptcp that matter here; "" where the kernel has none of that name."""

    enabled: bool
    path_manager: str
    available_path_managers: tuple[str, ...]
    scheduler: str


@dataclass(frozen=True, slots=True)
class DefaultRoutesRead:
    """The unicast default routes of the main table: interface index, family (4 or 6), metric.

    Of several over one interface the one that the kernel prefers, with the lowest metric, counts.
    """

    routes: frozenset[tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class PolicyRead:
    """A policy as the policy host knows it; the fields are those of `Policy`."""

    name: str
    description: str
    version: str
    priority: int
    steers: str
    state: PolicyState
    problem: str
    errors: int
    on_bus: str = ""


@dataclass(frozen=True, slots=True)
class PolicyGone:
    """There is no policy of that name any more; who had it as owner has none."""

    name: str


@dataclass(frozen=True, slots=True)
class OwnerRead:
    """Which policy decides for the connection, as the policy host has chosen; "" is nobody."""

    token: int
    owner: str


@dataclass(frozen=True, slots=True)
class RoutedAddressesRead:
    """All (interface index, address) from which a unicast default route leads over the interface.

    Looked up as for a packet from that address (RTM_GETROUTE), so rules and other tables count.
    """

    addresses: frozenset[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class AddressTraitsRead:
    """The traits of an address that is known already, where they have changed."""

    interface_index: int
    address: str
    traits: AddressTrait


@dataclass(frozen=True, slots=True)
class ManagementRead:
    """What NetworkManager says of its devices, by the interface's name; nothing where it is not."""

    interfaces: Mapping[str, Management]


NetworkReading = DefaultRoutesRead | RoutedAddressesRead | AddressTraitsRead | ManagementRead

Reading = (
    ConnectionRead
    | SubflowRead
    | LocalAddressesRead
    | EndpointsRead
    | OwnEndpointsRead
    | LimitsRead
    | SettingsRead
    | NetworkReading
    | PolicyRead
    | PolicyGone
    | OwnerRead
)

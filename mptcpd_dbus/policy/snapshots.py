"""What plugins see of connections, subflows, addresses, interfaces and endpoints: frozen pictures.

A picture shows its moment, for ever; `self.pm` shows the present.  Addresses are text, an IPv4
address mapped into IPv6 is shown as IPv4; ports are in host order; "local" is always this host.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from types import MappingProxyType

from mptcpd_dbus.core import connections, endpoints, events, network
from mptcpd_dbus.core.types import FourTuple, is_ipv6


@dataclass(frozen=True, slots=True)
class Address:
    """An address that one end has announced or uses, under its address ID (RFC 8684, 3.4.1).

    `port` is 0 where none was announced; for a `remote` one it is then the port of the subflow
    that carried the announcement (so on a server it is of no use).  One that was withdrawn without
    ever having been announced has no address: "".
    """

    id: int
    address: str
    port: int
    remote: bool


@dataclass(frozen=True, slots=True)
class Subflow:
    """A TCP flow of a connection (RFC 8684, section 1.3).

    `backup` was asked by the peer, `backup_requested` by us.  `interface` names the device it is
    bound to, else the one that owns its local address ("" where there is none); `interface_index`
    is not 0 only where it is bound.  `number` names it on its connection for ever, 0 is a join that
    failed.  `error` (an errno) and `reset_reason` (RFC 8684, section 3.6)
    say why a closed one ended; it was never `established` where a join failed.
    """

    token: int
    connection_number: int
    local_address: str
    local_port: int
    remote_address: str
    remote_port: int
    local_id: int
    remote_id: int
    backup: bool
    backup_requested: bool
    interface: str
    interface_index: int
    initial: bool
    error: int = 0
    reset_reason: int | None = None
    established: bool = True
    number: int = 0

    @property
    def four_tuple(self) -> FourTuple:
        """What identifies it."""
        return FourTuple(self.local_address, self.local_port, self.remote_address, self.remote_port)


@dataclass(frozen=True, slots=True)
class Connection:
    """An MPTCP connection (RFC 8684, section 1.3); its addresses are the initial subflow's.

    `number` names it for ever, `token` only while it lives.  `state` is "created" (no subflow can
    be added yet), "established" or "closing".  `path_manager` is the kernel's that it is under
    ("kernel" or "userspace"), "" in its first moment, before that was read; `owner` is the policy
    that decides for it.  `uid` and `cgroup` (the ID of its control group) are those of the socket,
    None until they were read.  `deny_join_id0`: the peer accepts no joins to `remote_address` and
    `remote_port` (RFC 8684, section 3.1, flag C).
    """

    number: int
    token: int
    local_address: str
    local_port: int
    remote_address: str
    remote_port: int
    server_side: bool
    deny_join_id0: bool
    state: str
    path_manager: str
    owner: str
    uid: int | None
    cgroup: int | None
    fallback: bool
    subflows: tuple[Subflow, ...]
    local_addresses: tuple[Address, ...]
    remote_addresses: tuple[Address, ...]

    @property
    def destinations(self) -> tuple[tuple[str, int], ...]:
        """Where joins can go: the peer's own address and port, unless it denies that, then others.

        Those are what it announced in the family of the connection; a socket may take no other.
        """
        own = (self.remote_address, self.remote_port)
        announced = (
            (address.address, address.port or self.remote_port)
            for address in self.remote_addresses
            if address.address and is_ipv6(address.address) == is_ipv6(self.remote_address)
        )
        denied = [own] if self.deny_join_id0 else []
        return tuple(place for place in dict.fromkeys([own, *announced]) if place not in denied)


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface as policies see it: only the addresses that the configuration shows.

    `up` is the administrator's wish (IFF_UP), `running` the carrier (IFF_RUNNING); addresses stay
    while the carrier is away.  `addresses` maps each to its prefix length, those that are no longer
    preferred (RFC 4862) are in `deprecated`, too.  `default_routes` has for each family (4, 6)
    with a default route over it in the main table its metric.

    What follows NetworkManager says, and `managed` whether it cares for the interface at all; where
    it does not run or does not know, they are "unknown", False or "".  `metered` is "yes", "no",
    "guess-yes" or "guess-no"; `connectivity` is "none", "portal", "limited" or "full"; `primary`
    has the connection with the default route.
    """

    index: int
    name: str
    kind: str
    up: bool
    running: bool
    addresses: Mapping[str, int]
    deprecated: frozenset[str]
    default_routes: Mapping[int, int]
    managed: bool = False
    metered: str = "unknown"
    connectivity: str = "unknown"
    primary: bool = False
    device_type: str = ""
    connection_id: str = ""

    @property
    def is_metered(self) -> bool:
        """Whether data over it costs, as far as NetworkManager knows or guesses."""
        return self.metered in ("yes", "guess-yes")

    def addresses_for(self, remote_address: str) -> tuple[str, ...]:
        """Give the addresses from which *remote_address* may be reached now; none without carrier.

        They are of its family, not deprecated, and not only of this link.
        """
        if not (self.up and self.running):
            return ()
        return tuple(
            address
            for address in self.addresses
            if is_ipv6(address) == is_ipv6(remote_address)
            and address not in self.deprecated
            and not ip_address(address).is_link_local
        )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that the in-kernel path manager works with (ip-mptcp(8)).

    `flags` are ip-mptcp(8)'s words; `interface_index` is 0 where its subflows are bound to none;
    `ours` tells those that this very plugin has added, before a restart of the daemon, too, from
    those of NetworkManager, an administrator, a program on the bus or another plugin.  `origin` is
    "mptcpd" for this one and all that the daemon has added, "networkmanager" for those that cannot
    be changed here, or "other".
    """

    id: int
    address: str
    port: int
    flags: tuple[str, ...]
    interface_index: int
    ours: bool
    origin: str = endpoints.OTHER


@dataclass(frozen=True, slots=True)
class Listener:
    """An MPTCP socket of this host that listens."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the in-kernel path manager: extra subflows and accepted ADD_ADDRs, 0-8."""

    subflows: int
    add_addr_accepted: int


class Connections:
    """The present connections, in the order in which they were found: all, or those of an *owner*.

    Each is pictured when its turn comes, so that ten thousand do not hold up the daemon as long as
    the loop over them awaits something; one that has closed meanwhile is left out.
    """

    def __init__(
        self, present: Mapping[int, connections.Connection], owner: str | None = None
    ) -> None:
        self._present = present
        self._owner = owner

    def __iter__(self) -> Iterator[Connection]:
        for living in list(self._present.values()):
            if self._present.get(living.token) is living and self._counts(living):
                yield connection(living)

    def __len__(self) -> int:
        return sum(map(self._counts, self._present.values()))

    def _counts(self, living: connections.Connection) -> bool:
        return self._owner is None or living.owner == self._owner


def address(living: connections.Address) -> Address:
    """Picture an address."""
    return Address(living.id, living.address, living.port, living.remote)


def subflow(living: connections.Subflow) -> Subflow:
    """Picture a subflow."""
    return Subflow(
        living.connection.token,
        living.connection.number,
        *living.four_tuple,
        living.local_id,
        living.remote_id,
        living.backup,
        living.backup_requested,
        living.interface.name if living.interface else "",
        living.bound_to,
        living.initial,
        number=living.number,
    )


def closed_subflow(
    event: events.SubflowClosed,
    connection: connections.Connection,
    living: connections.Subflow | None,
) -> Subflow:
    """Picture a subflow that has ended, or a join that failed: then there was none *living*."""
    interface = living.interface.name if living and living.interface else ""
    return Subflow(
        event.token,
        connection.number,
        *event.four_tuple,
        event.local_id,
        event.remote_id,
        event.backup,
        bool(living and living.backup_requested),
        interface,
        event.interface_index,
        bool(living and living.initial),
        event.error,
        event.reset_reason,
        established=living is not None,
        number=living.number if living else 0,
    )


def connection(living: connections.Connection) -> Connection:
    """Picture a connection with all that it has."""
    return Connection(
        living.number,
        living.token,
        *living.four_tuple,
        living.server_side,
        living.deny_join_id0,
        living.state.value,
        living.path_manager,
        living.owner,
        living.uid,
        living.cgroup,
        living.fallback,
        tuple([subflow(s) for s in living.subflows.values()]),
        tuple([address(a) for a in living.local_addresses.values()]),
        tuple([address(a) for a in living.remote_addresses.values()]),
    )


def interface(living: network.Interface, shown: Mapping[str, int]) -> Interface:
    """Picture an interface with the addresses that are *shown*."""
    return Interface(
        living.index,
        living.name,
        living.kind,
        living.up,
        living.running,
        MappingProxyType(dict(shown)),
        frozenset(living.deprecated & shown.keys()),
        MappingProxyType(dict(living.default_routes)),
        *living.management,
    )


def endpoint(living: endpoints.Endpoint, *, ours: bool) -> Endpoint:
    """Picture an endpoint for a plugin that has added it itself, or has not."""
    entry = living.entry
    return Endpoint(
        living.id,
        entry.address,
        entry.port,
        tuple(endpoints.flag_words(entry.flags)),
        entry.interface_index,
        ours,
        living.origin,
    )

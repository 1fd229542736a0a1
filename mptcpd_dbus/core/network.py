"""The host's interfaces as rtnetlink tells of them, and what NetworkManager adds where it runs."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Flag
from functools import reduce
from operator import or_
from typing import NamedTuple

from mptcpd_dbus.core.errors import InvalidArgument


class AddressTrait(Flag):
    """What the kernel says of an address: IFA_F_* and the scope, <linux/if_addr.h>, ip-address(8).

    A deprecated one is no longer preferred for new connections; a temporary one is IPv6's against
    being followed (RFC 8981); the scopes are those narrower than "global" and "site".
    """

    DEPRECATED = 1
    TEMPORARY = 2
    LINK_SCOPE = 4
    HOST_SCOPE = 8


NO_TRAITS = AddressTrait(0)

_WORDS = {trait: str(trait.name).lower().replace("_", "-") for trait in AddressTrait}
_ROUTED = "routed"


class Management(NamedTuple):
    """What NetworkManager says of an interface; as it begins, while it says nothing.

    The words are those of the properties on the bus.
    """

    managed: bool = False
    metered: str = "unknown"
    connectivity: str = "unknown"
    primary: bool = False
    device_type: str = ""
    connection_id: str = ""


UNKNOWN = Management()


@dataclass(slots=True, eq=False)
class Interface:
    """A network interface: `up` is the administrator's wish (IFF_UP), `running` the carrier.

    `addresses` maps each usable address to its prefix length, `traits` to its traits; `routed` are
    those from which a default route leads out over this interface, whatever the table;
    `default_routes` has for each address family (4, 6) with such a route in the main table its
    metric.
    """

    index: int
    name: str
    kind: str
    up: bool
    running: bool
    addresses: dict[str, int] = field(default_factory=dict)
    traits: dict[str, AddressTrait] = field(default_factory=dict)
    routed: frozenset[str] = frozenset()
    default_routes: dict[int, int] = field(default_factory=dict)
    management: Management = UNKNOWN

    @property
    def deprecated(self) -> frozenset[str]:
        """The addresses that new connections should not use any more."""
        deprecated = AddressTrait.DEPRECATED
        return frozenset(a for a, traits in self.traits.items() if deprecated in traits)

    @property
    def marks(self) -> dict[str, list[str]]:
        """What is known of addresses in words, those of their traits, and "routed"."""
        found = {}
        for address, traits in self.traits.items():
            words = [word for trait, word in _WORDS.items() if trait in traits]
            if address in self.routed:
                words.append(_ROUTED)
            if words:
                found[address] = words
        return found

    def mark(self, marks: Mapping[str, Sequence[str]]) -> None:
        """Take in what `marks` gave elsewhere; words that are not known mean nothing."""
        for address in self.addresses:
            words = marks.get(address, ())
            traits = [trait for trait, word in _WORDS.items() if word in words]
            self.traits[address] = reduce(or_, traits, NO_TRAITS)
        self.routed = frozenset(a for a in self.addresses if _ROUTED in marks.get(a, ()))


class Network:
    """All interfaces by index, and who owns an address."""

    def __init__(self) -> None:
        self.interfaces: dict[int, Interface] = {}
        self.management: Mapping[str, Management] = {}
        self._owners: dict[str, list[Interface]] = {}

    def owner(self, address: str) -> Interface | None:
        """Give the interface that has *address*; of several, the one that had it first."""
        owners = self._owners.get(address)
        return owners[0] if owners else None

    def manage(self, interface: Interface) -> bool:
        """Note what NetworkManager says of *interface* by its name; give whether that is new."""
        before = interface.management
        interface.management = self.management.get(interface.name, UNKNOWN)
        return interface.management != before

    def by_name(self, name: str) -> Interface:
        """Give the interface called *name*; raise InvalidArgument if there is none."""
        for interface in self.interfaces.values():
            if interface.name == name:
                return interface
        raise InvalidArgument(f"Interface: there is no network interface {name[:16]!r}")

    def index_of(self, name: str) -> int:
        """Give the index of the interface called *name*; 0 if there is none."""
        return next((i.index for i in self.interfaces.values() if i.name == name), 0)

    def add_address(
        self,
        interface: Interface,
        address: str,
        prefix_length: int,
        traits: AddressTrait = NO_TRAITS,
    ) -> None:
        """Note that *interface* has *address*."""
        if address not in interface.addresses:
            self._owners.setdefault(address, []).append(interface)
        interface.addresses[address] = prefix_length
        interface.traits[address] = traits

    def remove_address(self, interface: Interface, address: str) -> None:
        """Note that *interface* no longer has *address*."""
        del interface.addresses[address]
        del interface.traits[address]
        interface.routed -= {address}
        owners = self._owners[address]
        owners.remove(interface)
        if not owners:
            del self._owners[address]

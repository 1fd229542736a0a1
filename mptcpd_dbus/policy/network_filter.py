"""What policies see of the network: `notify-flags`, and `allow` and `deny` of [interfaces].

Turns what happens into what policies are told, so that they have been told of exactly what they are
shown.  Must not know who listens.  Source: mptcpd(8), --notify-flags.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from mptcpd_dbus.core.events import (
    DeleteInterface,
    DeleteLocalAddress,
    NetworkEvent,
    NewInterface,
    NewLocalAddress,
    UpdateInterface,
)
from mptcpd_dbus.core.network import AddressTrait, Interface, Management, Network
from mptcpd_dbus.core.readings import (
    AddressTraitsRead,
    DefaultRoutesRead,
    ManagementRead,
    NetworkReading,
    RoutedAddressesRead,
)

EXISTING, CHECK_ROUTE = "existing", "check_route"
SCOPES = {
    "skip_link_local": AddressTrait.LINK_SCOPE,
    "skip_loopback": AddressTrait.HOST_SCOPE,
}


class NetworkFilter:
    """The network as policies see it, and what they have been told of it.

    The patterns are globs for names, or begin with `name:`, `kind:` or `prefix:`; a prefix is about
    addresses, the others are about interfaces.  What is denied is not shown; where nothing is
    allowed, everything else is.  Loopback is shown only where its very name is allowed.
    """

    def __init__(
        self,
        network: Network,
        notify_flags: frozenset[str],
        allow: Sequence[str],
        deny: Sequence[str],
    ) -> None:
        self._network = network
        self._told: dict[int, _Told] = {}
        self._configure(notify_flags, allow, deny)

    def reconfigure(
        self, notify_flags: frozenset[str], allow: Sequence[str], deny: Sequence[str]
    ) -> list[NetworkEvent]:
        """See by other rules from now on; give what policies must be told of the difference."""
        self._configure(notify_flags, allow, deny)
        return self.take(None)

    def existing(self) -> list[NetworkEvent]:
        """Give what a policy is told when it begins; of addresses only with the flag for it."""
        found: list[NetworkEvent] = []
        for index, told in self._told.items():
            found.append(NewInterface(*told.facts[0]))
            interface = self._network.interfaces[index]
            for address in told.addresses if EXISTING in self._flags else ():
                length, traits = interface.addresses[address], interface.traits[address]
                found.append(NewLocalAddress(index, address, length, traits))
        return found

    def shown(self, interface: Interface) -> dict[str, int] | None:
        """Give the addresses shown with their prefix lengths; None for an interface that is not."""
        if not self._shows(interface):
            return None
        return {
            address: length
            for address, length in interface.addresses.items()
            if self._shows_address(interface, address)
        }

    def take(self, what: NetworkEvent | NetworkReading | None) -> list[NetworkEvent]:
        """Give what policies are told after *what* has changed the network; None: anything may."""
        match what:
            case NewLocalAddress() | DeleteLocalAddress() | AddressTraitsRead():
                interface = self._network.interfaces.get(what.interface_index)
                told = self._told.get(what.interface_index)
                if interface is None or told is None:
                    return []
                return self._compare_addresses(interface, told, (what.address,))
            case NewInterface() | UpdateInterface() | DeleteInterface():
                return self._compare(what.index)
            case RoutedAddressesRead() | DefaultRoutesRead() | ManagementRead() | None:
                indices = dict.fromkeys([*self._told, *self._network.interfaces])
                return [event for index in indices for event in self._compare(index)]

    def _configure(
        self, notify_flags: frozenset[str], allow: Sequence[str], deny: Sequence[str]
    ) -> None:
        self._flags = notify_flags
        self._skipped = [trait for flag, trait in SCOPES.items() if flag in notify_flags]
        self._allow, self._deny = _Patterns(allow), _Patterns(deny)

    def _shows(self, interface: Interface) -> bool:
        if interface.kind == "loopback" and interface.name not in self._allow.names:
            return False
        return not self._deny.fits(interface) and (
            not self._allow.for_interfaces or self._allow.fits(interface)
        )

    def _shows_address(self, interface: Interface, address: str) -> bool:
        if address not in interface.addresses or self._deny.holds(address):
            return False
        if any(trait in interface.traits[address] for trait in self._skipped):
            return False
        if CHECK_ROUTE in self._flags and address not in interface.routed:
            return False
        return not self._allow.prefixes or self._allow.holds(address)

    def _compare(self, index: int) -> list[NetworkEvent]:
        interface = self._network.interfaces.get(index)
        told = self._told.get(index)
        if interface is None or not self._shows(interface):
            if told is None:
                return []
            del self._told[index]
            gone = [DeleteLocalAddress(index, address) for address in told.addresses]
            return [*gone, DeleteInterface(index)]
        now = (index, interface.name, interface.kind, interface.up, interface.running)
        facts = (now, dict(interface.default_routes), interface.management)
        found: list[NetworkEvent] = []
        if told is None:
            told = self._told[index] = _Told(facts)
            found.append(NewInterface(*now))
        elif told.facts != facts:
            told.facts = facts
            found.append(UpdateInterface(*now))
        addresses = [*told.addresses, *interface.addresses]
        return found + self._compare_addresses(interface, told, addresses)

    def _compare_addresses(
        self, interface: Interface, told: "_Told", addresses: Iterable[str]
    ) -> list[NetworkEvent]:
        found: list[NetworkEvent] = []
        for address in addresses:
            shown = self._shows_address(interface, address)
            if shown and address not in told.addresses:
                told.addresses[address] = None
                length, traits = interface.addresses[address], interface.traits[address]
                found.append(NewLocalAddress(interface.index, address, length, traits))
            elif not shown and address in told.addresses:
                del told.addresses[address]
                found.append(DeleteLocalAddress(interface.index, address))
        return found


# The fields of NewInterface, the default routes, and what NetworkManager says.
_Facts = tuple[tuple[int, str, str, bool, bool], dict[int, int], Management]


@dataclass(slots=True)
class _Told:
    """What policies have been told of an interface; its addresses in the order of telling."""

    facts: _Facts
    addresses: dict[str, None] = field(default_factory=dict)


class _Patterns:
    """One list of the configuration, which has checked it."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self.names: list[str] = []
        self.kinds: list[str] = []
        self.prefixes: list[IPv4Network | IPv6Network] = []
        for pattern in patterns:
            word, colon, rest = pattern.partition(":")
            match word if colon else "":
                case "prefix":
                    self.prefixes.append(ip_network(rest))
                case "kind":
                    self.kinds.append(rest)
                case _:
                    self.names.append(rest if colon else pattern)

    @property
    def for_interfaces(self) -> bool:
        """Whether any of them is about interfaces."""
        return bool(self.names or self.kinds)

    def fits(self, interface: Interface) -> bool:
        """Whether one fits the interface's name or kind."""
        return any(fnmatchcase(interface.name, glob) for glob in self.names) or any(
            fnmatchcase(interface.kind, glob) for glob in self.kinds
        )

    def holds(self, address: str) -> bool:
        """Whether one is a prefix of the address."""
        return bool(self.prefixes) and any(ip_address(address) in p for p in self.prefixes)

"""That policies are told of exactly what they are shown, whatever happens to the network."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcpd_dbus.core.events import (
    DeleteInterface,
    DeleteLocalAddress,
    NetworkEvent,
    NewInterface,
    NewLocalAddress,
    UpdateInterface,
)
from mptcpd_dbus.core.network import NO_TRAITS, AddressTrait, Interface, Management
from mptcpd_dbus.core.readings import (
    AddressTraitsRead,
    ManagementRead,
    NetworkReading,
    RoutedAddressesRead,
)
from mptcpd_dbus.core.state import State
from mptcpd_dbus.policy.network_filter import NetworkFilter

Happening = NetworkEvent | NetworkReading
LINK1 = NewInterface(2, "link1", "ether", up=True, running=True)
LOOPBACK = NewInterface(1, "lo", "loopback", up=True, running=True)
FIRST = NewLocalAddress(2, "10.0.1.1", 24)
LINK_LOCAL = NewLocalAddress(2, "fe80::1", 64, AddressTrait.LINK_SCOPE)
HOST_LOCAL = NewLocalAddress(1, "127.0.0.1", 8, AddressTrait.HOST_SCOPE)
ROUTED = RoutedAddressesRead(frozenset({(2, "10.0.1.1")}))
NOT_ROUTED = RoutedAddressesRead(frozenset())


class Host:
    """A network and its filter, fed as the daemon feeds them."""

    def __init__(
        self, flags: str = "", allow: Sequence[str] = (), deny: Sequence[str] = ()
    ) -> None:
        self.state = State()
        self.filter = NetworkFilter(self.state.network, frozenset(flags.split()), allow, deny)

    def play(self, *history: Happening) -> list[NetworkEvent]:
        """Let it happen; give what policies are told."""
        return [event for what in history for event in self._step(what)]

    def _step(self, what: Happening) -> list[NetworkEvent]:
        told = []
        if isinstance(what, DeleteInterface):
            for implied in self.state.implied_by(what):
                assert isinstance(implied, DeleteLocalAddress)
                told += self._step(implied)
        if self.state.apply(what) is not None:
            told += self.filter.take(what)
        return told


def link(*, name: str = "link1", running: bool = True) -> UpdateInterface:
    return UpdateInterface(2, name, "ether", up=True, running=running)


def test_what_networkmanager_says_is_told_once_for_each_that_is_shown_and_that_it_changes() -> None:
    hidden = NewInterface(3, "docker0", "bridge", up=True, running=True)
    host = Host(deny=("docker*",))
    metered = ManagementRead(dict.fromkeys(("link1", "docker0"), Management(metered="yes")))

    assert host.play(LINK1, hidden, metered, metered) == [LINK1, link()]
    assert host.play(ManagementRead({})) == [link()]


def test_everything_is_told_once_where_nothing_is_configured() -> None:
    host = Host()

    assert host.play(LINK1, FIRST, FIRST, LINK1) == [LINK1, FIRST]
    assert host.play(DeleteLocalAddress(2, "10.0.1.1"), DeleteLocalAddress(2, "10.0.1.1")) == [
        DeleteLocalAddress(2, "10.0.1.1")
    ]
    assert host.play(DeleteInterface(2)) == [DeleteInterface(2)]


def test_a_flap_of_the_carrier_is_an_update_and_keeps_the_addresses() -> None:
    host = Host()
    host.play(LINK1, FIRST)

    assert host.play(link(running=False)) == [link(running=False)]
    assert host.filter.shown(host.state.network.interfaces[2]) == {"10.0.1.1": 24}
    assert host.play(link(running=True)) == [link(running=True)]


def test_an_interface_goes_after_its_addresses() -> None:
    host = Host()
    host.play(LINK1, FIRST)

    assert host.play(DeleteInterface(2)) == [
        DeleteLocalAddress(2, "10.0.1.1"),
        DeleteInterface(2),
    ]


def test_an_interface_without_addresses_is_shown() -> None:
    host = Host()

    assert host.play(LINK1) == [LINK1]
    assert host.filter.shown(host.state.network.interfaces[2]) == {}


def test_a_name_may_fall_out_of_the_lists_and_in_again() -> None:
    host = Host(deny=["wwan*"])
    host.play(LINK1, FIRST)

    assert host.play(link(name="wwan0")) == [
        DeleteLocalAddress(2, "10.0.1.1"),
        DeleteInterface(2),
    ]
    assert host.filter.shown(host.state.network.interfaces[2]) is None
    assert host.play(NewLocalAddress(2, "10.0.1.9", 24)) == []
    assert host.play(link(name="link1")) == [LINK1, FIRST, NewLocalAddress(2, "10.0.1.9", 24)]


def test_a_name_that_stays_within_the_lists_is_an_update() -> None:
    host = Host(allow=["link*"])
    host.play(LINK1, FIRST)

    assert host.play(link(name="link7")) == [link(name="link7")]


@pytest.mark.parametrize(
    ("allow", "deny", "shown"),
    [
        ("", "", True),
        ("link1", "", True),
        ("name:link?", "", True),
        ("eth*", "", False),
        ("eth* kind:ether", "", True),
        ("kind:veth", "", False),
        ("", "name:link1", False),
        ("", "kind:eth*", False),
        ("link1", "link1", False),
    ],
)
def test_lists_show_interfaces_by_name_and_kind_and_deny_wins(
    allow: str, deny: str, shown: bool
) -> None:
    host = Host(allow=allow.split(), deny=deny.split())

    assert host.play(LINK1, FIRST) == ([LINK1, FIRST] if shown else [])


@pytest.mark.parametrize("name", ["kind", "prefix", "name"])
def test_an_interface_may_be_called_like_a_kind_of_pattern(name: str) -> None:
    host = Host(allow=[name])
    interface = NewInterface(2, name, "ether", up=True, running=True)

    assert host.play(interface) == [interface]


@pytest.mark.parametrize(
    ("allow", "deny", "shown"),
    [
        ("prefix:10.0.0.0/8", "", ["10.0.1.1"]),
        ("prefix:fd00::/8", "", []),
        ("prefix:10.0.0.0/8 prefix:fe80::/10", "", ["10.0.1.1", "fe80::1"]),
        ("", "prefix:10.0.1.0/24", ["fe80::1"]),
        ("prefix:10.0.0.0/8", "prefix:10.0.1.1/32", []),
        ("link1 prefix:10.0.0.0/8", "", ["10.0.1.1"]),
    ],
)
def test_a_prefix_chooses_addresses_and_leaves_the_interface(
    allow: str, deny: str, shown: list[str]
) -> None:
    host = Host(allow=allow.split(), deny=deny.split())

    told = host.play(LINK1, FIRST, LINK_LOCAL)

    assert told[0] == LINK1
    assert [e.address for e in told if isinstance(e, NewLocalAddress)] == shown


@pytest.mark.parametrize(
    ("allow", "deny", "shown"),
    [("", "", False), ("*", "", False), ("* lo", "", True), ("lo", "kind:loopback", False)],
)
def test_loopback_is_shown_only_where_its_very_name_is_allowed(
    allow: str, deny: str, shown: bool
) -> None:
    host = Host(allow=allow.split(), deny=deny.split())

    assert host.play(LOOPBACK, HOST_LOCAL) == ([LOOPBACK, HOST_LOCAL] if shown else [])


@pytest.mark.parametrize(
    ("flag", "skipped", "hidden"),
    [("skip_link_local", "fe80::1", LINK_LOCAL), ("skip_loopback", "127.0.0.1", HOST_LOCAL)],
)
def test_addresses_of_a_narrow_scope_are_skipped_if_the_flag_says_so(
    flag: str, skipped: str, hidden: NewLocalAddress
) -> None:
    history = (LINK1, LOOPBACK, FIRST, LINK_LOCAL, HOST_LOCAL)

    assert Host(allow=["*", "lo"]).play(*history) == list(history)
    host = Host(flag, allow=["*", "lo"])
    assert host.play(*history) == [e for e in history if e is not hidden]
    assert host.play(DeleteLocalAddress(hidden.interface_index, skipped)) == []


def test_an_address_is_told_when_a_route_leads_out_of_it_and_withdrawn_with_the_route() -> None:
    host = Host("check_route")

    assert host.play(LINK1, FIRST) == [LINK1]
    assert host.play(ROUTED) == [FIRST]
    assert host.play(NOT_ROUTED) == [DeleteLocalAddress(2, "10.0.1.1")]
    assert host.play(DeleteLocalAddress(2, "10.0.1.1")) == []


def test_an_address_that_comes_back_must_be_routed_anew() -> None:
    host = Host("check_route")
    host.play(LINK1, FIRST, ROUTED)

    assert host.play(DeleteLocalAddress(2, "10.0.1.1"), FIRST) == [
        DeleteLocalAddress(2, "10.0.1.1")
    ]
    assert host.play(ROUTED) == [FIRST]


def test_without_the_flag_routes_do_not_matter() -> None:
    assert Host().play(LINK1, FIRST, ROUTED, NOT_ROUTED) == [LINK1, FIRST]


@pytest.mark.parametrize("flags", ["", "existing"])
def test_existing_addresses_are_told_at_the_start_only_with_the_flag(flags: str) -> None:
    host = Host(flags)
    for what in (LINK1, FIRST):
        host.state.apply(what)

    assert host.filter.take(None) == [LINK1, FIRST]
    assert host.filter.existing() == ([LINK1, FIRST] if flags else [LINK1])
    assert host.play(FIRST) == []
    assert host.play(DeleteLocalAddress(2, "10.0.1.1")) == [DeleteLocalAddress(2, "10.0.1.1")]


def test_what_changed_unheard_is_told_when_everything_is_compared() -> None:
    host = Host()
    host.play(LINK1, FIRST)
    for what in (DeleteLocalAddress(2, "10.0.1.1"), DeleteInterface(2), LOOPBACK):
        host.state.apply(what)

    assert host.filter.take(None) == [DeleteLocalAddress(2, "10.0.1.1"), DeleteInterface(2)]
    assert host.filter.take(None) == []


def test_other_rules_tell_the_difference_only() -> None:
    host = Host()
    host.play(LINK1, FIRST, LINK_LOCAL)
    configure = host.filter.reconfigure

    assert configure(frozenset({"skip_link_local"}), [], []) == [DeleteLocalAddress(2, "fe80::1")]
    assert configure(frozenset(), [], ["prefix:10.0.0.0/8"]) == [
        DeleteLocalAddress(2, "10.0.1.1"),
        LINK_LOCAL,
    ]
    assert configure(frozenset(), ["eth0"], []) == [
        DeleteLocalAddress(2, "fe80::1"),
        DeleteInterface(2),
    ]
    assert configure(frozenset({"existing"}), [], []) == [LINK1, FIRST, LINK_LOCAL]
    assert configure(frozenset(), [], []) == []


# Any history, against a model that knows the rules one by one.

INDICES = st.sampled_from([1, 2, 3])
NAMES = st.sampled_from(["lo", "eth0", "eth1", "wwan0"])
ADDRESSES = st.sampled_from(["10.0.1.1", "10.9.0.1", "127.0.0.1", "fe80::1", "fd00::1"])
LINKS = {
    "index": INDICES,
    "name": NAMES,
    "kind": st.sampled_from(["ether", "veth", "loopback"]),
}
TRAITS = st.sampled_from([NO_TRAITS, *AddressTrait])
HAPPENINGS: st.SearchStrategy[Happening] = st.one_of(
    st.builds(NewInterface, **LINKS),
    st.builds(UpdateInterface, **LINKS),
    st.builds(DeleteInterface, INDICES),
    st.builds(NewLocalAddress, INDICES, ADDRESSES, st.sampled_from([24, 32]), TRAITS),
    st.builds(DeleteLocalAddress, INDICES, ADDRESSES),
    st.builds(AddressTraitsRead, INDICES, ADDRESSES, TRAITS),
    st.builds(RoutedAddressesRead, st.frozensets(st.tuples(INDICES, ADDRESSES))),
)
PATTERNS = st.lists(
    st.sampled_from(
        ["eth*", "lo", "name:wwan0", "kind:veth", "prefix:10.0.0.0/8", "prefix:fd00::/8"]
    ),
    max_size=3,
)
RULES = st.tuples(
    st.frozensets(st.sampled_from(["existing", "skip_link_local", "skip_loopback", "check_route"])),
    PATTERNS,
    PATTERNS,
)
Rules = tuple[frozenset[str], list[str], list[str]]


@dataclass
class Policy:
    """What a policy believes that hears only what it is told; each word must make sense to it."""

    links: dict[int, tuple[str, str, bool, bool]] = field(default_factory=dict)
    addresses: set[tuple[int, str]] = field(default_factory=set)

    def hear(self, told: list[NetworkEvent]) -> None:
        """Believe it; a KeyError or an AssertionError is a word that makes no sense."""
        for event in told:
            match event:
                case NewInterface(index):
                    assert index not in self.links
                    self.links[index] = (event.name, event.kind, event.up, event.running)
                case UpdateInterface(index):
                    facts = (event.name, event.kind, event.up, event.running)
                    assert self.links[index] != facts
                    self.links[index] = facts
                case DeleteInterface(index):
                    assert not any(i == index for i, _ in self.addresses)
                    del self.links[index]
                case NewLocalAddress(index, address):
                    assert index in self.links
                    assert (index, address) not in self.addresses
                    self.addresses.add((index, address))
                case DeleteLocalAddress(index, address):
                    self.addresses.remove((index, address))


def visible(rules: Rules, interface: Interface) -> bool:
    _, allow, deny = rules

    def fits(pattern: str) -> bool:
        word, _, rest = pattern.rpartition(":")
        value = {"": interface.name, "name": interface.name, "kind": interface.kind}[word]
        return fnmatchcase(value, rest)

    allow, deny = ([p for p in ps if not p.startswith("prefix:")] for ps in (allow, deny))
    if interface.kind == "loopback" and not {interface.name, f"name:{interface.name}"} & {*allow}:
        return False
    return not any(map(fits, deny)) and (not allow or any(map(fits, allow)))


def visible_address(rules: Rules, interface: Interface, address: str) -> bool:
    flags, allow, deny = rules
    traits = interface.traits[address]

    def within(pattern: str) -> bool:
        return ip_address(address) in ip_network(pattern.removeprefix("prefix:"))

    allow, deny = ([p for p in ps if p.startswith("prefix:")] for ps in (allow, deny))
    return (
        not ("skip_link_local" in flags and AddressTrait.LINK_SCOPE in traits)
        and not ("skip_loopback" in flags and AddressTrait.HOST_SCOPE in traits)
        and not ("check_route" in flags and address not in interface.routed)
        and not any(map(within, deny))
        and (not allow or any(map(within, allow)))
    )


@given(first=RULES, history=st.lists(st.one_of(HAPPENINGS, RULES), max_size=60))
def test_policies_are_told_of_exactly_what_they_are_shown(
    first: Rules, history: list[Happening | Rules]
) -> None:
    host, policy, rules = Host(), Policy(), first
    host.filter = NetworkFilter(host.state.network, *rules)
    for what in history:
        if isinstance(what, tuple):
            rules = what
            policy.hear(host.filter.reconfigure(*rules))
        else:
            policy.hear(host.play(what))

        shown = [i for i in host.state.network.interfaces.values() if visible(rules, i)]
        assert policy.links == {i.index: (i.name, i.kind, i.up, i.running) for i in shown}
        assert policy.addresses == {
            (i.index, a) for i in shown for a in i.addresses if visible_address(rules, i, a)
        }
        for interface in host.state.network.interfaces.values():
            expected = {
                a: n
                for a, n in interface.addresses.items()
                if (interface.index, a) in policy.addresses
            }
            seen = host.filter.shown(interface)
            assert seen == (expected if interface in shown else None)

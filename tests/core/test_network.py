"""Who owns an address when several interfaces have it, and interfaces by name."""
# SPDX-License-Identifier: BSD-3-Clause

import pytest

from mptcpd_dbus.core.errors import InvalidArgument
from mptcpd_dbus.core.network import NO_TRAITS, AddressTrait, Interface, Network


def _network() -> tuple[Network, Interface, Interface]:
    network = Network()
    for index, name in ((2, "link1"), (3, "link2")):
        network.interfaces[index] = Interface(index, name, "ether", up=True, running=True)
    return network, network.interfaces[2], network.interfaces[3]


def test_of_several_interfaces_with_an_address_the_first_owns_it() -> None:
    network, link1, link2 = _network()
    network.add_address(link2, "10.0.1.1", 24)
    network.add_address(link1, "10.0.1.1", 24)

    assert network.owner("10.0.1.1") is link2
    network.remove_address(link2, "10.0.1.1")
    assert network.owner("10.0.1.1") is link1
    network.remove_address(link1, "10.0.1.1")
    assert network.owner("10.0.1.1") is None


def test_an_address_that_is_told_twice_goes_at_once() -> None:
    network, link1, _ = _network()
    network.add_address(link1, "10.0.1.1", 24)
    network.add_address(link1, "10.0.1.1", 16)

    network.remove_address(link1, "10.0.1.1")

    assert network.owner("10.0.1.1") is None


def test_an_interface_is_found_by_its_name() -> None:
    network, _, link2 = _network()

    assert network.by_name("link2") is link2


def test_an_unknown_interface_is_named_in_the_error() -> None:
    network, *_ = _network()

    with pytest.raises(InvalidArgument, match="no network interface 'eth9'"):
        network.by_name("eth9")


def test_what_is_said_of_an_address_goes_with_it() -> None:
    network, link1, _ = _network()
    network.add_address(link1, "fd00::1", 64, AddressTrait.DEPRECATED | AddressTrait.TEMPORARY)
    network.add_address(link1, "10.0.1.1", 24)
    link1.routed = frozenset({"fd00::1", "10.0.1.1"})
    assert link1.deprecated == {"fd00::1"}

    network.remove_address(link1, "fd00::1")

    assert link1.traits == {"10.0.1.1": NO_TRAITS}
    assert link1.routed == {"10.0.1.1"}
    assert link1.deprecated == set()

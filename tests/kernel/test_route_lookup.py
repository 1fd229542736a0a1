"""Which addresses have a way out, judged by the real kernel's routes, rules and tables."""
# SPDX-License-Identifier: BSD-3-Clause

import socket
from collections.abc import Iterator

import pytest

from mptcpd_dbus.kernel.netlink_socket import RefusedError
from mptcpd_dbus.kernel.route_lookup import RouteLookup
from tests.kernel.host import Host

pytestmark = pytest.mark.real_kernel
FAMILIES = pytest.mark.parametrize("version", [4, 6])


class Links:
    """Two interfaces, one address of each family on each, and no default route."""

    ADDRESSES = ({4: "10.0.1.1", 6: "fd00:1::1"}, {4: "10.0.2.1", 6: "fd00:2::1"})
    GATEWAYS = ({4: "10.0.1.2", 6: "fd00:1::2"}, {4: "10.0.2.2", 6: "fd00:2::2"})

    def __init__(self, host: Host) -> None:
        self.run = host.run
        for name, addresses in zip(("link1", "link2"), self.ADDRESSES, strict=True):
            host.run(f"ip link add {name} type veth peer name {name}peer")
            host.run(f"ip link set {name} up")
            host.run(f"ip link set {name}peer up")
            host.run(f"ip addr add {addresses[4]}/24 dev {name}")
            host.run(f"ip addr add {addresses[6]}/64 dev {name} nodad")
        self.indices = [socket.if_nametoindex(f"link{n}") for n in (1, 2)]
        self.lookup = RouteLookup()

    def routed(self, version: int) -> list[bool]:
        """Whether the address of each link has a way out over its link."""
        return [
            self.lookup.is_routed(index, addresses[version])
            for index, addresses in zip(self.indices, self.ADDRESSES, strict=True)
        ]


@pytest.fixture
def links(host: Host) -> Iterator[Links]:
    """Set the links up."""
    made = Links(host)
    yield made
    made.lookup.close()


@FAMILIES
def test_without_a_default_route_there_is_no_way_out(links: Links, version: int) -> None:
    assert links.routed(version) == [False, False]


@FAMILIES
def test_each_address_is_looked_up_over_its_own_interface(links: Links, version: int) -> None:
    links.run(f"ip -{version} route add default via {links.GATEWAYS[0][version]}")
    assert links.routed(version) == [True, False]

    links.run(f"ip -{version} route add default via {links.GATEWAYS[1][version]} metric 2000")
    assert links.routed(version) == [True, True]


@FAMILIES
@pytest.mark.parametrize("kind", ["unreachable", "prohibit", "blackhole", "throw"])
def test_a_route_that_leads_nowhere_is_no_way_out(links: Links, version: int, kind: str) -> None:
    links.run(f"ip -{version} route add {kind} default")

    assert links.routed(version) == [False, False]


@FAMILIES
def test_a_rule_decides_by_the_source_address(links: Links, version: int) -> None:
    for gateways in links.GATEWAYS:
        links.run(f"ip -{version} route append default via {gateways[version]} table 100")
    assert links.routed(version) == [False, False]

    links.run(f"ip -{version} rule add from {links.ADDRESSES[1][version]} table 100")
    assert links.routed(version) == [False, True]

    links.run(f"ip -{version} rule add from {links.ADDRESSES[1][version]} prohibit priority 5")
    assert links.routed(version) == [False, False]


@FAMILIES
def test_a_route_over_several_hops_leads_out_over_each(links: Links, version: int) -> None:
    one, two = (gateways[version] for gateways in links.GATEWAYS)
    links.run(f"ip -{version} route add default nexthop via {one} nexthop via {two}")

    assert links.routed(version) == [True, True]


@FAMILIES
def test_a_more_specific_route_is_not_the_default_one(links: Links, version: int) -> None:
    everywhere = ("0.0.0.0/1", "128.0.0.0/1") if version == 4 else ("2000::/3",)
    for network in everywhere:
        links.run(f"ip -{version} route add {network} dev link1")

    assert links.routed(version) == [False, False]


def test_an_address_or_an_interface_that_is_not_there_has_no_way_out(links: Links) -> None:
    links.run("ip -4 route add default via 10.0.1.2")

    assert links.lookup.is_routed(links.indices[0], "10.0.1.1")
    assert not links.lookup.is_routed(links.indices[0], "10.0.1.77")
    assert not links.lookup.is_routed(9999, "10.0.1.1")


def test_a_question_that_got_no_answer_is_not_a_no(links: Links) -> None:
    links.lookup.close()

    with pytest.raises(RefusedError):
        links.lookup.is_routed(links.indices[0], "10.0.1.1")

"""What policies are told on the real kernel: each notify flag, flaps, renaming, late routes."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from mptcpd_dbus.core.events import (
    DeleteInterface,
    DeleteLocalAddress,
    EventsLost,
    NetworkEvent,
    NewInterface,
    NewLocalAddress,
    UpdateInterface,
)
from mptcpd_dbus.core.readings import DefaultRoutesRead
from mptcpd_dbus.core.state import State
from mptcpd_dbus.kernel.rtnl import RouteMonitor, Told
from mptcpd_dbus.policy.network_filter import NetworkFilter
from tests.kernel.host import Host
from tests.lab.wait import eventually

pytestmark = pytest.mark.real_kernel


class Watched:
    """A host's network as a policy hears of it: `start` at the daemon's start, then `told`."""

    def __init__(self, flags: str, allow: str) -> None:
        self.state = State()
        self.filter = NetworkFilter(
            self.state.network, frozenset(flags.split()), allow.split(), ["name:far*"]
        )
        self.monitor = RouteMonitor(self._take)
        self.start: list[NetworkEvent] = []
        self.told: list[NetworkEvent] = []
        self._started = False

    async def begin(self) -> None:
        """Start as the daemon does: first the whole state, then policies."""
        await self.monitor.start()
        self.filter.take(None)
        self.start = self.filter.existing()
        self._started = True

    def addresses(self, what: list[NetworkEvent]) -> list[str]:
        """Give the addresses that are told as new."""
        return [e.address for e in what if isinstance(e, NewLocalAddress)]

    def gone(self) -> list[str]:
        """Give the addresses that were withdrawn."""
        return [e.address for e in self.told if isinstance(e, DeleteLocalAddress)]

    def _take(self, what: Told) -> None:
        if isinstance(what, DeleteInterface):
            for implied in self.state.implied_by(what):
                assert isinstance(implied, DeleteLocalAddress)
                self._take(implied)
        changed = self.state.apply(what) is not None
        if changed and self._started and not isinstance(what, EventsLost | DefaultRoutesRead):
            self.told += self.filter.take(what)


Watch = Callable[..., Awaitable[Watched]]


@pytest.fixture
async def watch(host: Host) -> AsyncIterator[Watch]:
    """Set up `near`, a link with a carrier and two addresses, and watch it with given flags."""
    host.run("sysctl -q net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.keep_addr_on_down=1")
    host.run("ip link add near type veth peer name far")
    host.run("ip link set far up")
    host.run("ip link set near up")
    host.run("ip addr add 10.0.0.1/24 dev near")
    host.run("ip addr add fd00::1/64 dev near")
    made: list[Watched] = []

    async def begin(flags: str = "", allow: str = "") -> Watched:
        watched = Watched(flags, allow)
        made.append(watched)
        await watched.begin()
        return watched

    yield begin
    for watched in made:
        await watched.monitor.close()


def index() -> int:
    return socket.if_nametoindex("near")


async def test_without_flags_the_start_tells_interfaces_and_later_all_that_comes(
    host: Host, watch: Watch
) -> None:
    watched = await watch()
    assert watched.start == [NewInterface(index(), "near", "veth", up=True, running=True)]

    host.run("ip addr add 169.254.7.7/16 dev near scope link")
    host.run("ip addr add 10.8.0.8/24 dev near scope host")
    await eventually(lambda: "10.8.0.8" in watched.addresses(watched.told))

    assert "169.254.7.7" in watched.addresses(watched.told)


async def test_existing_tells_the_addresses_at_the_start(watch: Watch) -> None:
    watched = await watch("existing")

    assert {"10.0.0.1", "fd00::1"} <= set(watched.addresses(watched.start))
    assert "127.0.0.1" not in watched.addresses(watched.start)


async def test_skip_link_local_skips_by_scope(host: Host, watch: Watch) -> None:
    watched = await watch("existing skip_link_local")

    host.run("ip addr add 169.254.7.7/16 dev near scope link")
    host.run("ip addr add 10.0.0.9/24 dev near")
    await eventually(lambda: watched.addresses(watched.told) == ["10.0.0.9"])

    assert sorted(watched.addresses(watched.start)) == ["10.0.0.1", "fd00::1"]


@pytest.mark.parametrize("flag", ["", "skip_loopback"])
async def test_skip_loopback_skips_by_scope(host: Host, watch: Watch, flag: str) -> None:
    watched = await watch(f"existing {flag}", "near lo")

    host.run("ip addr add 10.8.0.8/24 dev near scope host")
    host.run("ip addr add 10.0.0.9/24 dev near")
    await eventually(lambda: "10.0.0.9" in watched.addresses(watched.told))

    assert ("10.8.0.8" in watched.addresses(watched.told)) == (not flag)
    assert ("127.0.0.1" in watched.addresses(watched.start)) == (not flag)


async def test_check_route_waits_for_a_route_however_late_and_withdraws_with_it(
    host: Host, watch: Watch
) -> None:
    watched = await watch("existing check_route skip_link_local")
    assert watched.addresses(watched.start) == []
    host.run("ip addr add 10.0.0.9/24 dev near")
    await eventually(lambda: "10.0.0.9" in watched.state.network.interfaces[index()].addresses)
    clock = asyncio.get_running_loop().time
    noticed = clock()
    await eventually(lambda: clock() > noticed + 0.1)  # a route may come late, as DHCP's does
    assert watched.told == []

    host.run("ip route add default via 10.0.0.2")
    await eventually(lambda: set(watched.addresses(watched.told)) == {"10.0.0.1", "10.0.0.9"})
    host.run("ip route del default via 10.0.0.2")
    await eventually(lambda: set(watched.gone()) == {"10.0.0.1", "10.0.0.9"})
    host.run("ip addr del 10.0.0.9/24 dev near")
    await eventually(lambda: "10.0.0.9" not in watched.state.network.interfaces[index()].addresses)

    addresses = [e for e in watched.told if not isinstance(e, UpdateInterface)]
    assert len(addresses) == 4


async def test_check_route_sees_a_route_that_is_there_at_the_start(
    host: Host, watch: Watch
) -> None:
    host.run("ip route add default via 10.0.0.2")

    watched = await watch("existing check_route")

    assert watched.addresses(watched.start) == ["10.0.0.1"]


async def test_check_route_counts_a_rule_for_the_source(host: Host, watch: Watch) -> None:
    watched = await watch("existing check_route")
    host.run("ip addr add 10.0.0.9/24 dev near")
    host.run("ip route add default via 10.0.0.2 table 100")

    host.run("ip rule add from 10.0.0.9 table 100")

    await eventually(lambda: watched.addresses(watched.told) == ["10.0.0.9"])


async def test_a_flap_of_the_carrier_keeps_the_addresses(host: Host, watch: Watch) -> None:
    watched = await watch("existing")
    up = UpdateInterface(index(), "near", "veth", up=True, running=True)
    lost = UpdateInterface(index(), "near", "veth", up=True, running=False)

    host.run("ip link set far down")
    await eventually(lambda: watched.told == [lost])
    host.run("ip link set far up")
    await eventually(lambda: up in watched.told)

    assert watched.gone() == []
    host.run("ip addr del 10.0.0.1/24 dev near")  # a daemon that forgot it would not tell
    await eventually(lambda: watched.gone() == ["10.0.0.1"])


async def test_a_link_that_is_lost_is_told_after_its_addresses(host: Host, watch: Watch) -> None:
    watched = await watch("existing")
    number = index()

    host.run("ip link del near")
    await eventually(lambda: DeleteInterface(number) in watched.told)

    assert set(watched.gone()) == set(watched.addresses(watched.start))
    assert watched.told[-1] == DeleteInterface(number)


async def test_a_new_name_is_followed_and_may_hide_the_interface(host: Host, watch: Watch) -> None:
    watched = await watch("existing")
    number = index()

    host.run("ip link set near name other")
    renamed = UpdateInterface(number, "other", "veth", up=True, running=True)
    await eventually(lambda: watched.told == [renamed])
    host.run("ip link set other name farther")
    await eventually(lambda: DeleteInterface(number) in watched.told)
    assert set(watched.gone()) == set(watched.addresses(watched.start))

    host.run("ip link set farther name near")
    await eventually(
        lambda: NewInterface(number, "near", "veth", up=True, running=True) in watched.told
    )
    assert "10.0.0.1" in watched.addresses(watched.told)


async def test_our_address_of_a_point_to_point_link_is_told_and_not_the_peers(
    host: Host, watch: Watch
) -> None:
    watched = await watch()

    host.run("ip addr add 10.1.0.1 peer 10.1.0.2/32 dev near")
    await eventually(lambda: watched.addresses(watched.told) == ["10.1.0.1"])
    host.run("ip addr del 10.1.0.1 peer 10.1.0.2/32 dev near")

    await eventually(lambda: watched.gone() == ["10.1.0.1"])


async def test_a_bridge_and_its_ports_are_interfaces_like_others(host: Host, watch: Watch) -> None:
    watched = await watch()
    host.run("ip link add bridge type bridge")
    host.run("ip link set near master bridge")
    host.run("ip link set bridge up")

    def up() -> list[UpdateInterface]:
        return [
            e
            for e in watched.told
            if isinstance(e, UpdateInterface) and e.name == "bridge" and e.up and e.running
        ]

    bridge = (await eventually(up))[0]
    host.run("ip addr add 10.2.0.1/24 dev bridge")
    await eventually(lambda: NewLocalAddress(bridge.index, "10.2.0.1", 24) in watched.told)
    host.run("ip link del bridge")
    await eventually(lambda: DeleteInterface(bridge.index) in watched.told)

    assert not any(isinstance(e, DeleteInterface) and e.index == index() for e in watched.told)

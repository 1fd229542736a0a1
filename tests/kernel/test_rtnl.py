"""Proves on the real kernel that changes of the network are told, once, and after a loss too."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import resource
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from mptcpd_dbus.core.events import (
    DeleteInterface,
    DeleteLocalAddress,
    EventsLost,
    NewInterface,
    NewLocalAddress,
    UpdateInterface,
)
from mptcpd_dbus.core.network import AddressTrait
from mptcpd_dbus.core.readings import AddressTraitsRead, DefaultRoutesRead, RoutedAddressesRead
from mptcpd_dbus.kernel.rtnl import RouteMonitor, Told
from tests.kernel.host import Host
from tests.lab.wait import eventually

pytestmark = pytest.mark.real_kernel
LOOPBACK = 1
HOST, LINK = AddressTrait.HOST_SCOPE, AddressTrait.LINK_SCOPE
DEPRECATED = AddressTrait.DEPRECATED


@pytest.fixture
def told() -> list[Told]:
    """Collect what is told."""
    return []


@pytest.fixture
async def monitor(host: Host, told: list[Told]) -> AsyncIterator[RouteMonitor]:
    """Watch the host, which has loopback only."""
    del host  # it must only be there first
    made = RouteMonitor(told.append)
    await made.start()
    yield made
    await made.close()


async def add_veth(host: Host, told: list[Told]) -> int:
    """Add an interface with a carrier; return its index."""
    host.run("ip link add v0 type veth peer name v1")
    host.run("ip link set v0 up")
    host.run("ip link set v1 up")

    def running() -> list[int]:
        return [
            e.index for e in told if isinstance(e, UpdateInterface) and e.name == "v0" and e.running
        ]

    return (await eventually(running))[0]


async def add_quiet_veth(host: Host, told: list[Told]) -> int:
    """Add an interface of which nothing more is told by itself; return its index."""
    host.run("sysctl -q net.ipv6.conf.default.addr_gen_mode=1")  # no link-local address
    index = await add_veth(host, told)
    await idle()
    return index


async def idle() -> None:
    """Wait until this process has nothing to do."""

    async def quiet() -> bool:
        start = resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.sleep(0.2)
        end = resource.getrusage(resource.RUSAGE_SELF)
        return end.ru_nvcsw - start.ru_nvcsw < 5

    assert await eventually(quiet)


def default_routes(told: list[Told]) -> frozenset[tuple[int, int, int]]:
    """Give the default routes as told last."""
    return [r.routes for r in told if isinstance(r, DefaultRoutesRead)][-1]


def routed(told: list[Told]) -> set[tuple[int, str]]:
    """Give the addresses with a way out as told last."""
    readings = [r.addresses for r in told if isinstance(r, RoutedAddressesRead)]
    return set(readings[-1]) if readings else set()


@pytest.mark.usefixtures("monitor")
async def test_the_start_tells_all_that_is_there(told: list[Told]) -> None:
    assert NewInterface(LOOPBACK, "lo", "loopback", up=True, running=True) in told
    assert NewLocalAddress(LOOPBACK, "127.0.0.1", 8, HOST) in told
    assert NewLocalAddress(LOOPBACK, "::1", 128, HOST) in told
    assert DefaultRoutesRead(frozenset()) in told


@pytest.mark.usefixtures("monitor")
async def test_an_interface_is_told_from_birth_to_end(host: Host, told: list[Told]) -> None:
    index = await add_veth(host, told)
    host.run("ip link set v0 down")
    host.run("ip link set v0 name other")
    host.run("ip link del other")
    await eventually(lambda: DeleteInterface(index) in told)

    life = [e for e in told if getattr(e, "index", 0) == index]
    assert life[0] == NewInterface(index, "v0", "veth", up=False, running=False)
    assert UpdateInterface(index, "v0", "veth", up=True, running=True) in life
    assert UpdateInterface(index, "other", "veth", up=False, running=False) in life
    assert life[-1] == DeleteInterface(index)
    assert len(set(life)) > 4
    assert all(a != b for a, b in pairwise(life))


@pytest.mark.usefixtures("monitor")
async def test_joining_and_leaving_a_bridge_changes_nothing_of_an_interface(
    host: Host, told: list[Told]
) -> None:
    index = await add_veth(host, told)
    before = [e for e in told if getattr(e, "index", 0) == index]

    host.run("ip link add bridge type bridge")
    host.run("ip link set v0 master bridge")
    host.run("ip link set v0 nomaster")
    host.run("ip link del bridge")
    await eventually(lambda: any(isinstance(e, DeleteInterface) for e in told))

    assert [e for e in told if getattr(e, "index", 0) == index] == before


@pytest.mark.usefixtures("monitor")
async def test_the_local_address_of_a_point_to_point_link_is_ours(
    host: Host, told: list[Told]
) -> None:
    host.run("ip addr add 10.1.0.1 peer 10.1.0.2/32 dev lo")
    await eventually(lambda: NewLocalAddress(LOOPBACK, "10.1.0.1", 32) in told)

    host.run("ip addr del 10.1.0.1 peer 10.1.0.2/32 dev lo")
    await eventually(lambda: DeleteLocalAddress(LOOPBACK, "10.1.0.1") in told)

    assert "10.1.0.2" not in str(told)


@pytest.mark.usefixtures("monitor")
async def test_an_address_is_there_until_its_last_prefix_is_gone(
    host: Host, told: list[Told]
) -> None:
    host.run("ip addr add 10.1.0.1/24 dev lo")
    host.run("ip addr add 10.1.0.1/32 dev lo")
    host.run("ip addr del 10.1.0.1/24 dev lo")
    host.run("ip addr add 10.1.0.9/32 dev lo")
    await eventually(lambda: NewLocalAddress(LOOPBACK, "10.1.0.9", 32) in told)
    assert DeleteLocalAddress(LOOPBACK, "10.1.0.1") not in told

    host.run("ip addr del 10.1.0.1/32 dev lo")

    await eventually(lambda: DeleteLocalAddress(LOOPBACK, "10.1.0.1") in told)


@pytest.mark.usefixtures("monitor")
async def test_a_tentative_address_is_not_there_yet(host: Host, told: list[Told]) -> None:
    index = await add_veth(host, told)
    there = NewLocalAddress(index, "fd00::1", 64)

    host.run("ip link set v1 down")  # without a carrier the address stays tentative
    await eventually(
        lambda: UpdateInterface(index, "v0", "veth", up=True, running=False) in told[-2:]
    )
    host.run("ip addr add fd00::1/64 dev v0")
    host.run("ip addr add fd00::2/64 nodad dev lo")
    await eventually(lambda: NewLocalAddress(LOOPBACK, "fd00::2", 64) in told)
    assert there not in told

    host.run("ip link set v1 up")

    await eventually(lambda: there in told)


@pytest.mark.usefixtures("monitor")
async def test_default_routes_follow_routes_and_links(host: Host, told: list[Told]) -> None:
    index = await add_veth(host, told)
    host.run("ip addr add 10.0.0.1/24 dev v0")
    host.run("ip addr add fd00::1/64 nodad dev v0")

    host.run("ip route add default via 10.0.0.2")
    await eventually(lambda: DefaultRoutesRead(frozenset({(index, 4, 0)})) in told)
    host.run("ip route add default via fd00::2")
    await eventually(lambda: default_routes(told) == {(index, 4, 0), (index, 6, 1024)})
    host.run("ip route add default via 10.0.0.3 table 100")
    host.run("ip -6 route add unreachable default metric 9")
    host.run("ip link set v0 down")  # takes the IPv4 route without a message

    await eventually(lambda: default_routes(told) == set())


@pytest.mark.usefixtures("monitor")
async def test_the_lowest_metric_of_an_interface_counts(host: Host, told: list[Told]) -> None:
    index = await add_veth(host, told)
    host.run("ip addr add 10.0.0.1/24 dev v0")

    host.run("ip route add default via 10.0.0.2 metric 600")
    await eventually(lambda: default_routes(told) == {(index, 4, 600)})
    host.run("ip route add default via 10.0.0.3 metric 100")
    await eventually(lambda: default_routes(told) == {(index, 4, 100)})


@pytest.mark.usefixtures("monitor")
async def test_a_route_goes_with_its_source_address(host: Host, told: list[Told]) -> None:
    index = await add_veth(host, told)
    host.run("ip addr add 10.0.0.1/24 dev v0")
    host.run("ip addr add 10.0.5.1/24 dev v0")
    host.run("ip route add default via 10.0.0.2 src 10.0.5.1")
    await eventually(lambda: default_routes(told) == {(index, 4, 0)})

    host.run("ip addr del 10.0.5.1/24 dev v0")

    await eventually(lambda: default_routes(told) == set())


@pytest.mark.usefixtures("monitor")
async def test_a_default_route_over_several_hops_uses_all_their_interfaces(
    host: Host, told: list[Told]
) -> None:
    index = await add_veth(host, told)
    host.run("ip addr add 10.0.0.1/24 dev v0")
    host.run("ip addr add 10.0.1.1/24 dev lo")

    host.run("ip route add default nexthop via 10.0.0.2 nexthop dev lo")

    await eventually(
        lambda: DefaultRoutesRead(frozenset({(index, 4, 0), (LOOPBACK, 4, 0)})) in told
    )


@pytest.mark.usefixtures("monitor")
async def test_an_interface_that_comes_back_with_its_index_has_its_routes_told_again(
    host: Host, told: list[Told]
) -> None:
    async def both_told() -> None:
        await eventually(lambda: DefaultRoutesRead(frozenset({(77, 4, 0)})) in told)
        await eventually(lambda: RoutedAddressesRead(frozenset({(77, "10.0.0.1")})) in told)

    def appear() -> None:
        host.run("ip link add v0 index 77 type veth peer name v1 index 78")
        host.run("ip link set v1 up")
        host.run("ip addr add 10.0.0.1/24 dev v0")
        host.run("ip link set v0 up")
        host.run("ip route add default via 10.0.0.2")

    host.run("sysctl -q net.ipv6.conf.default.addr_gen_mode=1")
    appear()
    await both_told()
    await idle()
    told.clear()

    host.run("ip link del v0")
    appear()  # before anybody looks at the routes

    await both_told()
    assert DeleteInterface(77) in told


@pytest.mark.usefixtures("monitor")
async def test_an_address_that_comes_has_the_way_out_that_is_there(
    host: Host, told: list[Told]
) -> None:
    index = await add_quiet_veth(host, told)
    host.run("ip addr add 10.0.0.1/24 dev v0")
    host.run("ip route add default via 10.0.0.2")
    await eventually(lambda: routed(told) == {(index, "10.0.0.1")})
    await idle()

    host.run("ip addr add 10.0.0.3/24 dev v0")
    await eventually(lambda: (index, "10.0.0.3") in routed(told))
    await idle()
    told.clear()
    for change in ("del", "add"):  # before anybody looks at the routes
        host.run(f"ip addr {change} 10.0.0.3/24 dev v0")

    await eventually(lambda: (index, "10.0.0.3") in routed(told))
    assert DeleteLocalAddress(index, "10.0.0.3") in told


@pytest.mark.usefixtures("monitor")
async def test_an_address_has_a_way_out_as_long_as_the_route_is_there(
    host: Host, told: list[Told]
) -> None:
    index = await add_quiet_veth(host, told)
    ours = {(index, "10.0.0.1"), (index, "fd00::1")}
    host.run("ip addr add 10.0.0.1/24 dev v0")
    host.run("ip addr add fd00::1/64 nodad dev v0")
    await eventually(lambda: "fd00::1" in str(told))
    assert routed(told) == set()

    host.run("ip route add default via 10.0.0.2")
    host.run("ip route add default via fd00::2")
    await eventually(lambda: ours <= routed(told))

    host.run("ip route del default via 10.0.0.2")
    host.run("ip route del default via fd00::2")
    await eventually(lambda: not ours & routed(told))


@pytest.mark.usefixtures("monitor")
async def test_a_rule_for_a_source_address_gives_it_a_way_out(host: Host, told: list[Told]) -> None:
    index = await add_quiet_veth(host, told)
    for family, one, other, gateway in (
        ("-4", "10.0.0.1", "10.0.0.3", "10.0.0.2"),
        ("-6", "fd00::1", "fd00::3", "fd00::2"),
    ):
        host.run(f"ip addr add {one}/24 dev v0" + " nodad" * (family == "-6"))
        host.run(f"ip addr add {other}/24 dev v0" + " nodad" * (family == "-6"))
        host.run(f"ip {family} route add default via {gateway} table 100")
        await eventually(lambda: other in str(told))  # noqa: B023 - waited for within the turn
        await idle()
        assert routed(told) == set()

        host.run(f"ip {family} rule add from {one} table 100")
        await eventually(lambda: routed(told) == {(index, one)})  # noqa: B023 - likewise

        await idle()
        host.run(f"ip {family} rule del from {one} table 100")
        await eventually(lambda: routed(told) == set())


@pytest.mark.usefixtures("monitor")
async def test_a_way_out_goes_with_the_next_hop_that_its_route_uses(
    host: Host, told: list[Told]
) -> None:
    index = await add_quiet_veth(host, told)
    host.run("ip addr add 10.0.0.1/24 dev v0")
    host.run("ip nexthop add id 1 via 10.0.0.2 dev v0")
    host.run("ip route add default nhid 1")
    await eventually(lambda: (index, "10.0.0.1") in routed(told))
    await idle()

    host.run("ip nexthop del id 1")  # takes the IPv4 route without a message

    await eventually(lambda: routed(told) == set())
    await eventually(lambda: default_routes(told) == set())


@pytest.mark.usefixtures("monitor")
async def test_a_way_out_goes_with_the_link_and_comes_with_its_route(
    host: Host, told: list[Told]
) -> None:
    index = await add_quiet_veth(host, told)
    host.run("ip addr add 10.0.0.1/24 dev v0")
    host.run("ip route add default via 10.0.0.2")
    await eventually(lambda: (index, "10.0.0.1") in routed(told))

    host.run("ip link set v0 down")
    await eventually(lambda: (index, "10.0.0.1") not in routed(told))
    host.run("ip link set v0 up")
    host.run("ip route add default via 10.0.0.2")
    await eventually(lambda: (index, "10.0.0.1") in routed(told))

    assert DeleteLocalAddress(index, "10.0.0.1") not in told


async def test_hundreds_of_addresses_are_looked_up_while_other_things_go_on(
    host: Host, told: list[Told]
) -> None:
    host.run("ip link add v0 index 77 type veth peer name v1")
    host.run("ip link set v1 up")
    host.run("ip link set v0 up")
    for n in range(500):
        host.run(f"ip addr add 10.0.{n // 250}.{n % 250 + 1}/16 dev v0")
    monitor = RouteMonitor(told.append)
    await monitor.start()
    loop = asyncio.get_running_loop()
    turns: list[float] = []

    host.run("ip route add default via 10.0.9.9")

    async def all_routed() -> bool:
        turns.append(loop.time())
        return len([a for i, a in routed(told) if i == 77 and ":" not in a]) == 500

    while not await all_routed():
        await asyncio.sleep(0)
        assert turns[-1] - turns[0] < 5
    pauses = sorted(later - earlier for earlier, later in pairwise(turns))
    assert len(pauses) > 500  # a turn for each of them
    assert pauses[len(pauses) // 2] < 0.005
    await monitor.close()


@pytest.mark.usefixtures("monitor")
async def test_an_address_that_is_no_longer_preferred_is_told_as_such(
    host: Host, told: list[Told]
) -> None:
    index = await add_veth(host, told)
    for address in ("10.0.0.1/24", "fd00::1/64"):
        text, _, length = address.partition("/")
        told.clear()
        host.run(f"ip addr add {address} dev v0" + " nodad" * (":" in address))
        await eventually(lambda: NewLocalAddress(index, text, int(length)) in told)  # noqa: B023 - waited for within the turn

        host.run(f"ip addr change {address} dev v0 preferred_lft 0")
        await eventually(lambda: AddressTraitsRead(index, text, DEPRECATED) in told)  # noqa: B023 - likewise
        host.run(f"ip addr change {address} dev v0 preferred_lft forever")
        await eventually(lambda: AddressTraitsRead(index, text, AddressTrait(0)) in told)  # noqa: B023 - likewise

        assert len([e for e in told if isinstance(e, NewLocalAddress) and e.address == text]) == 1


@pytest.mark.usefixtures("monitor")
async def test_an_address_may_be_deprecated_from_its_birth(host: Host, told: list[Told]) -> None:
    host.run("ip addr add 10.1.0.1/32 dev lo preferred_lft 0")
    await eventually(lambda: NewLocalAddress(LOOPBACK, "10.1.0.1", 32, DEPRECATED) in told)

    host.run("ip addr del 10.1.0.1/32 dev lo")
    await eventually(lambda: DeleteLocalAddress(LOOPBACK, "10.1.0.1") in told)


@pytest.mark.usefixtures("monitor")
async def test_a_lifetime_that_ends_deprecates_and_then_removes(
    host: Host, told: list[Told]
) -> None:
    host.run("ip addr add fd00::1/128 dev lo nodad valid_lft 2 preferred_lft 1")
    await eventually(lambda: NewLocalAddress(LOOPBACK, "fd00::1", 128) in told)

    await eventually(lambda: AddressTraitsRead(LOOPBACK, "fd00::1", DEPRECATED) in told)
    await eventually(lambda: DeleteLocalAddress(LOOPBACK, "fd00::1") in told)


@pytest.mark.usefixtures("monitor")
async def test_the_scope_is_the_kernels_word(host: Host, told: list[Told]) -> None:
    index = await add_veth(host, told)

    host.run("ip addr add 169.254.1.1/16 dev v0 scope link")
    host.run("ip addr add 10.1.0.1/32 dev v0 scope host")
    host.run("ip addr add 10.1.0.2/32 dev v0")
    await eventually(lambda: NewLocalAddress(index, "10.1.0.2", 32) in told)

    assert NewLocalAddress(index, "169.254.1.1", 16, LINK) in told
    assert NewLocalAddress(index, "10.1.0.1", 32, HOST) in told
    await eventually(lambda: _traits(told, "fe80") == {LINK})


def _traits(told: list[Told], begin: str) -> set[AddressTrait]:
    return {
        e.traits for e in told if isinstance(e, NewLocalAddress) and e.address.startswith(begin)
    }


@pytest.mark.usefixtures("monitor")
async def test_a_second_address_of_a_network_is_not_called_temporary(
    host: Host, told: list[Told]
) -> None:
    """IPv4's mark of a secondary address is the bit of IPv6's temporary ones."""
    host.run("ip addr add 10.1.0.1/24 dev lo")
    host.run("ip addr add 10.1.0.2/24 dev lo")

    await eventually(lambda: NewLocalAddress(LOOPBACK, "10.1.0.2", 24) in told)


@pytest.mark.usefixtures("monitor")
async def test_a_temporary_address_is_told_as_such(host: Host, told: list[Told]) -> None:
    index = await add_veth(host, told)
    host.run("sysctl -q net.ipv6.conf.v0.use_tempaddr=2")

    host.run("ip addr add fd00::1/64 dev v0 mngtmpaddr nodad")

    def temporary() -> list[NewLocalAddress]:
        return [
            e for e in told if isinstance(e, NewLocalAddress) and e.traits is AddressTrait.TEMPORARY
        ]

    made = await eventually(temporary)
    assert {(a.interface_index, a.prefix_length) for a in made} == {(index, 64)}
    assert NewLocalAddress(index, "fd00::1", 64) in told


async def test_after_an_overflow_the_difference_is_told(host: Host, told: list[Told]) -> None:
    host.run("ip addr add 10.1.0.1/32 dev lo")
    monitor = RouteMonitor(told.append, receive_buffer=1)  # the kernel makes it some messages
    await monitor.start()
    told.clear()

    host.run("ip addr add 10.1.0.2/32 dev lo")
    host.run("ip addr del 10.1.0.1/32 dev lo")
    for n in range(3, 40):  # nobody reads meanwhile
        host.run(f"ip addr add 10.1.0.{n}/32 dev lo")
    await eventually(lambda: EventsLost("rtnetlink") in told)

    new = [e.address for e in told if isinstance(e, NewLocalAddress)]
    assert sorted(new) == sorted(f"10.1.0.{n}" for n in range(2, 40))
    assert told.count(DeleteLocalAddress(LOOPBACK, "10.1.0.1")) == 1
    host.run("ip addr add 10.2.0.1/32 dev lo")
    await eventually(lambda: NewLocalAddress(LOOPBACK, "10.2.0.1", 32) in told)
    await monitor.close()


async def test_after_an_overflow_rules_and_routes_are_looked_at_again(
    host: Host, told: list[Told]
) -> None:
    host.run("sysctl -q net.ipv6.conf.default.addr_gen_mode=1")
    host.run("ip link add v0 index 77 type veth peer name v1")
    host.run("ip link set v1 up")
    host.run("ip addr add 10.0.0.1/24 dev v0")
    host.run("ip link set v0 up")
    host.run("ip route add default via 10.0.0.2 table 100")
    monitor = RouteMonitor(told.append, receive_buffer=1)
    await monitor.start()
    await idle()
    assert routed(told) == set()

    for _ in range(40):  # fill the buffer with what is no reason to look
        host.run("ip route add 172.16.0.0/12 dev v0")
        host.run("ip route del 172.16.0.0/12 dev v0")
    host.run("ip rule add from 10.0.0.1 table 100")
    await eventually(lambda: EventsLost("rtnetlink") in told)

    await eventually(lambda: routed(told) == {(77, "10.0.0.1")})
    await monitor.close()


async def test_without_an_overflow_nothing_is_called_lost(host: Host, told: list[Told]) -> None:
    monitor = RouteMonitor(told.append)
    await monitor.start()

    for n in range(3, 40):
        host.run(f"ip addr add 10.1.0.{n}/32 dev lo")
    await eventually(lambda: NewLocalAddress(LOOPBACK, "10.1.0.39", 32) in told)

    assert EventsLost("rtnetlink") not in told
    await monitor.close()


async def test_a_snapshot_is_what_the_events_say(
    host: Host, monitor: RouteMonitor, told: list[Told]
) -> None:
    await add_veth(host, told)
    host.run("ip addr add 10.0.0.1/24 dev v0")
    await eventually(lambda: "10.0.0.1" in str(told))

    snapshot = await monitor.snapshot()

    assert {i.name for i in snapshot.interfaces} == {"lo", "v0", "v1"}
    assert set(snapshot.addresses) >= {e for e in told if isinstance(e, NewLocalAddress)}
    assert snapshot.default_routes == DefaultRoutesRead(frozenset())


async def test_nothing_is_left_behind_and_nothing_runs_while_idle(
    host: Host, told: list[Told]
) -> None:
    before = asyncio.all_tasks()
    monitor = RouteMonitor(told.append)
    await monitor.start()
    host.run("ip addr add 10.1.0.1/32 dev lo")
    await eventually(lambda: NewLocalAddress(LOOPBACK, "10.1.0.1", 32) in told)

    await idle()

    await monitor.close()
    assert asyncio.all_tasks() == before

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
    NetworkEvent,
    NewInterface,
    NewLocalAddress,
    UpdateInterface,
)
from mptcpd_dbus.core.readings import DefaultRoutesRead
from mptcpd_dbus.kernel.rtnl import RouteMonitor
from tests.kernel.host import Host
from tests.lab.wait import eventually

pytestmark = pytest.mark.real_kernel
Told = list[NetworkEvent | EventsLost | DefaultRoutesRead]
LOOPBACK = 1


@pytest.fixture
def told() -> Told:
    """Collect what is told."""
    return []


@pytest.fixture
async def monitor(host: Host, told: Told) -> AsyncIterator[RouteMonitor]:
    """Watch the host, which has loopback only."""
    del host  # it must only be there first
    made = RouteMonitor(told.append)
    await made.start()
    yield made
    await made.close()


async def add_veth(host: Host, told: Told) -> int:
    """Add an interface with a carrier; return its index."""
    host.run("ip link add v0 type veth peer name v1")
    host.run("ip link set v0 up")
    host.run("ip link set v1 up")

    def running() -> list[int]:
        return [
            e.index for e in told if isinstance(e, UpdateInterface) and e.name == "v0" and e.running
        ]

    return (await eventually(running))[0]


@pytest.mark.usefixtures("monitor")
async def test_the_start_tells_all_that_is_there(told: Told) -> None:
    assert NewInterface(LOOPBACK, "lo", "loopback", up=True, running=True) in told
    assert NewLocalAddress(LOOPBACK, "127.0.0.1", 8) in told
    assert NewLocalAddress(LOOPBACK, "::1", 128) in told
    assert DefaultRoutesRead(frozenset()) in told


@pytest.mark.usefixtures("monitor")
async def test_an_interface_is_told_from_birth_to_end(host: Host, told: Told) -> None:
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
    host: Host, told: Told
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
async def test_the_local_address_of_a_point_to_point_link_is_ours(host: Host, told: Told) -> None:
    host.run("ip addr add 10.1.0.1 peer 10.1.0.2/32 dev lo")
    await eventually(lambda: NewLocalAddress(LOOPBACK, "10.1.0.1", 32) in told)

    host.run("ip addr del 10.1.0.1 peer 10.1.0.2/32 dev lo")
    await eventually(lambda: DeleteLocalAddress(LOOPBACK, "10.1.0.1") in told)

    assert "10.1.0.2" not in str(told)


@pytest.mark.usefixtures("monitor")
async def test_an_address_is_there_until_its_last_prefix_is_gone(host: Host, told: Told) -> None:
    host.run("ip addr add 10.1.0.1/24 dev lo")
    host.run("ip addr add 10.1.0.1/32 dev lo")
    host.run("ip addr del 10.1.0.1/24 dev lo")
    host.run("ip addr add 10.1.0.9/32 dev lo")
    await eventually(lambda: NewLocalAddress(LOOPBACK, "10.1.0.9", 32) in told)
    assert DeleteLocalAddress(LOOPBACK, "10.1.0.1") not in told

    host.run("ip addr del 10.1.0.1/32 dev lo")

    await eventually(lambda: DeleteLocalAddress(LOOPBACK, "10.1.0.1") in told)


@pytest.mark.usefixtures("monitor")
async def test_a_tentative_address_is_not_there_yet(host: Host, told: Told) -> None:
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
async def test_default_routes_follow_routes_and_links(host: Host, told: Told) -> None:
    index = await add_veth(host, told)
    host.run("ip addr add 10.0.0.1/24 dev v0")
    host.run("ip addr add fd00::1/64 nodad dev v0")

    host.run("ip route add default via 10.0.0.2")
    await eventually(lambda: DefaultRoutesRead(frozenset({(index, 4)})) in told)
    host.run("ip route add default via fd00::2")
    await eventually(lambda: told[-1] == DefaultRoutesRead(frozenset({(index, 4), (index, 6)})))
    host.run("ip route add default via 10.0.0.3 table 100")
    host.run("ip -6 route add unreachable default metric 9")
    host.run("ip link set v0 down")  # takes the IPv4 route without a message

    await eventually(lambda: DefaultRoutesRead(frozenset()) in told[-9:])


@pytest.mark.usefixtures("monitor")
async def test_a_route_goes_with_its_source_address(host: Host, told: Told) -> None:
    index = await add_veth(host, told)
    host.run("ip addr add 10.0.0.1/24 dev v0")
    host.run("ip addr add 10.0.5.1/24 dev v0")
    host.run("ip route add default via 10.0.0.2 src 10.0.5.1")
    await eventually(lambda: told[-1] == DefaultRoutesRead(frozenset({(index, 4)})))

    host.run("ip addr del 10.0.5.1/24 dev v0")

    await eventually(lambda: told[-1] == DefaultRoutesRead(frozenset()))


@pytest.mark.usefixtures("monitor")
async def test_a_default_route_over_several_hops_uses_all_their_interfaces(
    host: Host, told: Told
) -> None:
    index = await add_veth(host, told)
    host.run("ip addr add 10.0.0.1/24 dev v0")
    host.run("ip addr add 10.0.1.1/24 dev lo")

    host.run("ip route add default nexthop via 10.0.0.2 nexthop dev lo")

    await eventually(lambda: DefaultRoutesRead(frozenset({(index, 4), (LOOPBACK, 4)})) in told)


async def test_after_an_overflow_the_difference_is_told(host: Host, told: Told) -> None:
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


async def test_without_an_overflow_nothing_is_called_lost(host: Host, told: Told) -> None:
    monitor = RouteMonitor(told.append)
    await monitor.start()

    for n in range(3, 40):
        host.run(f"ip addr add 10.1.0.{n}/32 dev lo")
    await eventually(lambda: NewLocalAddress(LOOPBACK, "10.1.0.39", 32) in told)

    assert EventsLost("rtnetlink") not in told
    await monitor.close()


async def test_a_snapshot_is_what_the_events_say(
    host: Host, monitor: RouteMonitor, told: Told
) -> None:
    await add_veth(host, told)
    host.run("ip addr add 10.0.0.1/24 dev v0")
    await eventually(lambda: "10.0.0.1" in str(told))

    snapshot = await monitor.snapshot()

    assert {i.name for i in snapshot.interfaces} == {"lo", "v0", "v1"}
    assert set(snapshot.addresses) >= {e for e in told if isinstance(e, NewLocalAddress)}
    assert snapshot.default_routes == DefaultRoutesRead(frozenset())


async def test_nothing_is_left_behind_and_nothing_runs_while_idle(host: Host, told: Told) -> None:
    before = asyncio.all_tasks()
    monitor = RouteMonitor(told.append)
    await monitor.start()
    host.run("ip addr add 10.1.0.1/32 dev lo")
    await eventually(lambda: NewLocalAddress(LOOPBACK, "10.1.0.1", 32) in told)

    async def quiet() -> bool:
        start = resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.sleep(0.2)
        end = resource.getrusage(resource.RUSAGE_SELF)
        return end.ru_nvcsw - start.ru_nvcsw < 5

    assert await eventually(quiet)
    await monitor.close()
    assert asyncio.all_tasks() == before

"""Address IDs and listeners: who has which, for how long, and what a failed join does to them."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import errno
from dataclasses import replace

import pytest

from mptcpd_dbus.core import commands, errors, readings
from mptcpd_dbus.core.subflow_wish import SubflowWish
from mptcpd_dbus.core.types import AddressEntry, AddressFlag, FourTuple
from mptcpd_dbus.testing import JOINED, Answer
from tests.lab.wait import eventually
from tests.world import FIRST, SECOND_ADDRESS, TOKEN, WISH, World


@pytest.fixture(name="world")
async def _world() -> World:
    return World()


async def test_all_subflows_from_one_address_share_its_id_and_a_source_port_has_its_own(
    world: World,
) -> None:
    connection = world.connect()

    for wish in (WISH, WISH, replace(WISH, local_port=5000), SubflowWish("", 0, "10.0.3.1")):
        await world.pm.create_subflow(connection, wish)

    assert [c.local.id for c in world.executed(commands.SubflowCreate)] == [1, 1, 2, 3]


async def test_an_id_that_the_kernel_gave_away_meanwhile_is_not_given_out(world: World) -> None:
    connection = world.connect()
    world.kernel.open[TOKEN].ids[1] = AddressEntry("10.0.3.1", 1, flags=AddressFlag.IMPLICIT)

    subflow = await world.pm.create_subflow(connection, WISH)

    assert subflow.local_id == 2


@pytest.mark.parametrize("local_port", [0, 6000])
async def test_an_announced_address_keeps_its_entry_when_a_join_from_it_cannot_be_sent(
    world: World, local_port: int
) -> None:
    connection = world.connect()
    announced = await world.pm.announce_address(connection, SECOND_ADDRESS, address_id=5)
    world.kernel.answers[80] = Answer.NO_ROUTE

    for join in (world.pm.create_subflow, world.pm.send_join):
        with pytest.raises(errors.KernelRefused):
            await join(connection, replace(WISH, local_port=local_port))

        assert world.kernel.open[TOKEN].ids[5].flags & AddressFlag.SIGNAL
        assert connection.local_addresses[5].address == announced.address


async def test_an_announced_address_keeps_its_entry_when_a_join_from_it_times_out(
    world: World,
) -> None:
    connection = world.connect()
    await world.pm.announce_address(connection, SECOND_ADDRESS, address_id=5)
    world.kernel.answers[80] = Answer.SILENT

    with pytest.raises(errors.SubflowFailed):
        await world.pm.create_subflow(connection, WISH, seconds=0.01)

    assert 5 in world.kernel.open[TOKEN].ids


async def test_an_address_that_was_removed_while_a_join_waited_stays_removed(
    world: World,
) -> None:
    connection = world.connect()
    await world.pm.announce_address(connection, SECOND_ADDRESS)
    world.kernel.answers[80] = Answer.SILENT
    join = asyncio.ensure_future(world.pm.create_subflow(connection, WISH))
    await eventually(lambda: world.executed(commands.SubflowCreate))

    await world.pm.remove_address(connection, 1)
    (row,) = world.kernel.pending_joins(TOKEN, SECOND_ADDRESS, *FIRST[2:])
    world.kernel.end_subflow(TOKEN, row.four_tuple, errno.ECONNREFUSED)

    with pytest.raises(errors.SubflowFailed):
        await join
    assert world.kernel.open[TOKEN].ids == {}


async def test_an_id_whose_entry_a_failed_join_took_along_can_still_be_removed(
    world: World,
) -> None:
    connection = world.connect()
    await world.pm.create_subflow(connection, WISH)
    world.kernel.answers[81] = Answer.NO_ROUTE
    with pytest.raises(errors.KernelRefused):
        await world.pm.create_subflow(connection, replace(WISH, remote_port=81))
    assert world.kernel.open[TOKEN].ids == {}

    await world.pm.remove_address(connection, 1)

    assert set(connection.subflows) == {FIRST}


async def test_the_same_address_gets_the_same_id_after_a_failed_join_took_its_entry(
    world: World,
) -> None:
    connection = world.connect()
    await world.pm.create_subflow(connection, WISH)
    world.kernel.answers[81] = Answer.NO_ROUTE
    with pytest.raises(errors.KernelRefused):
        await world.pm.create_subflow(connection, replace(WISH, remote_port=81))

    other = await world.pm.create_subflow(connection, replace(WISH, local_address="10.0.3.1"))
    same = await world.pm.create_subflow(connection, WISH)

    assert (other.local_id, same.local_id) == (2, 1)


# Listeners.


async def test_a_listener_lives_from_the_first_user_to_the_last(world: World) -> None:
    one = world.connect()
    two = world.connect(TOKEN + 1, FIRST._replace(local_port=4001))
    place = (SECOND_ADDRESS, 8080)
    for connection in (one, two):
        await world.pm.announce_address(connection, SECOND_ADDRESS, port=8080)
    assert world.state.listeners == {place: 1}

    await world.pm.remove_address(one, 1)
    assert place in world.state.listeners

    world.kernel.close(TOKEN + 1)
    assert place not in world.state.listeners


async def test_a_listener_goes_with_its_connection_even_if_its_id_has_gone_before(
    world: World,
) -> None:
    connection = world.connect()
    await world.pm.announce_address(connection, SECOND_ADDRESS)
    await world.pm.destroy_subflow(await world.pm.create_subflow(connection, WISH))
    assert connection.local_addresses == {}
    assert world.kernel.own_listeners

    world.kernel.close(TOKEN)

    assert world.kernel.own_listeners == {}


async def test_an_announced_port_wants_a_listener_of_its_own_and_a_wildcard_will_not_do(
    world: World,
) -> None:
    connection = world.connect(server_side=True)
    world.kernel.app_listeners.add(("0.0.0.0", 8080))  # noqa: S104 - nothing is bound

    await world.pm.announce_address(connection, SECOND_ADDRESS, port=8080)

    assert set(world.kernel.own_listeners) == {(SECOND_ADDRESS, 8080)}


@pytest.mark.parametrize(
    ("wildcard", "mapped", "opened"),
    [("0.0.0.0", False, False), ("::", True, False), ("::", False, True)],  # noqa: S104 - no bind
)
async def test_an_address_without_a_port_is_served_by_what_covers_the_connections_port(
    world: World, wildcard: str, mapped: bool, opened: bool
) -> None:
    connection = world.connect(server_side=True, mapped=mapped)
    world.kernel.app_listeners.add((wildcard, FIRST.local_port))

    await world.pm.announce_address(connection, SECOND_ADDRESS)

    assert bool(world.kernel.own_listeners) is opened


async def test_no_listener_is_opened_for_whom_wants_none(world: World) -> None:
    connection = world.connect()

    await world.pm.announce_address(connection, SECOND_ADDRESS, listener=False)

    assert world.kernel.own_listeners == {}


async def test_an_announcement_that_is_refused_leaves_no_listener(world: World) -> None:
    connection = world.connect()
    await world.pm.announce_address(connection, "10.0.3.1", address_id=7, listener=False)
    await world.pm.announce_address(connection, SECOND_ADDRESS, address_id=3, listener=False)

    with pytest.raises(errors.KernelRefused, match="did not match"):
        await world.pm.announce_address(connection, SECOND_ADDRESS, address_id=8)

    assert world.kernel.own_listeners == {}


async def test_after_a_restart_what_was_announced_is_listened_on_again(world: World) -> None:
    world.connect()
    ids = world.kernel.open[TOKEN].ids
    ids[1] = AddressEntry(SECOND_ADDRESS, 1, 8080, AddressFlag.SIGNAL)
    ids[2] = AddressEntry("10.0.3.1", 2, 0, AddressFlag.SUBFLOW)
    world.engine.take(readings.LocalAddressesRead(TOKEN, tuple(ids.values())))

    assert world.pm.adopt_announced() == []

    assert world.kernel.own_listeners == {(SECOND_ADDRESS, 8080): {(1, "10.0.2.1", 8080): 1}}


async def test_a_listener_that_cannot_be_opened_again_is_reported(world: World) -> None:
    world.connect()
    entry = AddressEntry(SECOND_ADDRESS, 1, 80, AddressFlag.SIGNAL)
    world.engine.take(readings.LocalAddressesRead(TOKEN, (entry,)))
    refusal = errors.KernelRefused("listen", errno.EACCES, "no")

    def deny(*_: object) -> None:
        raise refusal

    world.kernel.open_listener = deny  # type: ignore[method-assign,assignment] # it denies

    assert world.pm.adopt_announced() == [refusal]


async def test_an_ipv6_port_is_announced_only_where_timestamps_leave_room(world: World) -> None:
    connection = world.connect()

    with pytest.raises(errors.NotReady, match=r"net\.ipv4\.tcp_timestamps=0"):
        await world.pm.announce_address(connection, "fd00::2", port=8080)
    assert world.kernel.executed == []

    world.kernel.timestamps = False
    announced = await world.pm.announce_address(connection, "fd00::2", port=8080)
    assert (announced.address, announced.port) == ("fd00::2", 8080)


async def test_an_address_is_announced_again_under_its_own_id(world: World) -> None:
    connection = world.connect()

    first = await world.pm.announce_address(connection, SECOND_ADDRESS)
    again = await world.pm.announce_address(connection, SECOND_ADDRESS)

    assert again is first


# Counters.


async def test_counters_are_read_on_demand_and_are_none_for_what_is_gone(world: World) -> None:
    connection = world.connect()
    subflow = connection.subflows[FIRST]
    assert world.pm.statistics(connection) == {"subflows_total": 1}
    assert world.pm.subflow_statistics(subflow) is not None

    world.kernel.abort(TOKEN)

    assert world.pm.statistics(connection) is None
    assert world.pm.subflow_statistics(subflow) is None


async def test_a_peers_join_under_an_unknown_id_is_learnt_with_its_address(world: World) -> None:
    connection = world.connect()
    four_tuple = FourTuple(SECOND_ADDRESS, 80, "10.0.8.1", 5000)
    row = replace(JOINED, token=TOKEN, four_tuple=four_tuple, local_id=1)

    world.kernel.answer(row, Answer.ACCEPTED)

    assert connection.local_addresses[1].address == SECOND_ADDRESS

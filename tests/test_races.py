"""What happens between a question and its answer: joins, removals, IDs, endpoints, late events."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import errno
from collections import deque
from dataclasses import replace
from typing import Any

import pytest

from mptcpd_dbus.core import commands, errors, events, readings
from mptcpd_dbus.core.types import AddressEntry, AddressFlag
from mptcpd_dbus.reconciler import Reconciler
from mptcpd_dbus.testing import Answer
from tests.lab.wait import eventually
from tests.world import FIRST, SECOND_ADDRESS, TOKEN, WISH, World

OTHER = FIRST._replace(local_port=4001)
THIRD_ADDRESS = "10.0.3.1"


@pytest.fixture(name="world")
async def _world() -> World:
    return World()


def _pending(world: World) -> list[readings.SubflowRead]:
    return world.kernel.pending_joins(TOKEN, SECOND_ADDRESS, *FIRST[2:])


# Addresses.


async def test_an_address_is_not_announced_again_after_its_removal_by_a_join_that_fails_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = world.connect()
    await world.pm.announce_address(connection, SECOND_ADDRESS, address_id=5)
    world.kernel.answers[80] = Answer.NO_ROUTE
    execute, sent, answered = world.kernel.execute, asyncio.Event(), asyncio.Event()

    async def slow(command: commands.Command) -> None:
        if isinstance(command, commands.SubflowCreate):
            await sent.wait()
        await execute(command)
        if isinstance(command, commands.Remove):
            await answered.wait()

    monkeypatch.setattr(world.kernel, "execute", slow)
    join = asyncio.ensure_future(world.pm.create_subflow(connection, WISH))
    await asyncio.sleep(0)
    removal = asyncio.ensure_future(world.pm.remove_address(connection, 5))
    await eventually(lambda: world.executed(commands.Remove))

    sent.set()
    with pytest.raises(errors.KernelRefused):
        await join
    answered.set()
    await removal

    assert world.kernel.open[TOKEN].ids == {}
    assert len(world.executed(commands.Announce)) == 1


async def test_addresses_are_announced_to_a_kernel_that_shows_no_table_of_ids(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen = readings.LocalAddressesRead(TOKEN, (), table=False)
    monkeypatch.setattr(world.kernel, "local_addresses", lambda _: unseen)
    connection = world.connect()

    first = await world.pm.announce_address(connection, SECOND_ADDRESS)
    second = await world.pm.announce_address(connection, THIRD_ADDRESS)
    world.engine.take(unseen)

    assert (first.address, second.address) == (SECOND_ADDRESS, THIRD_ADDRESS)
    assert connection.local_addresses == {first.id: first, second.id: second}
    assert first.id != second.id
    assert set(world.kernel.open[TOKEN].ids) == {first.id, second.id}

    await world.pm.remove_address(connection, first.id)
    assert connection.local_addresses == {second.id: second}


async def test_an_announcement_refused_for_its_id_leaves_the_ids_owner_as_it_was(
    world: World,
) -> None:
    connection = world.connect()
    await world.pm.announce_address(connection, SECOND_ADDRESS, port=8080, address_id=5)

    with pytest.raises(errors.KernelRefused, match="did not match"):
        await world.pm.announce_address(connection, THIRD_ADDRESS, port=8081, address_id=5)

    assert set(world.kernel.own_listeners) == {(SECOND_ADDRESS, 8080)}
    # What is remembered is announced anew to be withdrawn, where the kernel has lost it.
    del world.kernel.open[TOKEN].ids[5]
    await world.pm.remove_address(connection, 5)
    assert world.executed(commands.Announce)[-1].local.address == SECOND_ADDRESS
    assert world.kernel.own_listeners == {}


# Joins.


async def test_a_timeout_ends_no_older_join_between_the_same_addresses(world: World) -> None:
    connection = world.connect()
    world.kernel.answers[80] = Answer.SILENT
    await world.pm.send_join(connection, WISH)
    (older,) = _pending(world)

    with pytest.raises(errors.SubflowFailed, match="timed out"):
        await world.pm.create_subflow(connection, WISH, seconds=0.01)

    assert len(world.executed(commands.SubflowCreate)) == 2
    assert _pending(world) == [older]


async def test_the_failure_of_an_older_join_between_the_same_addresses_is_not_the_newers(
    world: World,
) -> None:
    connection = world.connect()
    world.kernel.answers[80] = Answer.SILENT
    await world.pm.send_join(connection, WISH)
    (older,) = _pending(world)
    join = asyncio.ensure_future(world.pm.create_subflow(connection, WISH))
    await eventually(lambda: len(_pending(world)) == 2)

    world.kernel.end_subflow(TOKEN, older.four_tuple, errno.ECONNREFUSED)
    (newer,) = _pending(world)
    world.kernel.answer(newer, Answer.ACCEPTED)

    assert (await join).four_tuple == newer.four_tuple


async def test_a_join_whose_turn_comes_after_its_connection_is_not_sent_on_a_stranger(
    world: World,
) -> None:
    connection = world.connect()
    world.kernel.answers[80] = Answer.SILENT
    first = asyncio.ensure_future(world.pm.create_subflow(connection, WISH))
    await eventually(lambda: _pending(world))
    waiting = asyncio.ensure_future(world.pm.create_subflow(connection, WISH, seconds=2))
    await asyncio.sleep(0)

    world.kernel.close(TOKEN)
    world.connect(TOKEN, OTHER)

    with pytest.raises(errors.SubflowFailed, match="closed meanwhile"):
        await first
    with pytest.raises(errors.NoSuchConnection, match="closed meanwhile"):
        await waiting
    assert len(world.executed(commands.SubflowCreate)) == 1


async def test_a_join_that_was_seen_but_never_accepted_is_destroyed_when_time_is_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = world.connect()

    def half_made(row: readings.SubflowRead, _: Answer) -> None:
        world.kernel.put(replace(row, state=1))
        world.engine.take(events.NewSubflow(TOKEN, row.four_tuple, row.local_id))

    monkeypatch.setattr(world.kernel, "answer", half_made)

    with pytest.raises(errors.SubflowFailed, match="timed out"):
        await world.pm.create_subflow(connection, WISH, seconds=0.05)

    assert len(world.executed(commands.SubflowDestroy)) == 1
    assert set(world.kernel.open[TOKEN].subflows) == set(connection.subflows) == {FIRST}


async def test_a_connection_that_fell_back_takes_no_join_and_the_error_names_it(
    world: World,
) -> None:
    connection = world.connect()
    made = world.kernel.open[TOKEN]
    world.engine.take(replace(made.row, fallback=True))

    for join in (world.pm.create_subflow, world.pm.send_join):
        with pytest.raises(errors.NotReady, match="a889fad4 has fallen back to plain TCP"):
            await join(connection, WISH)

    assert world.kernel.executed == []


# Endpoints.


async def test_a_command_on_an_endpoint_never_reaches_another_that_got_its_id(
    world: World,
) -> None:
    old = await world.pm.add_endpoint(AddressEntry(SECOND_ADDRESS))
    await world.kernel.execute(commands.DelAddr(old.id))  # by somebody else
    await world.kernel.execute(commands.AddAddr(AddressEntry(THIRD_ADDRESS, old.id)))
    world.kernel.executed.clear()

    with pytest.raises(errors.NoSuchEndpoint, match=SECOND_ADDRESS):
        await world.pm.remove_endpoint(old)
    with pytest.raises(errors.NoSuchEndpoint, match=SECOND_ADDRESS):
        await world.pm.set_endpoint_flags(old, AddressFlag.BACKUP)

    assert world.kernel.executed == []
    assert world.state.endpoints[old.id] is not old
    assert world.state.endpoints[old.id].entry.address == THIRD_ADDRESS


# What is completed and compared.


async def test_a_connection_whose_details_could_not_be_read_is_completed_with_the_next_batch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up, failures = world.kernel.connection, deque([OSError(errno.ENOBUFS, "no buffer space")])

    def connection_row(token: int) -> readings.ConnectionRead | None:
        if failures:
            raise failures.popleft()
        return look_up(token)

    monkeypatch.setattr(world.kernel, "connection", connection_row)
    connection = world.connect()
    assert (connection.uid, connection.path_manager) == (None, "")

    world.engine.batch([])

    assert (connection.uid, connection.path_manager) == (1000, "userspace")


async def test_a_listener_whose_event_is_still_queued_is_counted_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue: list[events.Event] = []
    world.kernel.on_event = queue.append
    dump, place = world.kernel.listeners, (SECOND_ADDRESS, 8080)

    def opened_just_before() -> Any:
        world.kernel.open_listener("somebody", *place, frozenset())
        return dump()

    def drain() -> None:
        world.engine.batch(queue)
        queue.clear()

    monkeypatch.setattr(world.kernel, "listeners", opened_just_before)

    await Reconciler(world.engine, drain).compare()
    drain()

    assert world.heard == [events.ListenerCreated(*place)]
    assert world.state.listeners == {place: 1}

"""The walk of an event through the engine: the order, what is completed, and when it is sent."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from dataclasses import replace

import pytest

from mptcpd_dbus.core import events, readings
from mptcpd_dbus.core.state import Change, State
from mptcpd_dbus.core.types import AddressEntry, ConnectionState, FourTuple
from mptcpd_dbus.engine import Engine
from mptcpd_dbus.reconciler import Reconciler
from mptcpd_dbus.testing import FakeKernel
from tests.core.example import ROW
from tests.lab.wait import eventually
from tests.world import FIRST, TOKEN, World

CLOSE_WAIT = 8
OTHER = FourTuple("10.0.1.1", 4001, "10.0.9.1", 80)


async def test_what_is_heard_is_published_in_order_and_sent_once_per_batch() -> None:
    world = World()
    batch: list[events.Event] = [
        events.NewConnection(TOKEN, FIRST),
        events.ConnectionEstablished(TOKEN, FIRST),
        events.ConnectionClosed(TOKEN),
    ]

    world.engine.batch(batch)

    assert world.heard == batch
    assert world.flushes == 1


async def test_single_events_are_sent_at_the_end_of_the_turn() -> None:
    world = World()

    for event in (events.NewConnection(TOKEN, FIRST), events.ConnectionEstablished(TOKEN, FIRST)):
        world.engine.take(event)
    assert world.flushes == 0
    await asyncio.sleep(0)

    assert world.flushes == 1


async def test_an_event_that_teaches_nothing_is_not_published() -> None:
    world = World()

    world.engine.batch([events.ConnectionClosed(TOKEN)])

    assert world.heard == []


async def test_a_connection_that_outlives_its_batch_is_completed() -> None:
    world = World()
    made = world.kernel.connect(TOKEN, FIRST)
    made.ids[3] = AddressEntry("10.0.2.1", 3)
    world.engine.settle()

    connection = world.state.connections[TOKEN]
    assert (connection.uid, connection.cgroup, connection.path_manager) == (1000, 1, "userspace")
    assert set(connection.local_addresses) == {3}


async def test_a_connection_that_ends_with_its_batch_is_not_asked_about() -> None:
    world = World()
    asked: list[int] = []
    world.kernel.local_addresses = asked.append  # type: ignore[method-assign,assignment] # a spy
    both: list[events.Event] = [events.NewConnection(TOKEN, FIRST), events.ConnectionClosed(TOKEN)]

    world.engine.batch(both)
    assert asked == []

    world.engine.batch(both[:1])  # control
    assert asked == [TOKEN]


async def test_a_connection_that_is_gone_before_it_is_completed_does_no_harm() -> None:
    world = World()

    world.engine.batch([events.NewConnection(TOKEN, FIRST)])

    assert world.state.connections[TOKEN].uid is None


async def test_a_look_up_that_fails_costs_its_connection_nothing_but_the_details(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()

    def fail(_: int) -> None:
        raise OSError(105, "no buffer space")

    monkeypatch.setattr(world.kernel, "local_addresses", fail)

    world.engine.batch([events.NewConnection(TOKEN, FIRST)])

    assert world.state.connections[TOKEN].path_manager == ""
    assert world.heard == [events.NewConnection(TOKEN, FIRST)]
    assert world.flushes == 1


async def test_a_token_used_again_closes_the_old_connection_first() -> None:
    world = World()
    world.engine.batch([events.NewConnection(TOKEN, FIRST)])

    world.engine.batch([events.NewConnection(TOKEN, OTHER)])

    assert world.heard == [
        events.NewConnection(TOKEN, FIRST),
        events.ConnectionClosed(TOKEN),
        events.NewConnection(TOKEN, OTHER),
    ]
    assert world.state.connections[TOKEN].four_tuple == OTHER


async def test_a_vanished_interface_loses_its_addresses_first() -> None:
    world = World()
    world.link(2, "link1", "10.0.1.1", "fd00::1")

    world.engine.batch([events.DeleteInterface(2)])

    assert world.heard[-3:] == [
        events.DeleteLocalAddress(2, "10.0.1.1"),
        events.DeleteLocalAddress(2, "fd00::1"),
        events.DeleteInterface(2),
    ]


async def test_a_reading_is_shown_and_has_no_signal() -> None:
    world = World()

    world.engine.batch([readings.LimitsRead(4, 4)])

    assert world.heard == []
    assert [change.changed for change in world.shown] == [(world.state,)]


async def test_the_first_connection_after_a_sweep_found_none_wakes_it_and_others_do_not() -> None:
    world = World()
    wake = world.engine.wake

    for _ in range(2):
        world.connect()
        assert wake.is_set()
        wake.clear()

        world.connect(TOKEN + 1, OTHER)
        assert not wake.is_set()
        for token in (TOKEN, TOKEN + 1):
            world.kernel.close(token)
        world.connect()
        assert not wake.is_set()

        world.kernel.close(TOKEN)
        await Reconciler(world.engine, lambda: None).compare()


async def test_a_connection_that_a_command_has_read_before_gets_its_user_when_it_settles() -> None:
    world = World(settle_time=0.02)
    world.kernel.connect(TOKEN, FIRST)
    connection = world.state.connections[TOKEN]

    world.engine.take(readings.LocalAddressesRead(TOKEN, ()))
    assert (connection.path_manager, connection.uid) == ("userspace", None)

    await eventually(lambda: connection.uid == 1000)


async def test_a_doubted_connection_is_noted_and_wakes_the_sweep() -> None:
    world = World()

    world.engine.doubt(TOKEN)

    assert world.engine.doubted == {TOKEN}
    assert world.engine.wake.is_set()


async def test_an_engine_without_a_publisher_keeps_the_state_all_the_same() -> None:
    engine = Engine(State(), FakeKernel())

    engine.batch([events.NewConnection(TOKEN, FIRST), readings.LimitsRead(4, 4)])

    assert TOKEN in engine.state.connections


def _shown(world: World) -> list[object]:
    return [thing for change in world.shown for thing in change.added]


async def test_a_connection_is_shown_with_all_that_it_has_once_it_has_settled() -> None:
    world = World(settle_time=0.02)
    made = world.kernel.connect(TOKEN, FIRST)
    made.ids[3] = AddressEntry("10.0.2.1", 3)
    world.engine.take(events.NewAddress(TOKEN, 7, "10.0.9.2", 80))
    world.engine.settle()
    connection = world.state.connections[TOKEN]
    assert len(world.heard) == 3  # what happens is told at once
    assert _shown(world) == []
    assert connection.uid is None  # nobody has asked the kernel yet

    await eventually(lambda: _shown(world) != [])

    its = (connection.subflows[FIRST], *connection.local_addresses.values())
    assert _shown(world) == [connection, *its, *connection.remote_addresses.values()]
    assert connection.uid == 1000


async def test_a_connection_that_closes_before_it_has_settled_is_never_shown() -> None:
    world = World(settle_time=0.02)
    asked: list[int] = []
    world.kernel.local_addresses = asked.append  # type: ignore[method-assign,assignment] # a spy
    world.engine.batch([events.NewConnection(TOKEN, FIRST)])
    world.engine.batch([events.ConnectionClosed(TOKEN)])
    other = events.NewConnection(TOKEN + 1, OTHER)
    world.engine.batch([other])  # control

    await eventually(lambda: _shown(world) != [])

    assert events.ConnectionClosed(TOKEN) in world.heard
    assert asked == [TOKEN + 1]
    assert world.state.connections[TOKEN + 1] in _shown(world)
    assert not any(change.removed for change in world.shown)


async def test_a_connection_that_is_asked_for_is_shown_at_once() -> None:
    world = World(settle_time=60)
    for number in range(4):
        world.engine.take(events.NewConnection(TOKEN + number, FIRST))
    world.engine.settle()
    one, two, *others = world.state.connections.values()

    world.engine.announce_now(one.number)
    assert [thing for thing in _shown(world) if thing in (one, two)] == [one]
    flushes = world.flushes
    world.engine.announce(two.number)  # with what is told next
    assert world.flushes == flushes
    await asyncio.sleep(0)
    assert two in _shown(world)
    assert not set(others) & set(_shown(world))
    await world.engine.announce_all()
    assert set(others) <= set(_shown(world))


async def test_an_established_that_comes_when_the_connection_is_closing_is_told_all_the_same() -> (
    None
):
    world = World()
    world.engine.take(events.NewConnection(TOKEN, FIRST))
    row = replace(ROW, state=CLOSE_WAIT)
    world.engine.take(row)

    world.engine.take(events.ConnectionEstablished(TOKEN, FIRST))
    world.engine.take(events.ConnectionEstablished(TOKEN, FIRST))  # control: this teaches nothing

    assert [type(event) for event in world.heard] == [
        events.NewConnection,
        events.ConnectionEstablished,
    ]
    assert world.state.connections[TOKEN].state is ConnectionState.CLOSING


async def test_a_connection_that_a_program_is_told_of_is_shown_with_the_same_batch() -> None:
    """Also if it is told before the event is shown, for what policies act on comes first."""
    world = World(settle_time=60)
    world.engine.steer_by(InAHurry(world))

    world.engine.batch([events.NewConnection(TOKEN, FIRST)])
    await asyncio.sleep(0)

    assert world.state.connections[TOKEN] in _shown(world)


class InAHurry:
    """Policies that act at once, by a program on the bus."""

    decide = in_a_hurry = True

    def __init__(self, world: World) -> None:
        self._world = world

    def post(self, what: object, change: Change) -> None:
        """Tell the program."""
        if isinstance(what, events.NewConnection) and change.connection is not None:
            self._world.engine.announce(change.connection.number)

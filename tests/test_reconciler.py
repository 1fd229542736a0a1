"""The state made equal to the kernel: at start, after a loss, in sweeps, and never for long."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import gc
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from mptcpd_dbus import reconciler as reconciler_module
from mptcpd_dbus.core import commands, events
from mptcpd_dbus.core.errors import KernelRefused, NotMultipath
from mptcpd_dbus.core.readings import ConnectionRead
from mptcpd_dbus.core.subflow_wish import SubflowWish
from mptcpd_dbus.core.types import AddressEntry, FourTuple
from mptcpd_dbus.reconciler import Reconciler
from mptcpd_dbus.testing import JOINED, Answer
from tests.lab.wait import eventually
from tests.world import FIRST, TOKEN, World

SECOND = FourTuple("10.0.2.1", 5000, "10.0.9.1", 80)
MANY = 10_000

Run = Callable[[], Reconciler]


@pytest.fixture(name="world")
async def _world() -> World:
    return World()


@pytest.fixture(name="deaf")
async def _deaf() -> World:
    """Give a world whose events are all lost."""
    world = World()
    world.kernel.on_event = lambda _: None
    return world


def _reconciler(world: World) -> Reconciler:
    return Reconciler(world.engine, lambda: None)


@pytest.fixture(name="run")
async def _run(deaf: World) -> AsyncIterator[Run]:
    """Give a way to have a reconciler run on the deaf world; it ends with the test."""
    tasks: list[asyncio.Task[None]] = []

    def start() -> Reconciler:
        reconciler = _reconciler(deaf)
        tasks.append(asyncio.create_task(reconciler.run()))
        return reconciler

    yield start
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _connect_many(world: World, count: int) -> None:
    for number in range(count):
        first = FourTuple("10.0.1.1", number, f"10.0.9.{number % 250}", 80)
        world.kernel.connect(number + 1, first)
        second = first._replace(local_address="10.0.2.1")
        world.kernel.put(replace(JOINED, token=number + 1, four_tuple=second, local_id=1))


async def test_everything_is_adopted_at_start(deaf: World) -> None:
    made = deaf.kernel.connect(TOKEN, FIRST)
    made.ids[1] = AddressEntry(SECOND.local_address, 1)
    deaf.kernel.put(replace(JOINED, token=TOKEN, four_tuple=SECOND, local_id=1))
    deaf.kernel.app_listeners.add(("10.0.1.1", 80))
    await deaf.kernel.execute(commands.AddAddr(AddressEntry("10.0.3.1")))

    await _reconciler(deaf).compare()

    connection = deaf.state.connections[TOKEN]
    assert set(connection.subflows) == {FIRST, SECOND}
    assert connection.subflows[SECOND].local_id == 1
    assert set(connection.local_addresses) == {1}
    assert (connection.path_manager, connection.uid) == ("userspace", 1000)
    assert deaf.state.listeners == {("10.0.1.1", 80): 1}
    assert set(deaf.state.endpoints) == {1}
    assert deaf.state.limits == deaf.kernel.limits()
    assert deaf.state.settings == deaf.kernel.settings()


async def test_a_second_comparison_tells_nothing(deaf: World) -> None:
    _connect_many(deaf, 300)
    reconciler = _reconciler(deaf)
    await reconciler.compare()
    assert len(deaf.heard) > 600
    deaf.heard.clear()

    await reconciler.compare()

    assert deaf.heard == []


async def test_what_was_lost_is_told_as_the_events_would_have_told_it(world: World) -> None:
    world.connect()
    world.kernel.put(replace(JOINED, token=TOKEN, four_tuple=SECOND, local_id=1))
    world.heard.clear()

    await _reconciler(world).compare()
    world.kernel.open[TOKEN].subflows.pop(SECOND)
    await _reconciler(world).compare()
    world.kernel.abort(TOKEN)
    await _reconciler(world).compare()

    assert world.heard == [
        events.NewSubflow(TOKEN, SECOND, 1),
        events.SubflowClosed(TOKEN, SECOND, 1),
        events.ConnectionClosed(TOKEN),
    ]


async def test_listeners_that_came_and_went_unheard_are_told(world: World) -> None:
    world.kernel.app_listeners.add(("10.0.1.1", 80))
    await _reconciler(world).compare()
    world.kernel.app_listeners = {("10.0.1.1", 81)}
    await _reconciler(world).compare()

    assert world.heard == [
        events.ListenerCreated("10.0.1.1", 80),
        events.ListenerCreated("10.0.1.1", 81),
        events.ListenerClosed("10.0.1.1", 80),
    ]


async def test_events_that_are_queued_are_read_before_a_difference_is_believed(
    world: World,
) -> None:
    queue: list[events.Event] = []
    world.kernel.on_event = queue.append
    dump = world.kernel.connections

    def connected_meanwhile() -> Any:
        world.kernel.connect(TOKEN, FIRST, deny_join_id0=True)
        return dump()

    world.kernel.connections = connected_meanwhile  # type: ignore[method-assign] # just before

    def drain() -> None:
        world.engine.batch(queue)
        queue.clear()

    await Reconciler(world.engine, drain).compare()

    # A dump knows nothing of this flag: the event told it, and nothing was told twice.
    assert world.state.connections[TOKEN].deny_join_id0
    assert [type(e) for e in world.heard] == [events.NewConnection, events.ConnectionEstablished]


async def test_what_ended_between_dump_and_look_up_is_not_adopted(deaf: World) -> None:
    deaf.kernel.connect(TOKEN, FIRST)
    rows = [list(rows) for rows in deaf.kernel.connections()]
    deaf.kernel.abort(TOKEN)
    deaf.kernel.connections = lambda: iter(rows)  # type: ignore[method-assign] # an old dump

    await _reconciler(deaf).compare()

    assert deaf.state.connections == {}


async def test_a_loss_is_mended_and_told_once_when_all_is_right_again(
    deaf: World, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    reconciler = run()
    await eventually(lambda: deaf.flushes)  # the first comparison is over
    for number in range(5):
        deaf.kernel.connect(TOKEN + number, FIRST._replace(local_port=number))

    with caplog.at_level(logging.WARNING):
        reconciler.events_lost()
        reconciler.events_lost()
        await eventually(lambda: deaf.state.events_lost)

    assert set(deaf.state.connections) == set(deaf.kernel.open)
    assert deaf.heard[-1] == events.EventsLost("mptcp_pm")
    assert deaf.heard.count(events.EventsLost("mptcp_pm")) == 1
    assert "the state was read anew (5 connections)" in caplog.text


async def test_a_connection_that_no_event_told_of_is_found_by_its_socket(deaf: World) -> None:
    deaf.kernel.connect(TOKEN, FIRST)
    deaf.kernel.put(replace(JOINED, token=TOKEN, four_tuple=SECOND, local_id=1))
    deaf.kernel.connect(TOKEN + 1, FIRST._replace(local_port=1))
    deaf.kernel.sockets[7] = TOKEN

    connection = _reconciler(deaf).by_socket(7)

    assert deaf.state.connections == {TOKEN: connection}
    assert set(connection.subflows) == {FIRST, SECOND}


async def test_queued_events_are_read_before_the_kernel_is_asked_for_a_socket(
    deaf: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[events.Event] = []
    deaf.kernel.on_event = told.append
    deaf.kernel.connect(TOKEN, FIRST)
    deaf.kernel.sockets[7] = TOKEN
    monkeypatch.setattr(deaf.kernel, "subflows", None)  # no dump

    connection = Reconciler(deaf.engine, lambda: deaf.engine.batch(told)).by_socket(7)

    assert deaf.state.connections == {TOKEN: connection}
    assert Reconciler(deaf.engine, pytest.fail).by_socket(7) is connection  # known: none is read


async def test_a_socket_whose_connection_is_not_there_yet_finds_none(deaf: World) -> None:
    deaf.kernel.sockets[7] = TOKEN

    with pytest.raises(NotMultipath, match="not established"):
        _reconciler(deaf).by_socket(7)
    with pytest.raises(NotMultipath, match="not connected"):
        _reconciler(deaf).by_socket(8)


async def test_a_sweep_removes_what_its_peer_aborted(
    deaf: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler_module, "SWEEP_SECONDS", 0.02)
    deaf.kernel.connect(TOKEN, FIRST)
    run()
    await eventually(lambda: TOKEN in deaf.state.connections)

    deaf.kernel.abort(TOKEN)

    await eventually(lambda: not deaf.state.connections)
    assert deaf.heard[-1] == events.ConnectionClosed(TOKEN)


async def test_without_connections_no_sweep_looks_before_the_idle_time(
    deaf: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler_module, "SWEEP_SECONDS", 0.001)
    monkeypatch.setattr(reconciler_module, "IDLE_SECONDS", 0.06)
    looks: list[float] = []
    endpoints = deaf.kernel.endpoints

    def look() -> Any:
        looks.append(time.monotonic())
        return endpoints()

    deaf.kernel.endpoints = look  # type: ignore[method-assign] # a spy
    run()

    await eventually(lambda: len(looks) == 3)

    assert looks[2] - looks[1] >= 0.055


async def test_who_is_awake_for_something_else_looks_in_half_the_idle_time(
    deaf: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, slept = asyncio.get_running_loop(), [0.0]
    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + slept[0])
    reconciler = run()
    await reconciler.compare()

    slept[0] = reconciler_module.IDLE_SECONDS / 2 - 1
    reconciler.awake()
    assert not deaf.engine.wake.is_set()
    slept[0] += 1
    reconciler.awake()
    assert deaf.engine.wake.is_set()
    await eventually(lambda: deaf.engine.sweeps == 2)
    reconciler.awake()
    assert not deaf.engine.wake.is_set()


async def test_a_sweep_takes_its_share_of_the_time_and_no_more(
    deaf: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconciler = _reconciler(deaf)
    clock = [100.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock[0])

    def slow() -> Any:
        clock[0] += 2.0
        return iter(())

    deaf.kernel.connections = slow  # type: ignore[method-assign] # it takes two seconds
    await reconciler.compare()

    pace = reconciler._pace()  # noqa: SLF001 - a number; to wait for it would take a minute
    assert 2.0 / pace <= 0.05


@pytest.mark.parametrize("error", [OSError(24, "too many open files"), KernelRefused("DUMP", 12)])
async def test_a_kernel_that_cannot_be_asked_is_asked_again(
    deaf: World,
    run: Run,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A loss that could not be mended yet is not forgotten."""
    monkeypatch.setattr(reconciler_module, "SWEEP_SECONDS", 0.05)
    dump = deaf.kernel.connections
    failures = iter((error, error))

    def connections() -> Iterator[Sequence[ConnectionRead]]:
        for failure in failures:
            raise failure
        return dump()

    monkeypatch.setattr(deaf.kernel, "connections", connections)
    deaf.kernel.connect(TOKEN, FIRST)
    reconciler = run()

    reconciler.events_lost()

    await eventually(lambda: TOKEN in deaf.engine.state.connections)
    await eventually(lambda: deaf.engine.state.events_lost == 1)
    assert caplog.text.count("the kernel could not be asked") == 2
    assert str(error) in caplog.text


async def test_a_doubted_connection_is_compared_at_once(deaf: World, run: Run) -> None:
    deaf.kernel.connect(TOKEN, FIRST)
    run()
    await eventually(lambda: TOKEN in deaf.state.connections)
    deaf.kernel.abort(TOKEN)

    deaf.engine.doubt(TOKEN)

    await eventually(lambda: not deaf.state.connections, within=2.0)  # a sweep would take longer


async def test_a_subflow_that_vanishes_unheard_ends_its_join_in_the_sweep(deaf: World) -> None:
    deaf.kernel.connect(TOKEN, FIRST)
    await _reconciler(deaf).compare()
    deaf.kernel.answers[80] = Answer.SILENT
    wish = SubflowWish(local_address="10.0.2.1")
    join = asyncio.ensure_future(deaf.pm.create_subflow(deaf.state.connections[TOKEN], wish))
    await eventually(lambda: deaf.kernel.executed)

    deaf.kernel.abort(TOKEN)
    await _reconciler(deaf).compare()

    with pytest.raises(Exception, match="closed meanwhile"):
        await join


async def _longest_hold(world: World) -> float:
    """Give the longest time for which a comparison keeps other tasks from running."""
    holds: list[float] = []

    async def heartbeat() -> None:
        # The time of this thread and not the clock's: what others do on the machine is no hold.
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            holds.append(time.thread_time() - before)

    beat = asyncio.create_task(heartbeat())
    await _reconciler(world).compare()
    await asyncio.sleep(0)
    beat.cancel()
    return max(holds)


async def test_a_comparison_of_ten_thousand_connections_never_holds_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def deaf() -> World:
        world = World()
        world.kernel.on_event = lambda _: None
        _connect_many(world, MANY)
        return world

    gc.disable()  # its holds come and go with what else the process has
    try:
        hold = await _longest_hold(deaf())
        monkeypatch.setattr(reconciler_module, "_SLICE", math.inf)
        control = await _longest_hold(deaf())
    finally:
        gc.enable()

    assert hold < 0.02
    assert control > hold * 5

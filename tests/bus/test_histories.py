"""Random histories with losses, from the kernel's queue to a client that replays the signals.

Whatever happens, is lost or restarted: the client knows what GetManagedObjects would tell it, and
after a comparison both are what the kernel has.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mptcpd_dbus.bus.contract import contract
from mptcpd_dbus.bus.decoding import decode_any
from mptcpd_dbus.bus.objects import ObjectTree
from mptcpd_dbus.bus.paths import path_of
from mptcpd_dbus.bus.peers import Peers
from mptcpd_dbus.bus.programs import Programs
from mptcpd_dbus.bus.publisher import Publisher
from mptcpd_dbus.bus.transport import Transport
from mptcpd_dbus.core import commands, events
from mptcpd_dbus.core.connections import Connection, Subflow
from mptcpd_dbus.core.errors import MptcpdError
from mptcpd_dbus.core.network import AddressTrait
from mptcpd_dbus.core.readings import SubflowRead
from mptcpd_dbus.core.state import State
from mptcpd_dbus.core.subflow_wish import SubflowWish
from mptcpd_dbus.core.types import AddressEntry, FourTuple
from mptcpd_dbus.engine import Engine
from mptcpd_dbus.event_reader import EventReader
from mptcpd_dbus.kernel.event_socket import EventSocket
from mptcpd_dbus.reconciler import Reconciler
from mptcpd_dbus.testing import JOINED, FakeKernel
from mptcpd_dbus.testing.clock import PlayedLoop
from mptcpd_dbus.testing.fake_kernel import FakeConnection
from tests.bus.fake_policies import FakePolicies
from tests.bus.replay import Objects, Replay, Wire

T = TypeVar("T")

TOKENS = st.sampled_from([1, 2, 3])
INDICES = st.sampled_from([1, 2])
ADDRESSES = {1: "10.0.1.1", 2: "10.0.2.1"}
REMOTE = "10.0.9.1"
IDS = st.integers(1, 3)
QUEUE = 8  # events that the kernel holds for us, before it drops all until we have read them
SLICE = 3
SETTLED = 0.1  # seconds, after which a connection is an object
SWEPT = 61.0  # seconds, after which a sweep has looked at everything, also where nobody connects
PACES = st.sampled_from([0.0, 0.01, 0.15, 6.0])


class Queue:
    """The kernel's queue of events in the place of `EventSocket`, which loses some."""

    def __init__(self) -> None:
        self._events: deque[events.Event] = deque()
        self._congested = self._told = False

    def put(self, event: events.Event) -> None:
        """Queue it; from an overflow on nothing is, until the queue was read empty."""
        if len(self._events) == QUEUE:
            self._congested, self._told = True, False
        if not self._congested:
            self._events.append(event)

    def drain(self) -> tuple[list[events.Event], bool, bool]:
        """Read a slice: (events, lost, more)."""
        lost = self._congested and not self._told
        self._told = True
        read = [self._events.popleft() for _ in range(min(SLICE, len(self._events)))]
        more = len(read) == SLICE
        if not self._events:
            self._congested = False
        return read, lost, more


class Daemon:
    """All of the daemon but its sockets, on a kernel that goes on when it ends."""

    def __init__(self, kernel: FakeKernel, present: list[events.Event]) -> None:
        self.kernel = kernel
        self.queue = Queue()
        self.state = State()
        self.engine = Engine(self.state, kernel, SETTLED)
        self.reader = EventReader(cast("EventSocket", self.queue), self.engine)
        self.reconciler = Reconciler(self.engine, self.reader.drain)
        self.reader.on_lost = self.reconciler.events_lost
        self.wire: Wire
        self.tree: ObjectTree
        self.publisher: Publisher
        self._present = present
        self._sweeps: asyncio.Task[None]

    async def start(self) -> None:
        """Start as daemon.py does."""
        self.kernel.on_event = self.queue.put
        for event in self._present:
            self.engine.take(event)
        await self.reconciler.compare()
        self.read()
        await self.join_bus()
        self._sweeps = asyncio.create_task(self.reconciler.run())

    async def join_bus(self) -> None:
        """Show everything on a new connection to the bus."""
        self.wire = Wire()
        transport = cast("Transport", self.wire)
        self.tree = ObjectTree(transport, Peers(transport), _nobody)
        interfaces = contract(
            self.state,
            self.engine.pm,
            FakePolicies(),
            cast("Programs", None),
            features=(),
            counters=Counter,
            own=_nobody,
            announce=self.engine.announce_all,
        )
        self.publisher = Publisher(self.tree, self.state, interfaces)
        self.engine.attach(self.publisher)
        self.tree.start()
        self.wire.client = Replay(await self.managed())

    async def leave_bus(self) -> None:
        """Go on without a bus."""
        self.engine.attach(None)
        self.tree.stop()

    async def stop(self) -> None:
        """End, with everything that the kernel does not keep."""
        await self.leave_bus()
        self._sweeps.cancel()
        await asyncio.gather(self._sweeps, return_exceptions=True)

    def read(self) -> None:
        """Read the queue to its end, as the loop would until it is empty."""
        for _ in range(QUEUE):  # SLICE does for the last, which tells that there is no more
            self.reader.drain()

    async def managed(self) -> Objects:
        """Give what GetManagedObjects answers."""
        body = b"".join(await self.tree._managed_objects())  # noqa: SLF001 - a call would need a bus
        (objects,) = decode_any("a{oa{sa{sv}}}", "<")(bytes(body))
        return cast("Objects", objects)

    @property
    def healthy(self) -> bool:
        """Whether the sweeps go on."""
        return not self._sweeps.done()


async def _started(kernel: FakeKernel, present: list[events.Event]) -> Daemon:
    daemon = Daemon(kernel, present)
    await daemon.start()
    return daemon


def _nobody(*_: object) -> Any:
    raise NotImplementedError


class History(RuleBasedStateMachine):
    """What can happen to a host, and to its daemon."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = PlayedLoop()
        self.ports = itertools.count(4000)
        self.kernel = FakeKernel()
        self.links: dict[int, bool] = {}
        self.on_bus = True
        self.commands: list[asyncio.Task[object]] = []
        self.daemon = self._await(_started(self.kernel, []))

    def _await(self, what: Coroutine[Any, Any, T]) -> T:
        """Run *what*, and a turn of the loop."""

        async def run() -> T:
            done = await what
            await asyncio.sleep(0)
            return done

        return self.loop.run_until_complete(run())

    def _tell(self, event: events.Event) -> None:
        self.kernel.on_event(event)

    # What happens in the kernel; the daemon is not running meanwhile.

    @rule(token=TOKENS, server_side=st.booleans(), userspace=st.booleans())
    def connect(self, token: int, server_side: bool, userspace: bool) -> None:
        """Connect, be it with the token of one that lives: then that was aborted."""
        four_tuple = FourTuple(ADDRESSES[1], next(self.ports), REMOTE, 80)
        self.kernel.connect(token, four_tuple, server_side=server_side, userspace=userspace)

    @precondition(lambda self: self.kernel.open)
    @rule(data=st.data())
    def join(self, data: st.DataObject) -> None:
        """Let the peer add a subflow, to an address that it knows."""
        connection = self._some(data)
        known = {0: ADDRESSES[1]} | {n: entry.address for n, entry in connection.ids.items()}
        local_id = data.draw(st.sampled_from(sorted(known)))
        four_tuple = FourTuple(known[local_id], next(self.ports), REMOTE, 80)
        row = replace(JOINED, token=connection.row.token, four_tuple=four_tuple, local_id=local_id)
        self.kernel.put(row)
        self._tell(events.NewSubflow(row.token, four_tuple, local_id))

    @precondition(lambda self: self.kernel.open)
    @rule(data=st.data(), error=st.sampled_from([0, 104]))
    def lose_a_subflow(self, data: st.DataObject, error: int) -> None:
        """End a subflow, be it the last."""
        connection = self._some(data)
        if connection.subflows:
            four_tuple = data.draw(st.sampled_from(list(connection.subflows)))
            self.kernel.end_subflow(connection.row.token, four_tuple, error)

    @precondition(lambda self: self.kernel.open)
    @rule(data=st.data(), backup=st.booleans())
    def change_priority(self, data: st.DataObject, backup: bool) -> None:
        """Let the peer ask for backup, or no more."""
        connection = self._some(data)
        if connection.subflows:
            four_tuple = data.draw(st.sampled_from(list(connection.subflows)))
            row = replace(connection.subflows[four_tuple], backup=backup)
            connection.subflows[four_tuple] = row
            self._tell(events.SubflowPriority(row.token, four_tuple, backup=backup))

    @precondition(lambda self: self.kernel.open)
    @rule(data=st.data(), address_id=IDS, withdrawn=st.booleans())
    def announce(self, data: st.DataObject, address_id: int, withdrawn: bool) -> None:
        """Let the peer announce an address, or withdraw one; the kernel keeps no list of these."""
        token = self._some(data).row.token
        if withdrawn:
            self._tell(events.AddressRemoved(token, address_id))
        else:
            self._tell(events.NewAddress(token, address_id, REMOTE, 80 + address_id))

    @precondition(lambda self: self.kernel.open)
    @rule(data=st.data(), aborted=st.booleans())
    def close(self, data: st.DataObject, aborted: bool) -> None:
        """Close; of an abort no event tells."""
        token = self._some(data).row.token
        (self.kernel.abort if aborted else self.kernel.close)(token)

    @rule(port=st.sampled_from([80, 443]))
    def listen(self, port: int) -> None:
        """Have an application listen, or no more."""
        place = (ADDRESSES[1], port)
        if place in self.kernel.app_listeners:
            self.kernel.app_listeners.remove(place)
            self._tell(events.ListenerClosed(*place))
        else:
            self.kernel.app_listeners.add(place)
            self._tell(events.ListenerCreated(*place))

    @rule(
        change=st.sampled_from(
            [
                commands.AddAddr(AddressEntry(ADDRESSES[1])),
                commands.AddAddr(AddressEntry(ADDRESSES[2], 2)),
                commands.DelAddr(2),
                commands.FlushAddrs(),
                commands.SetLimits(3, 1),
                commands.SetLimits(0, 0),
            ]
        )
    )
    def others_command(self, change: commands.Command) -> None:
        """Let ip(8) change endpoints and limits, of which the kernel tells nobody."""
        self._await(_tried(self.kernel.execute(change)))

    @precondition(lambda self: self.kernel.open)
    @rule(count=st.integers(QUEUE, 2 * QUEUE), data=st.data())
    def overflow(self, count: int, data: st.DataObject) -> None:
        """Have more events than the queue takes."""
        token = self._some(data).row.token
        for _ in range(count):
            self._tell(events.AddressRemoved(token, 7))

    # The network, whose monitor tells no event of what it has not told the beginning of

    @rule(index=INDICES, up=st.booleans())
    def link(self, index: int, up: bool) -> None:
        """Have a device, or change it."""
        kind = events.UpdateInterface if index in self.links else events.NewInterface
        self.links.setdefault(index, False)
        self._engine_takes(kind(index, f"eth{index}", "ether", up=up, running=up))

    @precondition(lambda self: self.links)
    @rule(data=st.data())
    def unlink(self, data: st.DataObject) -> None:
        """Take a device away, its address first."""
        index = data.draw(st.sampled_from(sorted(self.links)))
        if self.links.pop(index):
            self._engine_takes(events.DeleteLocalAddress(index, ADDRESSES[index]))
        self._engine_takes(events.DeleteInterface(index))

    @precondition(lambda self: self.links)
    @rule(data=st.data())
    def address(self, data: st.DataObject) -> None:
        """Give a device its address, or take it away."""
        index = data.draw(st.sampled_from(sorted(self.links)))
        self.links[index] = has_it = not self.links[index]
        if has_it:
            traits = AddressTrait.DEPRECATED
            self._engine_takes(events.NewLocalAddress(index, ADDRESSES[index], 24, traits))
        else:
            self._engine_takes(events.DeleteLocalAddress(index, ADDRESSES[index]))

    def _engine_takes(self, event: events.Event) -> None:
        async def take() -> None:
            self.daemon.engine.take(event)

        self._await(take())

    # What the daemon does

    @rule()
    def read(self) -> None:
        """Read a slice of the queue."""

        async def drain() -> None:
            self.daemon.reader.drain()

        self._await(drain())

    @rule(seconds=PACES)
    def rest(self, seconds: float) -> None:
        """Let time pass, in which sweeps are made; the kernel stands still."""
        self._await(asyncio.sleep(seconds))

    @rule()
    def turn(self) -> None:
        """Let the loop make one turn, perhaps amid a comparison."""
        self._await(asyncio.sleep(0))

    @precondition(lambda self: self.daemon.state.connections)
    @rule(data=st.data(), number=st.integers(0, 4), index=INDICES, address_id=IDS)
    def command(self, data: st.DataObject, number: int, index: int, address_id: int) -> None:
        """Command something, and go on before it is done."""
        token = data.draw(st.sampled_from(sorted(self.daemon.state.connections)))
        connection = self.daemon.state.connections[token]
        what = self._command(connection, number, ADDRESSES[index], address_id)

        async def begin() -> None:
            self.commands.append(asyncio.create_task(_tried(what)))

        self._await(begin())

    def _command(
        self, connection: Connection, number: int, address: str, address_id: int
    ) -> Coroutine[Any, Any, object]:
        pm = self.daemon.engine.pm
        subflows = list(connection.subflows.values())
        if number == 0 or not subflows:
            wish = SubflowWish(local_address=address, remote_address=REMOTE, remote_port=80)
            return pm.create_subflow(connection, wish)
        if number == 1:
            return pm.destroy_subflow(subflows[-1])
        if number == 2:
            return pm.set_backup(subflows[-1], backup=address_id == 1)
        if number == 3:
            return pm.announce_address(connection, address)
        return pm.remove_address(connection, address_id)

    # Restarts and losses on the bus

    @rule()
    def restart(self) -> None:
        """End the daemon; the kernel goes on, and so do the devices."""

        async def restart() -> None:
            await self._stop()
            present: list[events.Event] = []
            for index, has_address in self.links.items():
                present.append(
                    events.NewInterface(index, f"eth{index}", "ether", up=True, running=True)
                )
                if has_address:
                    present.append(events.NewLocalAddress(index, ADDRESSES[index], 24))
            self.daemon = await _started(self.kernel, present)

        self.on_bus = True
        self._await(restart())

    @rule()
    def bus(self) -> None:
        """Take the bus away, or give it back."""
        self._await(self.daemon.leave_bus() if self.on_bus else self.daemon.join_bus())
        self.on_bus = not self.on_bus

    @precondition(lambda self: self.on_bus)
    @rule()
    def crowd(self) -> None:
        """Have the bus take no signals, or some again: then the client reads everything anew."""
        wire = self.daemon.wire
        wire.full = not wire.full
        if not wire.full and wire.signals_dropped:
            self.daemon.publisher.dropped(wire.signals_dropped)

    # What is always so, and what is so in the end

    @invariant()
    def the_client_knows_what_it_would_be_told(self) -> None:
        """Look whether the sweeps go on, and at the client."""
        assert self.daemon.healthy
        if self.on_bus and not self.daemon.wire.full:
            self._await(self._ask())

    async def _ask(self) -> None:
        """Compare the replayed signals with GetManagedObjects, when all is flushed."""
        self.daemon.publisher.flush()
        managed, client = await self.daemon.managed(), self.daemon.wire.client
        assert client is not None
        if client.deaf:
            assert client.told
            self.daemon.wire.client = Replay(managed)
        else:
            assert client.objects == managed, _difference(client.objects, managed)

    def teardown(self) -> None:
        """Let the daemon catch up: then all is as the kernel has it."""
        try:
            if not self.on_bus:
                self.bus()
            if self.daemon.wire.full:
                self.crowd()
            self._await(self._catch_up())
            self.the_client_knows_what_it_would_be_told()
            self._compare()
        finally:
            self._await(self._stop())
            self.loop.close()

    async def _catch_up(self) -> None:
        await asyncio.gather(*self.commands)
        self.daemon.read()
        await asyncio.sleep(SWEPT)

    async def _stop(self) -> None:
        for task in self.commands:
            task.cancel()
        await asyncio.gather(*self.commands, return_exceptions=True)
        self.commands.clear()
        await self.daemon.stop()

    def _compare(self) -> None:
        state, kernel = self.daemon.state, self.kernel
        seen = {t: _seen(c) for t, c in state.connections.items()}
        shown = {t: _shown(c) for t, c in kernel.open.items()}
        assert seen == shown, f"{seen}\n{shown}"
        assert set(state.listeners) == kernel.app_listeners | set(kernel.own_listeners)
        assert {e.entry for e in state.endpoints.values()} == set(kernel.endpoints().endpoints)
        assert state.limits == kernel.limits()
        assert set(state.network.interfaces) == set(self.links)
        assert self.daemon.wire.client is not None
        told = set(self.daemon.wire.client.objects)
        assert told == {path_of(thing) for thing in state.everything()} - {path_of(state)}

    def _some(self, data: st.DataObject) -> FakeConnection:
        return self.kernel.open[data.draw(st.sampled_from(sorted(self.kernel.open)))]


def _difference(one: Objects, other: Objects) -> str:
    return "\n".join(
        f"{path}: {one.get(path)}\n  {other.get(path)}"
        for path in one | other
        if one.get(path) != other.get(path)
    )


async def _tried(what: Coroutine[Any, Any, object]) -> object:
    try:
        return await what
    except MptcpdError:
        return None


def _seen(connection: Connection) -> tuple[Any, ...]:
    return (
        connection.four_tuple,
        connection.uid,
        connection.path_manager,
        _unused(connection.local_addresses, connection.subflows.values()),
        {
            t: (s.local_id, s.remote_id, s.backup, s.backup_requested)
            for t, s in connection.subflows.items()
        },
    )


def _shown(connection: FakeConnection) -> tuple[Any, ...]:
    return (
        connection.row.four_tuple,
        connection.row.uid,
        "userspace" if connection.userspace else "kernel",
        _unused(connection.ids, connection.subflows.values()),
        {t: _of(row) for t, row in connection.subflows.items()},
    )


def _unused(ids: Iterable[int], subflows: Iterable[Subflow | SubflowRead]) -> set[int]:
    """Leave out what a subflow uses: of those the kernel may have forgotten the entry."""
    return set(ids) - {subflow.local_id for subflow in subflows}


def _of(row: SubflowRead) -> tuple[Any, ...]:
    return (row.local_id, row.remote_id, row.backup, row.backup_requested)


SETTINGS = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    phases=(Phase.generate, Phase.shrink),
)
CONTROL = settings(SETTINGS, phases=(Phase.generate,), report_multiple_bugs=False)


def test_a_client_that_replays_the_signals_knows_what_the_kernel_has() -> None:
    run_state_machine_as_test(History, settings=SETTINGS)


def test_one_signal_that_is_lost_untold_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Losing(Wire):
        def send_signals(self, signals: Sequence[bytes | bytearray]) -> None:
            super().send_signals([signal for signal in signals if self.next_serial() % 20])

    monkeypatch.setitem(globals(), "Wire", Losing)

    with pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(History, settings=CONTROL)


def test_one_event_that_is_lost_untold_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep mends what the events did not tell, so it must stand still for this."""

    class Losing(Queue):
        def put(self, event: events.Event) -> None:
            if not isinstance(event, events.NewSubflow):
                super().put(event)

    async def stand_still(_: Reconciler) -> None:
        await asyncio.Event().wait()

    monkeypatch.setitem(globals(), "Queue", Losing)
    monkeypatch.setattr(Reconciler, "run", stand_still)

    with pytest.raises(AssertionError):
        run_state_machine_as_test(History, settings=CONTROL)

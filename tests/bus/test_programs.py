"""Programs that decide for connections: who may register, what they are told, and who is let go.

The policy host is the real one, the kernel is in memory, the bus is a real dbus-daemon.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from dbus_next import Message, MessageFlag, MessageType, Variant
from dbus_next.aio import MessageBus

from mptcpd_dbus.bus import program as line
from mptcpd_dbus.bus import programs as registry
from mptcpd_dbus.bus.authority import Authority
from mptcpd_dbus.bus.contract import contract
from mptcpd_dbus.bus.error_names import ACCESS_DENIED, INVALID_ARGS, BusError
from mptcpd_dbus.bus.interface import Call
from mptcpd_dbus.bus.names import (
    BUS_NAME,
    CALLS_HELD,
    CALLS_UNANSWERED,
    MANAGE_CONNECTIONS,
    REGISTER_POLICY,
    ROOT,
    UID_POLICIES,
)
from mptcpd_dbus.bus.objects import ObjectTree
from mptcpd_dbus.bus.paths import path_of
from mptcpd_dbus.bus.peers import Peers
from mptcpd_dbus.bus.polkit import Polkit
from mptcpd_dbus.bus.programs import Programs
from mptcpd_dbus.bus.publisher import Publisher
from mptcpd_dbus.bus.transport import Transport
from mptcpd_dbus.core import events
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.testing.fake_kernel import JOINED, Answer
from tests.bus.conftest import ask, plain, subscribe, until
from tests.contract import no_socket
from tests.policy.hosted_world import Heard, HostedWorld, recorder
from tests.world import TOKEN

MANAGER = "org.mptcpd1.Manager"
POLICY = "org.mptcpd1.Policy"
PLUGIN = "org.mptcpd1.Plugin"
ERROR = "org.mptcpd1.Error."
PATH = "/some/where"


class Caller:
    """A program: what it was called with, and what it answers, or not."""

    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus
        self.calls: list[Message] = []
        self.order: list[tuple[str, Any]] = []
        self.answers = True
        self.error = ""
        bus.add_message_handler(self._hear)

    async def register(self, name: str = "mine", **options: Variant) -> Message:
        """Ask to decide."""
        return await ask(self.bus, ROOT, MANAGER, "RegisterPolicy", "osa{sv}", PATH, name, options)

    async def unregister(self, name: str = "mine") -> Message:
        """Ask to be let go."""
        return await ask(self.bus, ROOT, MANAGER, "UnregisterPolicy", "sa{sv}", name, {})

    def told(self) -> list[tuple[str, list[Any]]]:
        """Give method and arguments of each call."""
        return [(call.member, plain(call.body)) for call in self.calls]

    def asked(self) -> list[int]:
        """Give which calls wanted an answer, counted from 1."""
        wanted = MessageFlag.NO_REPLY_EXPECTED
        return [n for n, call in enumerate(self.calls, 1) if not call.flags & wanted]

    def _hear(self, call: Message) -> Message | bool | None:
        self.order.append((call.member, call.body[0] if call.body else None))
        if call.message_type is not MessageType.METHOD_CALL:
            return None
        assert (call.path, call.interface) == (PATH, POLICY)
        self.calls.append(call)
        if not self.answers or call.flags & MessageFlag.NO_REPLY_EXPECTED:
            return True
        if self.error:
            return Message.new_error(call, self.error, "no")
        return Message.new_method_return(call)


class Nobody(Polkit):
    """A polkit that lets everybody register and nobody else do anything."""

    async def check(
        self, call: Call, action: str, details: dict[str, str], *, without: bool = False
    ) -> None:
        """Refuse what is not the registration."""
        del call, details, without
        if action != REGISTER_POLICY:
            raise BusError(ACCESS_DENIED, f"not you: {action}")


class Stage(HostedWorld):
    """A host with a plugin of low rank, shown on a real bus."""

    def __init__(self, transport: Transport) -> None:
        self.heard_by_plugin = Heard()
        super().__init__({"low": recorder(self.heard_by_plugin, "low", priority=19)})
        peers = Peers(transport)
        self.programs = Programs(
            transport,
            peers,
            self.host,
            self.state.network.index_of,
            lambda _: self.engine.settle_soon(),
        )
        self.tree = ObjectTree(
            transport, peers, Authority(Nobody(transport, peers), self.programs).check
        )
        self.tree.at_end = self.programs.flush
        self.peers = peers
        self.interfaces = contract(
            self.state,
            self.pm,
            self.host,
            self.programs,
            features=(),
            counters=lambda: {"signals_dropped": 0},
            own=no_socket,
            announce=self.engine.announce_all,
        )
        self.engine.attach(Publisher(self.tree, self.state, self.interfaces))

    def listeners(self, count: int, first: int = 1) -> None:
        """Let so many events of the host happen at once."""
        ports = range(first, first + count)
        self.engine.batch([events.ListenerCreated("10.0.1.1", port) for port in ports])


@pytest.fixture
async def stage(transport: Transport) -> AsyncIterator[Stage]:
    stage = Stage(transport)
    assert await transport.request_name(BUS_NAME)
    stage.tree.start()
    await stage.start()
    yield stage
    await stage.host.stop()
    stage.tree.stop()
    stage.peers.stop()


@pytest.fixture
async def caller(client: MessageBus) -> Caller:
    return Caller(client)


@pytest.fixture
async def other(bus_address: str) -> AsyncIterator[MessageBus]:
    bus = await MessageBus(bus_address=bus_address).connect()
    yield bus
    await _leave(bus)


async def one_call(stage: Stage, caller: Caller, port: int) -> None:
    """Have the call made that has the number *port*, and the answer taken in if it wants one."""
    if port:  # 0 is Ready
        stage.listeners(1, port)
    await until(lambda: len(caller.calls) == port + 1)
    await ask(caller.bus, ROOT, "org.freedesktop.DBus.Peer", "Ping")


def owner(stage: Stage, token: int = TOKEN) -> str:
    return stage.state.connections[token].owner


# What a program is told


async def test_calls_say_what_the_signals_say_in_their_order(
    stage: Stage, caller: Caller, other: MessageBus
) -> None:
    """Every handler that has a signal; a listener of signals is the measure."""
    assert not (await caller.register()).error_name
    await until(lambda: [name for name, _ in caller.told()] == ["Ready"])
    caller.calls.clear()
    signals = await subscribe(other)

    stage.link(2, "eth0", "10.0.1.1", "10.0.1.9")
    stage.engine.take(events.UpdateInterface(2, "eth0", "ether", up=True, running=False))
    stage.engine.take(events.UpdateInterface(2, "eth0", "ether", up=True, running=True))
    stage.engine.take(events.DeleteLocalAddress(2, "10.0.1.9"))
    stage.listeners(1)
    stage.engine.take(events.ListenerClosed("10.0.1.1", 1))
    connection = stage.connect(deny_join_id0=True)
    stage.engine.take(events.NewAddress(TOKEN, 3, "10.0.9.3", 8080))
    stage.engine.take(events.AddressRemoved(TOKEN, 3))
    stage.engine.take(events.AddressRemoved(TOKEN, 77))
    tuple_ = FourTuple("10.0.1.1", 4001, "10.0.9.1", 80)
    row = replace(JOINED, token=TOKEN, four_tuple=tuple_)
    stage.kernel.answer(row, Answer.ACCEPTED)
    about = (TOKEN, tuple_, row.local_id, row.remote_id, False, 2)
    stage.engine.take(events.SubflowPriority(*about[:4], True, 2))
    closed = events.SubflowClosed(*about, error=111, reset_reason=2)
    stage.engine.take(closed)
    stage.engine.take(closed)  # a join that failed
    stage.engine.take(events.EventsLost("mptcp_pm"))
    stage.engine.take(events.ConnectionClosed(TOKEN))
    stage.engine.take(events.DeleteLocalAddress(2, "10.0.1.1"))
    stage.engine.take(events.DeleteInterface(2))
    await until(lambda: any(s.member == "DeleteInterface" for s in signals))
    await until(lambda: any(c.member == "DeleteInterface" for c in caller.calls))

    said = [(s.member, plain(s.body)) for s in signals if s.interface == MANAGER]
    assert caller.told() == said
    kinds = {kind.__name__ for kind in events.Event.__args__}
    assert {member for member, _ in said} == kinds
    assert connection.number == 1


async def test_when_a_program_is_told_the_objects_show_it_already(
    stage: Stage, caller: Caller, client: MessageBus
) -> None:
    """One connection of the bus gets both, so their order is that in which they were sent."""
    await subscribe(client)
    await caller.register()
    stage.connect()
    await until(lambda: any(call.member == "NewConnection" for call in caller.calls))
    stage.engine.take(events.ConnectionClosed(TOKEN))
    await until(lambda: any(call.member == "ConnectionClosed" for call in caller.calls))

    path = f"{ROOT}/connection/1"
    of_it = [member for member, first in caller.order if first == path]
    # The first of a name comes as a signal, the second as a call.
    assert of_it[-3:] == ["ConnectionClosed", "InterfacesRemoved", "ConnectionClosed"]
    assert of_it[:3] == ["InterfacesAdded", "NewConnection", "ConnectionEstablished"]


async def test_what_the_bus_cannot_carry_is_left_out(
    stage: Stage, caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    """As it is of the signals; the kernel takes any name for an interface."""
    await caller.register()
    stage.link(2, "eth\udcff")
    stage.listeners(1)

    await until(lambda: len(caller.calls) == 2)

    assert [member for member, _ in caller.told()] == ["Ready", "ListenerCreated"]
    assert "cannot be told NewInterface" in caplog.text


async def test_a_program_begins_with_what_there_is_and_nobody_owns(
    stage: Stage, caller: Caller
) -> None:
    stage.link(2, "eth0", "10.0.1.1")
    stage.connect()
    stage.connect(0xB, FourTuple("10.0.1.1", 4100, "10.0.9.1", 80))
    free = stage.state.connections[0xB]
    await stage.rest()
    await stage.host.set_owner(free, "")

    await caller.register(Priority=Variant("i", -3))
    await until(lambda: len(caller.calls) == 4)

    assert [(member, body[:2]) for member, body in caller.told()] == [
        ("Ready", []),
        ("NewInterface", [f"{ROOT}/interface/2", 2]),
        ("NewConnection", [f"{ROOT}/connection/2", 0xB]),
        ("ConnectionEstablished", [f"{ROOT}/connection/2", 0xB]),
    ]
    assert (owner(stage), owner(stage, 0xB)) == ("low", "mine")


async def test_a_program_decides_only_for_what_fits_its_match(stage: Stage, caller: Caller) -> None:
    reply = await caller.register(
        Port=Variant("aq", [443]),
        Side=Variant("s", "client"),
        Prefix=Variant("as", ["10.0.9.0/24"]),
    )
    assert not reply.error_name
    stage.connect()
    stage.connect(0xB, FourTuple("10.0.1.1", 4100, "10.0.9.1", 443))
    stage.connect(0xC, FourTuple("10.0.1.1", 443, "10.0.9.1", 443), server_side=True)
    stage.connect(0xD, FourTuple("10.0.1.1", 4100, "10.0.8.1", 443))

    assert [owner(stage, token) for token in (TOKEN, 0xB, 0xC, 0xD)] == [
        "low",
        "mine",
        "low",
        "low",
    ]


@pytest.mark.usefixtures("stage")
async def test_a_policy_on_the_bus_is_shown_like_a_plugin(
    caller: Caller, client: MessageBus
) -> None:
    await caller.register(
        Priority=Variant("i", -3), Description=Variant("s", "Steers."), Version=Variant("s", "7")
    )
    reply = await ask(
        client,
        f"{ROOT}/plugin/mine",
        "org.freedesktop.DBus.Properties",
        "GetAll",
        "s",
        PLUGIN,
    )
    assert plain(reply.body[0]) == {
        "Name": "mine",
        "Description": "Steers.",
        "Version": "7",
        "Priority": -3,
        "Steers": "userspace",
        "State": "running",
        "Problem": "",
        "Connections": 0,
        "Errors": 0,
        "OnBus": client.unique_name,
    }


# Who may register


@pytest.mark.parametrize(
    ("name", "options", "refusal"),
    [
        ("", {}, (INVALID_ARGS, "name: '' is not 1 to 64 letters, digits and underscores")),
        ("../x", {}, (INVALID_ARGS, "name: '../x' is not 1 to 64 letters, digits and underscores")),
        ("x" * 65, {}, (INVALID_ARGS, "name: ")),
        ("low", {}, (f"{ERROR}AlreadyRegistered", "there is a policy low already")),
        ("mine", {"Prio": Variant("i", 1)}, (INVALID_ARGS, "options: unknown option 'Prio'")),
        ("mine", {"Priority": Variant("i", 99)}, (INVALID_ARGS, "options: Priority = '99'")),
        ("mine", {"Steers": Variant("s", "all")}, (INVALID_ARGS, "options: Steers = 'all'")),
        ("mine", {"Port": Variant("aq", [0])}, (INVALID_ARGS, "options: Port: ")),
        ("mine", {"Prefix": Variant("as", ["10.0.0.1/8"])}, (INVALID_ARGS, "options: Prefix: ")),
        ("mine", {"Unit": Variant("as", ["/a"])}, (INVALID_ARGS, "options: Unit: ")),
        ("mine", {"Side": Variant("s", "left")}, (INVALID_ARGS, "options: Side: ")),
        ("mine", {"Port": Variant("s", "80")}, (INVALID_ARGS, "options: Port = '80'")),
    ],
)
async def test_a_wrong_registration_is_refused_by_name_and_leaves_nothing(
    stage: Stage, caller: Caller, name: str, options: dict[str, Variant], refusal: tuple[str, str]
) -> None:
    reply = await caller.register(name, **options)

    assert reply.error_name == refusal[0]
    assert reply.body[0].startswith(refusal[1]), reply.body
    assert list(stage.state.policies) == ["low"]
    for number in range(UID_POLICIES):  # none of them was counted
        assert not (await caller.register(f"other{number}")).error_name


async def test_one_user_may_have_so_many_policies_and_a_name_has_one_owner(
    stage: Stage, caller: Caller, other: MessageBus
) -> None:
    for number in range(UID_POLICIES):
        assert not (await caller.register(f"p{number}")).error_name

    assert (await caller.register("more")).error_name == f"{ERROR}LimitReached"
    stranger = Caller(other)
    assert (await stranger.register("more")).error_name == f"{ERROR}LimitReached"  # the same uid
    assert (await stranger.unregister("p0")).error_name == f"{ERROR}NotReady"
    assert not (await caller.unregister("p0")).error_name
    assert (await stranger.register("p1")).error_name == f"{ERROR}AlreadyRegistered"
    assert not (await stranger.register("p0")).error_name
    assert sorted(stage.state.policies) == [
        "low",
        *(f"p{number}" for number in range(UID_POLICIES)),
    ]


# What a program may do


async def test_a_program_commands_its_connections_and_no_others(
    stage: Stage, caller: Caller
) -> None:
    """Nobody is authorised for anything here, so what goes through is the program's right."""
    await caller.register(Port=Variant("aq", [80]))
    mine = stage.connect()
    others = stage.connect(0xB, FourTuple("10.0.1.1", 4100, "10.0.9.1", 443))

    async def command(target: Any, member: str, *arguments: Any) -> str:
        kind = type(target).__name__
        signature = {"RemoveAddress": "ya{sv}", "SetBackup": "ba{sv}"}[member]
        reply = await ask(
            caller.bus, path_of(target), f"org.mptcpd1.{kind}", member, signature, *arguments, {}
        )
        return str(reply.error_name or "")

    (subflow,), (other,) = mine.subflows.values(), others.subflows.values()
    unknown = f"{ERROR}NoSuchAddress"  # which only who may command is told
    assert await command(mine, "RemoveAddress", 5) == unknown
    assert await command(others, "RemoveAddress", 5) == ACCESS_DENIED
    assert await command(subflow, "SetBackup", True) == ""
    assert await command(other, "SetBackup", True) == ACCESS_DENIED
    reply = await ask(caller.bus, ROOT, MANAGER, "FlushEndpoints", "a{sv}", {})
    assert reply.error_name == ACCESS_DENIED

    await caller.unregister()
    assert await command(mine, "RemoveAddress", 5) == ACCESS_DENIED
    await caller.register(Port=Variant("aq", [80]))
    assert await command(mine, "RemoveAddress", 5) == ACCESS_DENIED  # it is the plugin's now
    await stage.host.set_owner(mine, "mine")
    assert await command(mine, "RemoveAddress", 5) == unknown


async def test_only_the_action_of_connections_is_a_programs_right(
    stage: Stage, caller: Caller, client: MessageBus
) -> None:
    await caller.register()
    own = stage.connect()
    authority = Authority(Nobody(client, stage.peers), stage.programs)
    call = Call(str(client.unique_name), 1000, interactive=False, member="M")
    manage = next(
        method
        for method in contract(
            stage.state,
            stage.pm,
            stage.host,
            stage.programs,
            features=(),
            counters=dict,
            own=no_socket,
            announce=no_socket,
        )[type(own)].methods
        if method.action == MANAGE_CONNECTIONS
    )

    await authority.check(call, own, manage, {})
    with pytest.raises(BusError):
        await authority.check(call, stage.state, manage, {})
    with pytest.raises(BusError):
        await authority.check(Call(":1.999", 1000, interactive=False, member="M"), own, manage, {})


# Its end


async def test_who_leaves_the_bus_decides_no_more(
    stage: Stage, bus_address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bus = await MessageBus(bus_address=bus_address).connect()
    await Caller(bus).register()
    stage.connect()
    assert owner(stage) == "mine"

    await _leave(bus)
    await until(lambda: owner(stage) == "low")

    assert list(stage.state.policies) == ["low"]
    assert stage.heard_by_plugin.handlers("low", TOKEN) == [
        "new_connection",
        "connection_established",
    ]
    assert "policy mine on the bus decides no more: it has left the bus" in caplog.text
    assert "cut off" not in caplog.text


async def test_who_unregisters_may_register_at_once_and_hears_nothing_between(
    stage: Stage, caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await caller.register()
    stage.connect()
    await until(lambda: len(caller.calls) == 3)

    assert not (await caller.unregister()).error_name
    stage.listeners(3)
    assert owner(stage) == "low"
    assert (await caller.unregister()).error_name == f"{ERROR}NotReady"
    assert not (await caller.register()).error_name
    await until(lambda: len(caller.calls) == 4)

    assert [member for member, _ in caller.told()][3:] == ["Ready"]
    assert "it has unregistered" in caplog.text


async def test_an_administrator_disables_a_program_and_it_is_told(
    stage: Stage, caller: Caller
) -> None:
    await caller.register()
    await until(lambda: len(caller.calls) == 1)

    await stage.host.disable("mine")
    await until(lambda: len(caller.calls) == 2)

    assert caller.told()[1:] == [("Released", ["it was disabled"])]
    await until(lambda: list(stage.state.policies) == ["low"])
    assert not (await caller.register()).error_name
    for command in (stage.host.enable, stage.host.reload):
        with pytest.raises(Exception, match="mine is a program on the bus"):
            await command("mine")


async def test_when_the_bus_goes_all_programs_go(stage: Stage, caller: Caller) -> None:
    await caller.register()
    stage.connect()

    stage.programs.stop()
    await until(lambda: owner(stage) == "low")

    assert list(stage.state.policies) == ["low"]


async def _leave(bus: MessageBus) -> None:
    bus.disconnect()
    await bus.wait_for_disconnect()
    bus._stream.close()  # noqa: SLF001  see the fixture client
    bus._sock.close()  # noqa: SLF001  likewise


class _Slow:
    """Holds up the look whether who registers is still there, once."""

    def __init__(self, transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
        self._look = transport.name_has_owner
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(transport, "name_has_owner", self._held)

    async def _held(self, name: str) -> bool:
        if not self.asked.is_set():
            self.asked.set()
            await self.go_on.wait()
        return await self._look(name)


@pytest.fixture
async def slow(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> _Slow:
    return _Slow(transport, monkeypatch)


async def test_who_leaves_while_it_registers_takes_nobody_elses_name_along(
    stage: Stage,
    caller: Caller,
    bus_address: str,
    slow: _Slow,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    bus = await MessageBus(bus_address=bus_address).connect()
    registering = asyncio.ensure_future(Caller(bus).register())
    await slow.asked.wait()
    registering.cancel()
    await _leave(bus)
    await until(lambda: "it has left the bus" in caplog.text)

    assert not (await caller.register()).error_name
    slow.go_on.set()
    await one_call(stage, caller, 0)
    await one_call(stage, caller, 1)

    assert list(stage.state.policies) == ["low", "mine"]
    assert caplog.text.count("decides no more") == 1


async def test_who_goes_twice_goes_once(
    stage: Stage, caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    """It leaves the bus, or is disabled, while its connections pass on already."""
    await caller.register()
    (program,) = (member.program for member in stage.programs._members.values())  # noqa: SLF001
    (gone,) = (member.gone for member in stage.programs._members.values())  # noqa: SLF001
    assert not (await caller.unregister()).error_name
    assert not (await caller.register()).error_name

    gone()
    program.release("it was disabled")
    await one_call(stage, caller, 1)

    assert list(stage.state.policies) == ["low", "mine"]
    assert "Released" not in [member for member, _ in caller.told()]
    assert caplog.text == ""


async def test_the_name_of_another_gives_no_right_while_it_is_refused(
    stage: Stage, caller: Caller, slow: _Slow
) -> None:
    connection = stage.connect()
    assert owner(stage) == "low"
    registering = asyncio.ensure_future(caller.register("low"))
    await slow.asked.wait()

    reply = await ask(
        caller.bus,
        path_of(connection),
        "org.mptcpd1.Connection",
        "RemoveAddress",
        "ya{sv}",
        5,
        {},
    )
    slow.go_on.set()

    assert reply.error_name == ACCESS_DENIED
    assert (await registering).error_name == f"{ERROR}AlreadyRegistered"


async def test_a_bus_that_goes_in_a_registration_leaves_nothing_unsaid(
    stage: Stage, caller: Caller, slow: _Slow, caplog: pytest.LogCaptureFixture
) -> None:
    registering = asyncio.ensure_future(caller.register())
    await slow.asked.wait()

    stage.tree.stop()
    stage.programs.stop()
    await until(lambda: not stage.programs._tasks)  # noqa: SLF001
    gc.collect()

    assert (await registering).error_name
    assert caplog.text == ""


# Who does not read


async def test_the_first_call_and_every_32nd_ask_for_an_answer(
    stage: Stage, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "ASK_SECONDS", 1000.0)
    await caller.register()
    for port in range(1, 100):
        await one_call(stage, caller, port)

    assert caller.asked() == [1, 33, 65, 97]


async def test_a_call_after_a_while_asks_for_an_answer(
    stage: Stage, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "ASK_SECONDS", 0.0)
    await caller.register()
    await one_call(stage, caller, 0)
    for port in (1, 2):
        await one_call(stage, caller, port)

    assert caller.asked() == [1, 2, 3]


@pytest.mark.parametrize("answers", [False, True])
async def test_128_calls_are_unanswered_and_then_the_deaf_is_cut_off(
    stage: Stage,
    caller: Caller,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answers: bool,
) -> None:
    """Who answers, and is no faster, gets all and stays."""
    monkeypatch.setattr(line, "DEAF_SECONDS", 0.3)
    caller.answers = answers
    await caller.register()
    stage.connect()
    count = 1000
    stage.listeners(count)
    if answers:
        await until(lambda: len(caller.calls) == 3 + count)
        assert (owner(stage), caplog.text) == ("mine", "")
        return

    await until(lambda: owner(stage) == "low")
    await until(lambda: caller.calls[-1].member == "Released")
    assert len(caller.calls) == CALLS_UNANSWERED + 1
    assert caller.asked() == [1]
    assert "policy mine on the bus is cut off: it does not read: 128 calls" in caplog.text


async def test_who_reads_slowly_gets_more_connections_than_calls_may_be_held_back(
    stage: Stage, caller: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When it registers, and when they pass to it from another."""
    monkeypatch.setattr(line, "CALLS_HELD", 512)
    monkeypatch.setattr(line, "CALLS_CROWDED", 128)
    await stage.host.disable("low")
    count = 1000
    for number in range(count):
        stage.connect(number + 1, FourTuple("10.0.1.1", 1024 + number, "10.0.9.1", 80))

    await caller.register()
    await caller.register("next", Priority=Variant("i", 1))
    await caller.unregister()
    owns = [connection.owner for connection in stage.state.connections.values()]

    assert owns == ["next"] * count
    await until(lambda: len(caller.calls) == 2 + 4 * count)
    assert caplog.text == ""


async def test_so_many_calls_are_held_back_and_no_more(
    stage: Stage, caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    caller.answers = False
    await caller.register()
    stage.listeners(CALLS_UNANSWERED - 1 + CALLS_HELD)  # beside Ready
    await asyncio.sleep(0)
    assert list(stage.state.policies) == ["low", "mine"]

    stage.listeners(1, 60000)
    await until(lambda: list(stage.state.policies) == ["low"])

    assert f"{CALLS_HELD} calls were held back" in caplog.text


async def test_who_reads_and_does_not_answer_is_cut_off_with_few_calls_too(
    stage: Stage, caller: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(line, "ANSWER_SECONDS", 0.2)
    caller.answers = False
    await caller.register()
    await until(lambda: caller.calls[-1].member == "Released")

    assert "it does not answer" in caplog.text
    await until(lambda: list(stage.state.policies) == ["low"])


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        ("org.freedesktop.DBus.Error.Failed", True),
        ("org.freedesktop.DBus.Error.UnknownMethod", True),
        ("org.freedesktop.DBus.Error.UnknownObject", False),
        ("org.freedesktop.DBus.Error.UnknownInterface", False),
        ("org.freedesktop.DBus.Error.NoReply", True),  # its own words: the bus did not say so
        ("org.freedesktop.DBus.Error.AccessDenied", True),
    ],
)
async def test_an_error_is_an_answer_unless_it_says_that_nobody_is_there(
    stage: Stage, caller: Caller, error: str, stays: bool
) -> None:
    caller.error = error
    await caller.register()
    if stays:
        stage.listeners(500)
        await until(lambda: len(caller.calls) == 501)
        assert "mine" in stage.state.policies
    else:
        await until(lambda: caller.calls[-1].member == "Released")
        await until(lambda: "mine" not in stage.state.policies)


async def test_answers_that_are_owed_count_as_policies(
    stage: Stage, caller: Caller, other: MessageBus
) -> None:
    """Of the pending replies that the bus allows the daemon none is lost to who comes and goes."""
    caller.answers = False
    for number in range(UID_POLICIES):
        assert not (await caller.register()).error_name
        await until(lambda: len(caller.calls) > number)  # noqa: B023  it is awaited here
        assert not (await caller.unregister()).error_name

    refused = await caller.register()
    assert refused.error_name == f"{ERROR}LimitReached"
    assert refused.body[0].endswith("or owes answers to calls of former ones")
    stranger = Caller(other)
    assert (await stranger.register()).error_name == f"{ERROR}LimitReached"
    await caller.bus.send(Message.new_method_return(caller.calls[0]))
    assert not (await caller.register()).error_name
    assert list(stage.state.policies) == ["low", "mine"]


async def test_who_was_cut_off_waits_before_it_registers_again(
    stage: Stage, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(registry, "BANNED_SECONDS", 0.5)
    caller.answers = False
    await caller.register()
    await until(lambda: "mine" not in stage.state.policies)
    caller.answers = True

    refused = await caller.register()
    assert (refused.error_name, *refused.body) == (
        f"{ERROR}NotReady",
        "policy mine did not read its calls: register again in 1 s",
    )
    assert not (await caller.register("other")).error_name

    async def again() -> None:
        while (await caller.register()).error_name:  # noqa: ASYNC110  time alone lets it in
            await asyncio.sleep(0.05)

    await asyncio.wait_for(again(), 5)

"""The object tree on a real bus, looked at by clients that know nothing of us."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
import subprocess
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from dbus_next import MessageType
from dbus_next.aio import MessageBus

from mptcpd_dbus.bus.error_names import ERROR_NAMES, BusError, on_the_bus
from mptcpd_dbus.bus.interface import Call, Interface, Method, Property, Signal, args
from mptcpd_dbus.bus.names import BUS_NAME, NAME_CALLS, ROOT, TRUSTED_CALLS
from mptcpd_dbus.bus.objects import ObjectTree
from mptcpd_dbus.bus.peers import Peers
from mptcpd_dbus.bus.transport import Transport
from mptcpd_dbus.core import errors
from tests.bus.conftest import ask, encoded, plain, raw_call, raw_client, subscribe, until

ONE = f"{ROOT}/connection/1"
TWO = f"{ROOT}/connection/2"
STANDARD = "org.freedesktop.DBus."


class Thing:
    """What is published."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.state = "created"
        self.counter = 0
        self.broken = False

    def secret(self) -> str:
        """Fail when told to, with what nobody may read."""
        if self.broken:
            raise RuntimeError("secret of /etc/shadow")
        return "fine"


class Service:
    """A tree, what its handlers were given, and who may call them."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.peers = Peers(transport)
        self.handled: list[tuple[Any, ...]] = []
        self.asked: list[tuple[str | None, dict[str, str]]] = []
        self.denied: BusError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.raises: Exception | None = None
        self.connection = Interface(
            "org.mptcpd1.Connection",
            "A connection.",
            (
                Property("Number", "u", lambda thing: thing.number, "Its number.", "const"),
                Property("State", "s", lambda thing: thing.state, "Its state."),
                Property("Text", "s", Thing.secret, "A text."),
                Property("Counter", "t", lambda thing: thing.counter, "Counts.", "false"),
            ),
            (
                Method(
                    "Create",
                    args("s address", "a{sv} options"),
                    args("o made"),
                    self._create,
                    "Creates.",
                    "org.mptcpd1.manage-connections",
                ),
                Method("Look", (), args("u number"), self._look, "Looks."),
            ),
        )
        self.manager = Interface(
            "org.mptcpd1.Manager",
            "The manager.",
            (Property("Version", "s", lambda _: "1", "The version.", "const"),),
            (),
            (Signal("NewConnection", args("o connection", "u token"), "A connection."),),
        )
        self.tree = ObjectTree(transport, self.peers, self._authorise)
        self.tree.add(ROOT, Thing(), [self.manager])
        self.tell = self.tree.event_signal(self.manager, self.manager.signals[0], tuple)

    async def _authorise(
        self, call: Call, target: object, method: Method, details: dict[str, str]
    ) -> bool:
        del call, target
        self.asked.append((method.action, details))
        await self.gate.wait()
        if self.denied is not None:
            raise self.denied
        return False

    async def _create(
        self, target: Thing, call: Call, address: str, options: dict[str, Any]
    ) -> tuple[str]:
        self.handled.append((target.number, call, address, options))
        if self.raises is not None:
            raise self.raises
        return (ONE,)

    async def _look(self, target: Thing, call: Call) -> tuple[int]:
        self.handled.append((target.number, call))
        await self.gate.wait()
        return (target.number,)


@pytest.fixture
async def service(transport: Transport) -> AsyncIterator[Service]:
    service = Service(transport)
    assert await transport.request_name(BUS_NAME)
    service.tree.start()
    yield service
    service.tree.stop()
    service.peers.stop()


# What is told


async def test_signals_come_in_the_promised_order(service: Service, client: MessageBus) -> None:
    heard = await subscribe(client)
    one, two = Thing(1), Thing(2)
    service.tree.add(ONE, one, [service.connection])
    service.tree.flush()

    service.tree.remove(ONE)
    service.tree.add(TWO, two, [service.connection])
    service.tell((TWO, 7))
    service.tell((TWO, 8))
    two.state = "established"
    service.tree.changed(TWO)
    service.tree.flush()
    two.state = "closing"
    service.tree.changed(TWO)
    service.tell((TWO, 9))
    service.tree.flush()
    await until(lambda: len(heard) == 7)

    assert [(s.member, s.path, plain(s.body)) for s in heard[1:]] == [
        (
            "InterfacesAdded",
            ROOT,
            [
                TWO,
                {
                    "org.mptcpd1.Connection": {
                        "Number": 2,
                        "State": "established",
                        "Text": "fine",
                        "Counter": 0,
                    }
                },
            ],
        ),
        ("NewConnection", ROOT, [TWO, 7]),
        ("NewConnection", ROOT, [TWO, 8]),
        ("InterfacesRemoved", ROOT, [ONE, ["org.mptcpd1.Connection"]]),
        ("NewConnection", ROOT, [TWO, 9]),
        ("PropertiesChanged", TWO, ["org.mptcpd1.Connection", {"State": "closing"}, []]),
    ]


async def test_what_came_and_went_within_a_batch_or_did_not_change_is_not_told(
    service: Service, client: MessageBus
) -> None:
    heard = await subscribe(client)
    thing = Thing(1)
    service.tree.add(ONE, thing, [service.connection])
    service.tree.flush()
    thing.counter = 5
    thing.number = 99  # said to be constant
    service.tree.changed(ONE)
    service.tree.add(TWO, Thing(2), [service.connection])
    service.tree.changed(TWO)
    service.tree.remove(TWO)
    service.tell((TWO, 1))
    service.tree.flush()
    await until(lambda: len(heard) == 2)

    assert [s.member for s in heard] == ["InterfacesAdded", "NewConnection"]


async def test_an_object_replaced_within_a_batch_is_removed_and_added(
    service: Service, client: MessageBus
) -> None:
    heard = await subscribe(client)
    service.tree.add(ONE, Thing(1), [service.connection])
    service.tree.flush()
    service.tree.remove(ONE)
    service.tree.add(ONE, Thing(2), [service.connection])
    service.tree.flush()
    await until(lambda: len(heard) == 3)

    assert [s.member for s in heard] == ["InterfacesAdded", "InterfacesRemoved", "InterfacesAdded"]
    assert plain(heard[2].body)[1]["org.mptcpd1.Connection"]["Number"] == 2


async def test_an_object_is_callable_before_it_is_announced(
    service: Service, client: MessageBus
) -> None:
    heard = await subscribe(client)
    service.tree.add(ONE, Thing(7), [service.connection])

    early = await ask(client, ONE, "org.mptcpd1.Connection", "Look")
    managed_early = await ask(client, ROOT, STANDARD + "ObjectManager", "GetManagedObjects")
    assert not heard
    service.tree.flush()
    await until(lambda: bool(heard))

    assert early.body == [7]
    assert managed_early.body == [{}]
    assert heard[0].body[0] == ONE


async def test_managed_objects_are_what_get_all_says(service: Service, client: MessageBus) -> None:
    things = {f"{ROOT}/connection/{number}": Thing(number) for number in range(300)}
    for path, thing in things.items():
        service.tree.add(path, thing, [service.connection])
    service.tree.flush()
    for round_number in range(2):
        for thing in list(things.values())[::7]:
            thing.state = f"state {round_number}"
            thing.counter += 1
        for path in things:
            service.tree.changed(path)
        service.tree.flush()
        for thing in things.values():
            thing.counter += 1  # nobody is told of it, but who asks

        managed = await ask(client, ROOT, STANDARD + "ObjectManager", "GetManagedObjects")

        assert managed.signature == "a{oa{sa{sv}}}"
        assert list(managed.body[0]) == list(things)
        for path in list(things)[::60]:
            everything = await ask(
                client, path, STANDARD + "Properties", "GetAll", "s", "org.mptcpd1.Connection"
            )
            assert plain(managed.body[0][path]) == {
                "org.mptcpd1.Connection": plain(everything.body[0])
            }


async def test_who_asks_for_everything_takes_no_change_away_from_who_listens(
    service: Service, client: MessageBus
) -> None:
    heard = await subscribe(client)
    thing = Thing(1)
    service.tree.add(ONE, thing, [service.connection])
    service.tree.flush()
    thing.state = "established"
    service.tree.changed(ONE)

    await ask(client, ROOT, STANDARD + "ObjectManager", "GetManagedObjects")
    service.tree.flush()
    await until(lambda: len(heard) == 2)

    assert plain(heard[1].body) == ["org.mptcpd1.Connection", {"State": "established"}, []]


async def test_an_object_that_is_gone_is_not_managed_any_more(
    service: Service, client: MessageBus
) -> None:
    service.tree.add(ONE, Thing(1), [service.connection])
    service.tree.add(TWO, Thing(2), [service.connection])
    service.tree.flush()
    service.tree.remove(ONE)

    managed = await ask(client, ROOT, STANDARD + "ObjectManager", "GetManagedObjects")

    assert list(managed.body[0]) == [TWO]


async def test_a_large_answer_is_charged_to_its_caller(
    service: Service, client: MessageBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    charged: list[int] = []
    monkeypatch.setattr(service.peers, "charge", lambda _, size: charged.append(size))
    for number in range(100):
        service.tree.add(f"{ROOT}/connection/{number}", Thing(number), [service.connection])
    service.tree.flush()

    await ask(client, ONE, STANDARD + "Peer", "Ping")
    await ask(client, ROOT, STANDARD + "ObjectManager", "GetManagedObjects")

    assert charged[0] < 100
    assert charged[1] > 100 * 100


async def test_objects_from_before_the_name_are_there_without_a_signal(
    transport: Transport, client: MessageBus
) -> None:
    service = Service(transport)
    heard = await subscribe(client)
    service.tree.add(ONE, Thing(1), [service.connection])
    service.tree.flush()
    service.tell((ONE, 1))
    assert await transport.request_name(BUS_NAME)
    service.tree.start()

    managed = await ask(client, ROOT, STANDARD + "ObjectManager", "GetManagedObjects")

    assert list(managed.body[0]) == [ONE]
    assert not heard
    service.tree.stop()


async def test_a_large_answer_is_built_without_holding_the_loop(
    service: Service, client: MessageBus
) -> None:
    count = 10_000
    service.tree.stop()  # nobody is told, so no entry is built yet
    for number in range(count):
        service.tree.add(f"{ROOT}/connection/{number}", Thing(number), [service.connection])
    service.tree.start()
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    work = asyncio.ensure_future(service.tree._managed_objects())  # noqa: SLF001  without the bus
    others = asyncio.ensure_future(take_turns())
    body = b"".join(await work)
    others.cancel()
    managed = await ask(client, ROOT, STANDARD + "ObjectManager", "GetManagedObjects")

    assert turns > 5
    assert len(body) > count * 100
    assert len(managed.body[0]) == count


_WATCHER = """
import sys, gi
gi.require_version("Gio", "2.0")
from gi.repository import Gio, GLib
bus = Gio.DBusConnection.new_for_address_sync(
    sys.argv[1],
    Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION,
    None, None)
manager = Gio.DBusObjectManagerClient.new_sync(
    bus, Gio.DBusObjectManagerClientFlags.NONE, "org.mptcpd1", "/org/mptcpd1", None, None, None)
def say(*words):
    print(*words, flush=True)
def state(thing):
    proxy = thing.get_interface("org.mptcpd1.Connection")
    return proxy.get_cached_property("State").get_string()
manager.connect("object-added", lambda m, o: say("added", o.get_object_path(), state(o)))
manager.connect("object-removed", lambda m, o: say("removed", o.get_object_path()))
manager.connect("interface-proxy-properties-changed",
    lambda m, o, i, changed, invalidated: say("changed", o.get_object_path(), state(o)))
for thing in manager.get_objects():
    say("found", thing.get_object_path(), state(thing))
say("ready")
GLib.MainLoop().run()
"""


async def test_an_object_manager_client_of_glib_sees_objects_come_change_and_go(
    service: Service, bus_address: str
) -> None:
    thing = Thing(2)
    service.tree.add(ONE, Thing(1), [service.connection])
    service.tree.flush()
    watcher = await asyncio.create_subprocess_exec(
        "/usr/bin/python3", "-c", _WATCHER, bus_address, stdout=asyncio.subprocess.PIPE
    )
    assert watcher.stdout is not None
    lines = []
    try:
        async with asyncio.timeout(10):
            while b"ready\n" not in lines:
                lines.append(await watcher.stdout.readline())
            service.tree.add(TWO, thing, [service.connection])
            service.tree.flush()
            thing.state = "established"
            service.tree.changed(TWO)
            service.tree.flush()
            service.tree.remove(TWO)
            service.tree.flush()
            lines += [await watcher.stdout.readline() for _ in range(3)]
    finally:
        watcher.kill()
        await watcher.wait()

    assert [line.decode().split() for line in lines] == [
        ["found", ONE, "created"],
        ["ready"],
        ["added", TWO, "created"],
        ["changed", TWO, "established"],
        ["removed", TWO],
    ]


# What is answered


async def test_busctl_finds_its_way_through_the_tree(service: Service, bus_address: str) -> None:
    service.tree.add(ONE, Thing(1), [service.connection])
    service.tree.add(f"{ROOT}/endpoint/3", Thing(3), [service.connection])

    async def tree() -> list[str]:
        process = await asyncio.create_subprocess_exec(
            "busctl", f"--address={bus_address}", "tree", "--list", BUS_NAME, stdout=subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(process.communicate(), 10)
        return out.decode().split()

    full = await tree()
    service.tree.remove(ONE)
    pruned = await tree()

    parents = ["/", "/org", ROOT]
    assert full == [*parents, f"{ROOT}/connection", ONE, f"{ROOT}/endpoint", f"{ROOT}/endpoint/3"]
    assert pruned == [*parents, f"{ROOT}/endpoint", f"{ROOT}/endpoint/3"]


@pytest.mark.parametrize(
    ("path", "interface", "member", "signature", "body", "error"),
    [
        (TWO, "org.mptcpd1.Connection", "Look", "", (), "UnknownObject"),
        (f"{ROOT}x", STANDARD + "Introspectable", "Introspect", "", (), "UnknownObject"),
        (f"{ROOT}/connection", "org.mptcpd1.Connection", "Look", "", (), "UnknownInterface"),
        (ONE, "org.mptcpd1.Subflow", "Look", "", (), "UnknownInterface"),
        (ONE, STANDARD + "ObjectManager", "GetManagedObjects", "", (), "UnknownInterface"),
        (ONE, "org.mptcpd1.Connection", "Lok", "", (), "UnknownMethod"),
        (ONE, STANDARD + "Peer", "Introspect", "", (), "UnknownMethod"),
        (ONE, None, "Nothing", "", (), "UnknownMethod"),
        (ONE, "org.mptcpd1.Connection", "Look", "s", ("x",), "InvalidArgs"),
        (ONE, "org.mptcpd1.Connection", "Create", "s", ("x",), "InvalidArgs"),
        (ONE, STANDARD + "Properties", "Get", "s", ("x",), "InvalidArgs"),
        (ONE, STANDARD + "Properties", "Get", "oo", ("/a", "/b"), "InvalidArgs"),
        (ONE, STANDARD + "Properties", "Get", "ss", ("a.b", "State"), "UnknownInterface"),
        (ONE, STANDARD + "Properties", "GetAll", "s", ("a.b",), "UnknownInterface"),
        (ONE, STANDARD + "Properties", "Get", "ss", ("", "Stat"), "UnknownProperty"),
    ],
)
async def test_errors_have_their_standard_names(
    service: Service,
    client: MessageBus,
    *,
    path: str,
    interface: str | None,
    member: str,
    signature: str,
    body: tuple[str, ...],
    error: str,
) -> None:
    service.tree.add(ONE, Thing(1), [service.connection])

    reply = await ask(client, path, interface, member, signature, *body)

    assert reply.error_name == STANDARD + "Error." + error
    assert len(reply.body[0].splitlines()) == 1
    assert not service.handled


async def test_properties_are_read_and_never_written(service: Service, bus_address: str) -> None:
    service.tree.add(ONE, Thing(1), [service.connection])

    async def busctl(*words: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            "busctl",
            f"--address={bus_address}",
            *words,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 10)
        return process.returncode, out.decode().strip()

    where = (BUS_NAME, ONE, "org.mptcpd1.Connection")
    assert await busctl("get-property", *where, "Number", "State") == (0, 'u 1\ns "created"')
    for name, error in (("State", "read-only"), ("Nothing", "no property Nothing")):
        status, text = await busctl("set-property", *where, name, "s", "x")
        assert status != 0
        assert error in text


async def test_a_getter_that_fails_costs_only_its_own_property(
    service: Service, client: MessageBus, caplog: pytest.LogCaptureFixture
) -> None:
    thing = Thing(1)
    thing.broken = True
    service.tree.add(ONE, thing, [service.connection])
    service.tree.flush()

    everything = await ask(client, ONE, STANDARD + "Properties", "GetAll", "s", "")
    managed = await ask(client, ROOT, STANDARD + "ObjectManager", "GetManagedObjects")
    single = await ask(client, ONE, STANDARD + "Properties", "Get", "ss", "", "Text")

    expected = {"Number": 1, "State": "created", "Counter": 0}
    assert plain(everything.body[0]) == expected
    assert plain(managed.body[0]) == {ONE: {"org.mptcpd1.Connection": expected}}
    assert (single.error_name, single.body) == (STANDARD + "Error.Failed", ["internal error"])
    assert "secret of /etc/shadow" in caplog.text


async def test_a_peer_is_a_peer_on_every_path(service: Service, client: MessageBus) -> None:
    del service
    ping = await ask(client, "/nowhere", STANDARD + "Peer", "Ping")
    first, second = [await ask(client, ROOT, STANDARD + "Peer", "GetMachineId") for _ in range(2)]

    assert ping.message_type is MessageType.METHOD_RETURN
    assert len(first.body[0]) == 32
    assert first.body == second.body


# What is handled


async def test_a_handler_gets_its_target_caller_and_arguments(
    service: Service, client: MessageBus
) -> None:
    service.tree.add(ONE, Thing(5), [service.connection])

    for interface in ("org.mptcpd1.Connection", None):
        reply = await ask(client, ONE, interface, "Create", "sa{sv}", "192.0.2.1", {})
        assert reply.body == [ONE]

    assert client.unique_name is not None
    given: tuple[Any, ...] = ("192.0.2.1", {})
    call = Call(client.unique_name, 0, interactive=False, member="Create", arguments=given)
    assert service.handled == [(5, call, *given)] * 2
    assert service.asked == [("org.mptcpd1.manage-connections", {"address": "192.0.2.1"})] * 2


async def test_a_handler_does_not_run_when_its_caller_may_not(
    service: Service, client: MessageBus
) -> None:
    service.tree.add(ONE, Thing(5), [service.connection])
    create: Callable[[], Any] = lambda: ask(  # noqa: E731  the same call three times
        client, ONE, "org.mptcpd1.Connection", "Create", "sa{sv}", "192.0.2.1", {}
    )

    service.denied = BusError(STANDARD + "Error.AccessDenied", "no")
    denied = await create()
    assert not service.handled
    service.denied = None
    allowed = await create()

    assert denied.error_name == STANDARD + "Error.AccessDenied"
    assert allowed.body == [ONE]
    assert len(service.handled) == 1


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_target_that_went_while_polkit_was_asked_is_not_touched(
    service: Service, client: MessageBus, replaced: bool
) -> None:
    service.tree.add(ONE, Thing(5), [service.connection])
    service.gate.clear()
    waiting = asyncio.ensure_future(
        ask(client, ONE, "org.mptcpd1.Connection", "Create", "sa{sv}", "192.0.2.1", {})
    )
    await until(lambda: bool(service.asked))

    service.tree.remove(ONE)
    if replaced:
        service.tree.add(ONE, Thing(6), [service.connection])
    service.gate.set()

    assert (await waiting).error_name == STANDARD + "Error.UnknownObject"
    assert not service.handled


async def test_no_traceback_crosses_the_bus(
    service: Service, client: MessageBus, caplog: pytest.LogCaptureFixture
) -> None:
    service.tree.add(ONE, Thing(5), [service.connection])
    answers = {}
    for error in (
        RuntimeError("in /usr/lib/secret.py"),
        errors.KernelRefused("SUBFLOW_CREATE", 101, "no route\nsecond line"),
        errors.InvalidArgument("address 'x' is no IP address"),
    ):
        service.raises = error
        reply = await ask(client, ONE, "org.mptcpd1.Connection", "Create", "sa{sv}", "x", {})
        answers[reply.error_name] = reply.body[0]

    assert answers == {
        STANDARD + "Error.Failed": "internal error",
        "org.mptcpd1.Error.KernelRefused": (
            "the kernel refused SUBFLOW_CREATE: ENETUNREACH (no route second line)"
        ),
        STANDARD + "Error.InvalidArgs": "address 'x' is no IP address",
    }
    assert "in /usr/lib/secret.py" in caplog.text


def test_every_error_of_ours_has_a_name_on_the_bus() -> None:
    def family(error: type[errors.MptcpdError]) -> set[type[errors.MptcpdError]]:
        return {error}.union(*(family(child) for child in error.__subclasses__()))

    ours = {kind for kind in family(errors.MptcpdError) if kind.__module__ == errors.__name__}
    assert ours == set(ERROR_NAMES)
    assert on_the_bus(errors.NotReady("later")).name == "org.mptcpd1.Error.NotReady"


_CALLER = """
import sys, gi
gi.require_version("Gio", "2.0")
from gi.repository import Gio, GLib
bus = Gio.DBusConnection.new_for_address_sync(
    sys.argv[1],
    Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION,
    None, None)
loop = GLib.MainLoop()
left = int(sys.argv[2])
def done(source, result):
    global left
    try:
        print("answer", source.call_finish(result).unpack()[0], flush=True)
    except GLib.Error as error:
        print(Gio.DBusError.get_remote_error(error), flush=True)
    left -= 1
    if not left:
        loop.quit()
for _ in range(left):
    bus.call("org.mptcpd1", sys.argv[3], "org.mptcpd1.Connection", "Look", None, None,
             Gio.DBusCallFlags.NONE, -1, None, done)
loop.run()
"""
NOBODY = 65534


@pytest.mark.usefixtures("people")
async def test_calls_at_work_are_bounded_and_free_again(service: Service, bus_address: str) -> None:
    service.tree.add(ONE, Thing(5), [service.connection])
    for _ in range(2):
        service.handled.clear()
        service.gate.clear()
        caller = await asyncio.create_subprocess_exec(
            "/usr/bin/python3",
            "-c",
            _CALLER,
            bus_address,
            "40",
            ONE,
            stdout=asyncio.subprocess.PIPE,
            user=NOBODY,
        )
        assert caller.stdout is not None
        async with asyncio.timeout(10):
            refused = [await caller.stdout.readline() for _ in range(40 - NAME_CALLS)]
            service.gate.set()
            answered = await caller.stdout.read()
            await caller.wait()

        assert set(refused) == {b"org.freedesktop.DBus.Error.LimitsExceeded\n"}
        assert answered == b"answer 5\n" * NAME_CALLS
        assert len(service.handled) == NAME_CALLS
        assert {call.uid for _, call in service.handled} == {NOBODY}


async def test_root_may_have_more_calls_at_work(service: Service, client: MessageBus) -> None:
    service.tree.add(ONE, Thing(5), [service.connection])
    await ask(client, ONE, STANDARD + "Peer", "Ping")
    service.gate.clear()

    calls = [
        asyncio.ensure_future(ask(client, ONE, "org.mptcpd1.Connection", "Look"))
        for _ in range(100)
    ]
    await until(lambda: len(service.handled) == 100)
    service.gate.set()
    replies = await asyncio.gather(*calls)

    assert NAME_CALLS < 100 < TRUSTED_CALLS
    assert {reply.message_type for reply in replies} == {MessageType.METHOD_RETURN}


async def test_a_flood_from_one_client_does_not_keep_another_waiting(
    service: Service, bus_address: str, client: MessageBus, record_property: Callable[..., None]
) -> None:
    service.tree.add(ONE, Thing(5), [service.connection])
    loop = asyncio.get_running_loop()
    flooding = True

    def flood() -> int:
        raw = raw_client(bus_address)
        call = raw_call(
            BUS_NAME,
            ONE,
            "GetAll",
            encoded(""),
            interface=STANDARD + "Properties",
            signature="s",
            flags="1",
        )
        sent = 0
        while flooding:
            raw.sendall(call * 50)
            sent += 50
        raw.close()
        return sent

    flooder = loop.run_in_executor(None, flood)
    await until(lambda: service.peers.refused > 1000, 20)
    slowest = 0.0
    try:
        for _ in range(20):
            before = loop.time()
            reply = await ask(client, ONE, "org.mptcpd1.Connection", "Look")
            slowest = max(slowest, loop.time() - before)
            assert reply.body == [5]
    finally:
        flooding = False
        sent = await flooder

    record_property("slowest answer while flooded", slowest)
    logging.getLogger(__name__).info(
        "flood: %d calls sent, %d refused, slowest honest answer %.3f s",
        sent,
        service.peers.refused,
        slowest,
    )
    assert slowest < 1

"""The examples that only look have the true picture, also after a daemon's death."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import importlib.util
import re
from types import SimpleNamespace
from typing import Any

import pytest
from dbus_next import Message, MessageType, Variant

from tests.documents import EXAMPLES
from tests.e2e.conftest import MakeStage
from tests.e2e.examples import SPARE, argv_of
from tests.e2e.stage import CONNECTION, MANAGER, SUBFLOW
from tests.lab.bus import PrivateBus
from tests.lab.client import BUS, NAME, ROOT, BusClient
from tests.lab.hosts import SERVER
from tests.lab.program import Program
from tests.lab.wait import eventually

# watch.py


def _watched(lines: list[str]) -> dict[str, dict[str, str]]:
    """Give what a reader of the lines believes: paths and the properties that changed."""
    picture: dict[str, dict[str, str]] = {}
    for line in lines:
        mark, _, rest = line.partition(" ")
        path, _, words = rest.partition(" ")
        match mark:
            case "+":
                assert path not in picture
                picture[path] = {}
            case "-":
                del picture[path]
            case "=":
                name, _, value = words.partition(" ")
                picture[path][name] = value
            case _:
                pass
    return picture


async def test_the_watcher_believes_the_truth_from_any_moment_on(stage: MakeStage) -> None:
    """It begins amid connections that come and go."""
    it = await stage("--settle-time", "0")  # or short connections would be no objects
    echo, port = await it.server.call("listen", address=SERVER[4])
    await it.server.call("echo", listener=echo)
    churn = asyncio.create_task(
        it.client.call("churn", count=300, address=SERVER[4], port=port, rate=200, limit=60)
    )
    await it.heard("NewConnection", within=5)

    async with await Program.start(*argv_of("watch.py")) as watch:

        async def believes_the_truth() -> bool:
            objects = await it.viewer.managed_objects()
            shown = {
                path: {**its.get(CONNECTION, {}), **its.get(SUBFLOW, {})}
                for path, its in objects.items()
                if CONNECTION in its or SUBFLOW in its
            }
            picture = _watched(watch.said)
            assert picture.keys() == shown.keys()
            for path, told in picture.items():
                assert told.items() <= {k: str(v) for k, v in shown[path].items()}.items()
            return True

        await watch.line(lambda line: line.startswith("+"))
        await churn
        pair, path = await it.connection(await it.listener())
        subflow = await it.create_subflow(path, LocalAddress=SPARE)
        await it.command(subflow, SUBFLOW, "SetBackup", "ba{sv}", True, {})
        await watch.line(lambda line: line == f"= {subflow} BackupRequested True")
        await eventually(believes_the_truth)
        assert {path, subflow} <= _watched(watch.said).keys()

        it.daemon.kill()
        await watch.line(lambda line: "has stopped" in line)
        assert _watched(watch.said) == {}
        await it.daemon.start()
        await eventually(believes_the_truth)
        assert len(_watched(watch.said)) == 3
        await it.client.call("close", number=pair.client)
        await eventually(lambda: _watched(watch.said) == {})


async def test_the_watcher_waits_for_a_daemon(stage: MakeStage) -> None:
    it = await stage()
    await it.daemon.stop()

    async with await Program.start(*argv_of("watch.py")) as watch:
        await watch.line(lambda line: "is not running" in line)
        await it.daemon.start()
        _, path = await it.connection(await it.listener())
        await watch.line(lambda line: line.startswith(f"+ {path} 10.0.1.1 "))


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Give a watcher that asked for the objects, what it says, and a way to play messages to it."""
    spec = importlib.util.spec_from_file_location("watch", EXAMPLES / "watch.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    said: list[str] = []
    monkeypatch.setattr(module, "say", said.append)
    asked: list[Message] = []
    numbers = iter(range(1, 100))
    watch = module.Watch(SimpleNamespace(next_serial=lambda: next(numbers), send=asked.append))
    watch.ask()

    def answer(*paths: str, sender: str = ":1.1") -> None:
        body = [{path: _subflow() for path in paths}]
        kind = MessageType.METHOD_RETURN
        serial = asked[-1].serial
        watch.hear(
            Message(":1.9", message_type=kind, reply_serial=serial, sender=sender, body=body)
        )

    def signal(member: str, *body: Any, sender: str = ":1.1") -> None:
        kind = MessageType.SIGNAL
        message = Message(
            path=ROOT, interface="x.y", member=member, message_type=kind, body=list(body)
        )
        message.sender = sender
        watch.hear(message)

    return SimpleNamespace(said=said, asked=asked, answer=answer, signal=signal)


def _subflow() -> dict[str, dict[str, Variant]]:
    ends = {"LocalAddress": "10.0.0.1", "RemoteAddress": "10.0.0.2", "Interface": "link1"}
    ports = {"LocalPort": 1, "RemotePort": 2}
    return {
        SUBFLOW: {
            **{name: Variant("s", value) for name, value in ends.items()},
            **{name: Variant("q", value) for name, value in ports.items()},
        }
    }


def test_what_came_before_the_answer_is_old_and_what_follows_it_is_new(
    watching: SimpleNamespace,
) -> None:
    """Also when all of it is read at once, so that nobody had a turn in between."""
    watching.signal("InterfacesAdded", "/gone", _subflow())
    watching.signal("InterfacesRemoved", "/gone", [])
    watching.answer("/a", "/b")
    watching.signal("InterfacesRemoved", "/a", [])
    watching.signal("InterfacesAdded", "/c", _subflow())

    assert _watched(watching.said).keys() == {"/b", "/c"}
    assert not any("/gone" in line for line in watching.said)


def test_dropped_signals_make_it_ask_anew(watching: SimpleNamespace) -> None:
    watching.answer("/a", "/b")
    watching.signal("SignalsDropped", 7)
    assert len(watching.asked) == 2
    watching.answer("/b", "/c")

    assert watching.said[2:] == [line for line in watching.said if "/a" in line or "/c" in line][1:]
    assert _watched(watching.said).keys() == {"/b", "/c"}


def test_strangers_tell_it_nothing(watching: SimpleNamespace) -> None:
    """The control: the daemon does, and the bus does when the daemon goes."""
    watching.answer("/a")
    for member, body in (
        ("InterfacesRemoved", ("/a", [])),
        ("NameOwnerChanged", (NAME, ":1.1", "")),
    ):
        watching.signal(member, *body, sender=":1.66")
    assert _watched(watching.said).keys() == {"/a"}

    watching.signal("InterfacesAdded", "/b", _subflow())
    assert _watched(watching.said).keys() == {"/a", "/b"}
    watching.signal("NameOwnerChanged", NAME, ":1.1", "", sender=BUS)
    assert _watched(watching.said) == {}


# watch.py and panel.py, with a service that does what ours cannot be made to do


class StandIn:
    """Owns the name, refuses to answer as often as it is told to, and then has these objects."""

    def __init__(self, bus: BusClient, refusals: int = 0) -> None:
        self.objects: dict[str, Any] = {}
        self._bus, self._refusals = bus, refusals
        bus.watch(self._answer)

    def _answer(self, message: Message) -> None:
        if message.message_type is not MessageType.METHOD_CALL:
            return
        known = message.member == "GetManagedObjects"
        if not known or self._refusals:
            self._refusals -= known
            answer = Message.new_error(message, f"{BUS}.Error.LimitsExceeded", "slow down")
        else:
            answer = Message.new_method_return(message, "a{oa{sa{sv}}}", [self.objects])
        self._bus.send(answer)

    def drop(self) -> None:
        """Tell that signals were dropped."""
        self._bus.send(Message.new_signal(ROOT, MANAGER, "SignalsDropped", "t", [1]))


@pytest.mark.parametrize(
    ("example", "before", "after"),
    [
        ("watch.py", "+ /a 10.0.0.1 1 -> 10.0.0.2 2", "+ /b 10.0.0.1 1 -> 10.0.0.2 2"),
        ("panel.py", "0 connections, 1 over link1", "0 connections, 2 over link1"),
    ],
)
async def test_followers_ask_again_when_refused_and_when_signals_were_dropped(
    bus: PrivateBus, example: str, before: str, after: str
) -> None:
    """The control: what is there meanwhile and was not told, they do not see."""
    del bus
    async with await BusClient.connect() as server:
        service = StandIn(server, refusals=1)
        service.objects["/a"] = _subflow()
        await server.bus_call("RequestName", "su", NAME, 4)
        async with await Program.start(*argv_of(example)) as follower:
            await follower.line(lambda line: "asking again in a second: " in line)
            await follower.line(lambda line: line == before)
            service.objects["/b"] = _subflow()
            assert after not in follower.said
            service.drop()
            await follower.line(lambda line: line == after)


# panel.py


async def test_the_panel_says_what_carries_how_much(stage: MakeStage) -> None:
    it = await stage()
    async with await Program.start(*argv_of("panel.py")) as panel:

        async def says(*lines: str) -> None:
            await eventually(lambda: panel.said == [*lines])

        nothing, one = "0 connections", "1 connections, 1 over link1"
        two, gone = (
            f"{one}, 1 over link2",
            "mptcpd-dbus is not running (systemctl start mptcpd-dbus)",
        )
        await says(nothing)
        pair, path = await it.connection(await it.listener())
        await says(nothing, one)
        await it.create_subflow(path, LocalAddress=SPARE)
        await says(nothing, one, two)
        it.daemon.kill()
        await says(nothing, one, two, gone)
        await it.daemon.start()
        await says(nothing, one, two, gone, two)
        await it.client.call("close", number=pair.client)
        await says(nothing, one, two, gone, two, nothing)


# paths.sh


async def test_the_script_prints_the_paths_of_the_kernel(stage: MakeStage) -> None:
    it = await stage()
    pair, path = await it.connection(await it.listener())
    subflow = await it.create_subflow(path, LocalAddress=SPARE, Backup=True)
    await it.agreed()

    def printed(*arguments: str) -> set[tuple[Any, ...]]:
        text = it.lab.run("client", argv_of("paths.sh", *arguments))
        form = r"(\w{8})  (\S+) (\d+) -> (\S+) (\d+)  (\S+)  (backup|-)  (\d+)"
        lines = [re.fullmatch(form, line) for line in text.splitlines()]
        assert all(line and int(line[8]) for line in lines), text
        return {
            (int(line[1], 16), (line[2], int(line[3])), (line[4], int(line[5])), line[7])
            for line in lines
            if line
        }

    sockets = {(*s[:3], "backup" if any(s[4]) else "-") for s in it.sockets()}
    assert len(sockets) == 2
    assert printed() == sockets
    assert printed("link2") == {s for s in sockets if s[1][0] == SPARE}
    assert {s[0] for s in sockets} == {pair.token}
    await it.command(subflow, SUBFLOW, "Destroy", "a{sv}", {})
    assert printed("link2") == set()


async def test_the_script_says_what_to_do_without_a_daemon(stage: MakeStage) -> None:
    it = await stage()
    await it.daemon.stop()

    async with await Program.start(*argv_of("paths.sh")) as script:
        assert await script.ended() == 1
    assert "systemctl status mptcpd-dbus" in script.said[-1]

"""An ordinary user attacks the daemon, and nobody but the attacker is the worse for it.

While alice attacks, from a process of her own, the memory of the daemon stays within a bound and
her neighbour carol gets an answer to every call within a second; after it the objects are still
what ss(8) shows.  Each test shows that the attack took place, and tells its figures (pytest -s).
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import json
import os
import subprocess
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from dbus_next import Variant
from dbus_next.aio import MessageBus
from dbus_next.signature import SignatureTree

from mptcpd_dbus.bus.names import LARGE_BURST, LARGE_RATE, UID_BURST, UID_DIALOGUES
from tests.conftest import LOGS
from tests.e2e.conftest import MakeStage
from tests.e2e.stage import MANAGER, PORT, Stage
from tests.lab.bus import ADDRESS, Agent, Kind, PrivateBus, installed_kinds
from tests.lab.client import BUS, NAME, ROOT, BusClient
from tests.lab.hosts import SERVER, Lab
from tests.lab.memory import highest_memory, memory_now
from tests.lab.sandbox import readable_repository
from tests.lab.users import as_user
from tests.lab.wait import eventually
from tests.system.product import SYSTEMS, Installed

GROWTH = 40 << 20  # of the daemon's resident memory at its highest
PATIENCE = 1.0  # seconds that an honest caller waits at most
FLOOD_PATIENCE = 5.0  # on a machine that was busy otherwise
BARE_POLICY = """<busconfig><policy context="default">
<allow own="org.example.Bare"/><allow send_destination="org.example.Bare"/>
</policy></busconfig>"""
CONNECTIONS = 500
CHURN = 3000
REFUSAL = 200  # bytes that one takes at most
ERROR = f"{BUS}.Error."


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on both buses, and on booted systems unless it needs agents of polkit there."""
    places = [pytest.param(None, kind, id=kind) for kind in installed_kinds()]
    if metafunc.function is not test_parked_dialogues_do_not_stop_the_commands_of_others:
        places += [
            pytest.param(system, system[1], id=f"{system[0]}-{system[1]}", marks=pytest.mark.booted)
            for system in SYSTEMS
        ]
    metafunc.parametrize(("booted", "bus"), places, indirect=True)


@pytest.fixture
def booted(booted: Installed | None, tmp_path: Path) -> Installed | None:
    """Give the system, if it is one, with a policy for a bare service, too."""
    if booted is None:
        return None
    layer = tmp_path / "layer"
    directory = layer / "etc/dbus-1/system.d"
    directory.mkdir(parents=True)
    (directory / "bare.conf").write_text(BARE_POLICY)
    return replace(booted, layers=(layer, *booted.layers))


@dataclass(frozen=True)
class SystemBus:
    """The bus of a booted system."""

    kind: Kind


@pytest.fixture
def bus(
    request: pytest.FixtureRequest, people: None, tmp_path: Path, booted: Installed | None
) -> Iterator[PrivateBus | SystemBus]:
    """Give each kind of bus with our policy and actions, and polkitd."""
    del people  # they must only be there
    if booted is not None:
        yield SystemBus(booted.bus)
        return
    repository = readable_repository()
    bare = tmp_path / "bare.conf"
    bare.write_text(BARE_POLICY)
    with PrivateBus(
        kind=request.param,
        policies=[*sorted((repository / "dbus").glob("*.conf")), bare],
        polkit=True,
        actions=sorted((repository / "polkit").glob("*.policy")),
    ) as private:
        request.node.stash.setdefault(LOGS, {})["bus"] = private.logs
        yield private


class Outsider:
    """A process of another user that plays a role; see `hostile_client.py`."""

    def __init__(self, user: str, role: str, *more: str, lab: Lab | None = None) -> None:
        argv = ["/usr/bin/python3", "-m", "tests.e2e.hostile_client", role, *more]
        self._process = subprocess.Popen(
            lab.command("client", argv, user) if lab else as_user(user, argv),
            cwd=readable_repository(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    async def report(self, within: float = 30) -> dict[str, Any]:
        """Read what it tells next."""
        assert self._process.stdout is not None
        async with asyncio.timeout(within):
            line = await asyncio.to_thread(self._process.stdout.readline)
        assert line, "the outsider has died"
        told = json.loads(line)
        assert isinstance(told, dict)
        return told

    def nod(self) -> None:
        """Let it go on."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    async def go_on(self, within: float = 30) -> dict[str, Any]:
        """Let it go on; give what it then tells."""
        self.nod()
        return await self.report(within)

    def leave(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


class Siege:
    """A daemon under attack."""

    def __init__(self, play: Stage, kind: Kind, stack: AsyncExitStack) -> None:
        self.play, self.kind = play, kind
        self.patience = PATIENCE
        self.longest = 0.0
        self.figures: dict[str, Any] = {}
        self._stack = stack

    async def attacker(self, role: str, *more: str) -> Outsider:
        """Let alice come, ready to begin."""
        outsider = Outsider("alice", role, *more, lab=self.play.lab)
        self._stack.callback(outsider.leave)
        await outsider.report()
        return outsider

    def tell(self, **figures: Any) -> None:
        """Keep figures to be told at the end."""
        self.figures |= figures


@asynccontextmanager
async def _siege(play: Stage, bus: PrivateBus | SystemBus) -> AsyncIterator[Siege]:
    """Watch the daemon and a neighbour while the body attacks, and judge in the end."""
    await play.viewer.managed_objects()  # what is made at the first call is no growth
    pid = play.daemon.pid
    neighbour = Outsider("carol", "neighbour")
    async with AsyncExitStack() as stack:
        stack.callback(neighbour.leave)
        await neighbour.report()
        before, descriptors = memory_now(pid), _descriptors(pid)
        neighbour.nod()
        siege = Siege(play, bus.kind, stack)

        yield siege

        told = await neighbour.go_on()
        growth = highest_memory(pid) - before
        await play.agreed()
        await eventually(lambda: _descriptors(pid) == descriptors)
        siege.tell(
            growth=f"{growth / (1 << 20):.1f} MiB",
            neighbour=f"{told['calls']} calls, longest {told['longest'] * 1e3:.0f} ms, "
            f"median {told['median'] * 1e3:.1f} ms (of the bus alone {told['bus'] * 1e3:.0f} ms)",
        )
        print(f"\n  {bus.kind}: {siege.figures}")
        siege.longest = told["longest"]
        assert growth < GROWTH
        assert siege.longest < siege.patience
        assert not told["errors"]
        assert told["calls"] >= 5


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - there is nothing to know of each


async def _besieged(stage: MakeStage, connections: int = 1, *arguments: str) -> Stage:
    """Play with live connections, and a viewer who does not listen: it would be the slowest."""
    play = await stage(*arguments)
    await play.viewer.bus_call("RemoveMatch", "s", f"type='signal',sender='{NAME}'")
    listener = await play.listener()
    where = {"address": SERVER[4], "port": PORT}
    talks = await play.client.call("connect_many", count=connections, **where, limit=60)
    await play.server.call("accept_many", listener=listener, count=connections, limit=60)
    await play.client.call("send_each", talks=talks, limit=60)
    await play.agreed()
    return play


async def test_a_subscriber_that_never_reads_is_its_own_and_the_buss_trouble(
    stage: MakeStage, bus: PrivateBus | SystemBus
) -> None:
    """While thousands of connections come and go, and nothing bounds their signals."""
    play = await _besieged(stage, 1, "--signal-budget", "0")
    echo, _ = await play.server.call("listen", address=SERVER[4], port=PORT + 1)
    await play.server.call("echo", listener=echo)
    target = {"address": SERVER[4], "port": PORT + 1}

    async with _siege(play, bus) as siege:
        attacker = await siege.attacker("hoard")
        assert await attacker.go_on() == {"error": ""}
        await play.client.call("churn", count=CHURN, **target, limit=60)
        unread = (await attacker.go_on())["unread"]
        kept = await attacker.go_on()
        seen = await play.viewer.call(ROOT, MANAGER, "GetStatistics")
        dropped = seen["signals_dropped"]
        siege.tell(connections=CHURN, unread=unread, **kept, dropped=dropped)

        # Far more than its socket holds: the rest waited in the bus, unless that lost patience.
        assert kept["kept"] > 1 << 20 or kept["end"] == "cut off by the bus"
        assert seen["connections_seen"] == CHURN + 1


async def test_a_giant_message_is_refused_by_its_header(
    stage: MakeStage, bus: PrivateBus | SystemBus
) -> None:
    """It is not even decoded; the same message of a few bytes is."""
    play = await _besieged(stage)

    async with _siege(play, bus) as siege:
        told = await (await siege.attacker("giant")).go_on()
        siege.tell(**told)

        assert told["sent"] > 10 * (31 << 20)
        assert told["answers"] == {f"{ERROR}LimitsExceeded": 10}
        assert told["small"] == f"{ERROR}UnknownMethod"


async def _wait_for_a_bare_service(role: str, names: int) -> float:
    """Give how long the neighbour waits, under the same flood, for one that only answers."""
    outsiders = [
        Outsider("bob", "bare"),
        Outsider("carol", "neighbour", "bare"),
        Outsider("alice", role, str(names), "org.example.Bare"),
    ]
    service, neighbour, attacker = outsiders
    try:
        for outsider in outsiders:
            await outsider.report()
            if outsider is service:
                await outsider.go_on()
                outsider.nod()
        neighbour.nod()
        await attacker.go_on()
        return float((await neighbour.go_on())["longest"])
    finally:
        for outsider in outsiders:
            outsider.leave()


@pytest.mark.parametrize("names", [1, 4])
@pytest.mark.parametrize("role", ["calls", "objects"])
async def test_a_flood_of_calls_drowns_nobody(
    stage: MakeStage, bus: PrivateBus | SystemBus, role: str, names: int
) -> None:
    """Cheap ones without an answer, and the dearest one, with hundreds of live connections.

    A bus spends most of its time on taking in what flooders send (dbus-broker 250,000 messages a
    second), and hands on to a service what others sent only now and then.  So a service that does
    nothing but answer is flooded first, and the neighbour may wait three times as long for ours.
    The longest of some dozen waits is also the machine's worst moment: the best of three counts.
    """
    play = await _besieged(stage, CONNECTIONS)
    for last in (False, False, True):
        by_the_bus = await _wait_for_a_bare_service(role, names)
        patience = max(PATIENCE, 3 * by_the_bus)

        async with _siege(play, bus) as siege:
            siege.patience = patience if last else FLOOD_PATIENCE
            attacker = await siege.attacker(role, str(names))
            busy = _processor_seconds(play.daemon.pid)
            told = await attacker.go_on()
            busy = _processor_seconds(play.daemon.pid) - busy
            seen = await play.viewer.call(ROOT, MANAGER, "GetStatistics", within=15)
            refused = seen["calls_refused"]
            siege.tell(**told, refused_by_us=refused, daemon_busy=f"{busy:.1f} s")
            siege.tell(bare_service=f"longest {by_the_bus * 1e3:.0f} ms")

            assert told["sent"] > 2 * UID_BURST
            assert refused > 0
        if siege.longest < patience:
            break


async def test_who_asks_for_everything_and_reads_nothing_silences_nobody(
    stage: MakeStage, bus: PrivateBus | SystemBus
) -> None:
    """dbus-daemon would read no more of us once 127 MiB of answers wait; they are not given."""
    play = await _besieged(stage, CONNECTIONS)
    whole = len(json.dumps(await play.viewer.managed_objects()))

    async with _siege(play, bus) as siege:
        told = await (await siege.attacker("glutton")).go_on()
        siege.tell(**told, wanted=f"{told['sent'] * whole >> 20} MiB")

        assert told["sent"] * whole > 127 << 20
    assert "the bus went" not in play.daemon.log.read_text()


async def test_no_question_brings_more_bytes_than_a_user_may_have(
    stage: MakeStage, bus: PrivateBus | SystemBus
) -> None:
    """Every dear answer, of many connections and listeners, over many names; all is read."""
    play = await _besieged(stage, CONNECTIONS)
    for _ in range(CONNECTIONS):
        await play.client.call("listen", address="127.0.0.1")

    async with _siege(play, bus) as siege:
        began = time.monotonic()
        told = await (await siege.attacker("greedy")).go_on()
        seconds = time.monotonic() - began
        ratio = told["received"] / told["bytes"]
        bound = LARGE_BURST + LARGE_RATE * seconds
        siege.tell(**told, bytes_received_for_a_byte_sent=round(ratio, 1), bound=int(bound))

        assert LARGE_BURST < told["received"] < bound + told["refused"] * REFUSAL


async def test_unknown_header_fields_are_ignored(
    stage: MakeStage, bus: PrivateBus | SystemBus
) -> None:
    """dbus-broker hands them on; a plain dbus-next client is lost by one, as the control shows."""
    play = await _besieged(stage)

    async with _siege(play, bus) as siege:
        told = await (await siege.attacker("strange")).go_on()
        siege.tell(**told)
        assert told["answers"] == {"": 100}

        victim = await MessageBus(bus_address=ADDRESS).connect()
        await (await siege.attacker("strange", victim.unique_name)).go_on()
        if bus.kind == "dbus-broker":
            await eventually(lambda: not victim.connected)
        else:
            assert victim.connected  # dbus-daemon strips them
        victim.disconnect()
        victim._stream.close()  # noqa: SLF001  dbus-next leaves them open, and warnings are errors here
        victim._sock.close()  # noqa: SLF001  likewise


async def test_parked_dialogues_do_not_stop_the_commands_of_others(
    stage: MakeStage, bus: PrivateBus | SystemBus
) -> None:
    """The bounds let four wait; root and carol go on, and the attacker's end ends the dialogues."""
    play = await _besieged(stage)

    async with _siege(play, bus) as siege, await BusClient.connect("carol") as carol:
        attacker = await siege.attacker("park")
        async with Agent("hang", "alice", attacker.pid) as agent:
            told = await attacker.go_on()
            siege.tell(**told)
            for _ in range(UID_DIALOGUES):
                await agent.expect("asked org.mptcpd1.manage-endpoints")
            assert told["answers"] == {f"{ERROR}LimitsExceeded": told["sent"] - UID_DIALOGUES}

            for client, number in ((play.viewer, 1), (carol, 2)):
                limits = {"Subflows": Variant("u", number)}
                await client.call(ROOT, MANAGER, "SetLimits", "a{sv}", limits, within=PATIENCE)
                shown = play.lab.ip("client", "mptcp", "limits", "show")
                assert f"subflows {number}" in shown

            attacker.leave()
            for _ in range(UID_DIALOGUES):
                await agent.expect("cancelled")
    assert not play.lab.ip("client", "mptcp", "endpoint", "show")


async def test_distinct_types_of_options_are_not_remembered(
    stage: MakeStage, bus: PrivateBus | SystemBus
) -> None:
    """dbus-next keeps each type for ever, as the control shows."""
    play = await _besieged(stage)

    async with _siege(play, bus) as siege:
        told = await (await siege.attacker("signatures")).go_on()
        decoded = told["answers"][f"{ERROR}InvalidArgs"]
        leak = _leak_of_dbus_next()
        siege.tell(**told, dbus_next_would_keep=f"{decoded * leak / (1 << 20):.0f} MiB")

        assert decoded > UID_BURST
        assert decoded * leak > GROWTH


def _leak_of_dbus_next() -> float:
    """Measure what one signature of the attack costs dbus-next for ever."""
    SignatureTree._cache.clear()  # noqa: SLF001  it is the leak
    tracemalloc.start()
    try:
        for number in range(20):
            digits = f"{number:060b}".replace("0", "yq").replace("1", "ut")
            SignatureTree._get(f"a({digits}{digits[:60]})")  # noqa: SLF001  it is the leak
        return tracemalloc.get_traced_memory()[0] / 20
    finally:
        tracemalloc.stop()
        SignatureTree._cache.clear()  # noqa: SLF001  likewise


async def test_descriptors_sent_along_stay_nowhere(
    stage: MakeStage, bus: PrivateBus | SystemBus
) -> None:
    """Those of a call that wants none; the siege counts the daemon's in the end."""
    play = await _besieged(stage)

    async with _siege(play, bus) as siege:
        told = await (await siege.attacker("descriptors")).go_on()
        siege.tell(**told)

        assert sum(told["answers"].values()) == 1000


async def test_ten_thousand_passed_sockets_leave_none_behind(
    stage: MakeStage, bus: PrivateBus | SystemBus
) -> None:
    """Good ones, plain TCP, pipes, several or none, with wrong arguments, by a hasty caller.

    When more than 64 descriptors wait for one service, dbus-daemon keeps everybody's messages from
    it, whatever that service does; so there it is no flood.
    """
    play = await _besieged(stage)

    async with _siege(play, bus) as siege:
        attacker = await siege.attacker("sockets", "500" if bus.kind == "dbus-broker" else "4")
        before = _descriptors(play.daemon.pid)
        began = time.monotonic()
        told = await attacker.go_on(within=120)
        took = time.monotonic() - began
        await eventually(lambda: _descriptors(play.daemon.pid) == before)
        then = await attacker.go_on()
        await eventually(lambda: _descriptors(play.daemon.pid) == before)
        siege.tell(tries=told["tries"], seconds=round(took, 1), descriptors=before, **then)

        not_multipath, invalid = f"{NAME}.Error.NotMultipath", f"{ERROR}InvalidArgs"
        limits, unknown = f"{ERROR}LimitsExceeded", f"{ERROR}UnknownMethod"
        answers = {kind: tuple(errors) for kind, errors in told["answers"].items()}
        assert answers == {
            "own": ("",),
            **dict.fromkeys(("plain", "unconnected", "pipe", "file"), (not_multipath,)),
            **dict.fromkeys(("index", "none", "arguments", "reader"), (invalid,)),
            **dict.fromkeys(("several", "large"), (limits,)),
            "method": (unknown,),
        }
        assert sum(sum(errors.values()) for errors in told["answers"].values()) == 10_000

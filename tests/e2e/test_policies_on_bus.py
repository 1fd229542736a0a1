"""Policies outside the daemon, as real processes on the real bus and the real kernel.

Some decide for connections and die, stop reading, or were never allowed to.
"""
# SPDX-License-Identifier: BSD-3-Clause

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from dbus_next import Message, MessageType, Variant

from mptcpd_dbus.core.events import NewConnection
from tests.e2e.conftest import MakeStage
from tests.e2e.observer import Observer
from tests.e2e.stage import CONNECTION, MANAGER, PORT, SUBFLOW, Stage
from tests.figures import tell
from tests.lab.bus import PrivateBus
from tests.lab.client import BUS, ROOT, BusClient, BusError
from tests.lab.hosts import SERVER
from tests.lab.memory import highest_memory, memory_now
from tests.lab.sandbox import readable_repository
from tests.lab.wait import eventually

OWNED = 100
HAND_OVER = 0.1  # seconds
DEAF = 5.0  # seconds
UNANSWERED = 128
PER_ANSWER = 32
CALM, BESIDE = 100, 400  # connections
GROWTH = 4 << 20
HANDED = {"NewConnection", "ConnectionEstablished"}


class Program:
    """A process that decides for connections, and what it has told."""

    def __init__(self, told: Path, name: str, priority: int) -> None:
        self.policy = name
        self._told = told
        repository = readable_repository()
        argv = [f"{repository}/.venv/bin/python", "-m", "tests.e2e.policy_program"]
        with told.open("wb") as output:
            self._process = subprocess.Popen(
                [*argv, name, str(priority)], cwd=repository, stdout=output
            )

    async def registered(self, times: int = 1) -> None:
        """Wait until it has registered so often."""
        await eventually(lambda: len(self.told("registered")) == times, within=15)
        self.name = str(self.told("registered")[-1][2][0])

    def told(self, *members: str) -> list[tuple[float, str, list[Any]]]:
        """Give time, method and arguments of all calls, or of some methods."""
        whole = self._told.read_text().rpartition("\n")[0]
        lines = [json.loads(line) for line in whole.splitlines()]
        return [(when, what, body) for when, what, body in lines if what in (members or (what,))]

    def stop(self) -> None:
        """Have it read nothing more."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()


Make = Callable[..., Program]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Make]:
    """Give a maker of programs by name and priority."""
    made: list[Program] = []

    def make(name: str, priority: int) -> Program:
        made.append(Program(tmp_path / name, name, priority))
        return made[-1]

    yield make
    for one in made:
        one.kill()


class Monitor:
    """Sees all messages of the bus, with their times."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, Message]] = []

    async def start(self) -> "Monitor":
        """Become one; see "Monitoring" in dbus-daemon(1)."""
        self._client = await BusClient.connect()
        self._client.watch(lambda message: self.seen.append((time.monotonic(), message)))
        await self._client.call(
            "/org/freedesktop/DBus",
            f"{BUS}.Monitoring",
            "BecomeMonitor",
            "asu",
            [],
            0,
            destination=BUS,
        )
        return self

    def calls_to(self, name: str) -> list[tuple[float, str]]:
        """Give times and methods of the calls to *name*."""
        call = MessageType.METHOD_CALL
        return [
            (w, m.member) for w, m in self.seen if (m.message_type, m.destination) == (call, name)
        ]

    def left(self, name: str) -> float:
        """Give the time at which *name* left the bus; infinity before."""
        for when, message in self.seen:
            if message.member == "NameOwnerChanged" and message.body[::2] == [name, ""]:
                return when
        return float("inf")

    def close(self) -> None:
        """Leave."""
        self._client.close()


async def _owners(it: Stage) -> dict[str, int]:
    """Count the connections of each owner."""
    objects = await it.viewer.managed_objects()
    names = [o[CONNECTION]["Owner"] for o in objects.values() if CONNECTION in o]
    return {name: names.count(name) for name in names}


async def test_the_next_in_line_has_the_connections_of_a_killed_policy_at_once(
    stage: MakeStage, program: Make
) -> None:
    """The control: one that is only stopped keeps them for far longer."""
    it = await stage()
    first, second = program("first", 0), program("second", 1)
    await first.registered()
    await second.registered()
    listener = await it.listener()
    await it.many(listener, OWNED)
    paths = [
        path
        for path, _ in await it.viewer.call(ROOT, MANAGER, "ListConnections", "a{sv}uu", {}, 0, 0)
    ]
    for path in paths:
        await it.create_subflow(path, LocalAddress="10.0.2.1")
    await it.agreed()
    assert await _owners(it) == {"first": OWNED}
    await eventually(lambda: len(first.told("NewSubflow")) == OWNED)
    subflows = it.sockets()
    assert len(subflows) == 2 * OWNED
    monitor = await Monitor().start()

    first.stop()
    stopped = time.monotonic()
    await eventually(lambda: time.monotonic() > stopped + 5 * HAND_OVER)
    await it.many(listener, 1)
    assert await _owners(it) == {"first": OWNED + 1}
    assert not second.told(*HANDED)
    assert monitor.calls_to(first.name)
    subflows = it.sockets()

    killed = time.monotonic()
    first.kill()
    await eventually(lambda: len(second.told("ConnectionEstablished")) == OWNED + 1)
    handed = [when for when, _, _ in second.told(*HANDED)]
    took = max(handed) - killed
    tell(
        f"a policy with {OWNED + 1} connections was killed: the next was told of the first after"
        f" {(min(handed) - killed) * 1e3:.1f} ms, of all after {took * 1e3:.1f} ms"
    )
    assert took < HAND_OVER
    assert await _owners(it) == {"second": OWNED + 1}
    assert it.sockets() == subflows
    await it.agreed()
    await it.many(listener, 3)
    await eventually(lambda: len(second.told("ConnectionEstablished")) == OWNED + 1 + 3)
    assert [w for w, _ in monitor.calls_to(first.name) if w > monitor.left(first.name)] == []
    assert monitor.left(first.name) < float("inf")
    monitor.close()


class Witness:
    """Hears the signals like anybody, and knows when the kernel had told."""

    def __init__(self, it: Stage, observer: Observer) -> None:
        self._it, self._observer = it, observer
        self._heard: dict[int, float] = {}

    async def listen(self) -> None:
        """Hear from now on."""
        client = await BusClient.connect()
        client.watch(self._hear)
        await client.listen()
        self.close = client.close

    def _hear(self, message: Message) -> None:
        if message.member == "NewConnection":
            self._heard[message.body[1]] = time.monotonic()

    async def latencies(self, echo: int, count: int) -> list[float]:
        """Have connections come and go; give how late each was heard of, in order."""
        before = len(self._observer.of(NewConnection))
        target = {"address": SERVER[4], "port": echo}
        await self._it.client.call("churn", count=count, **target, rate=50, limit=60)
        told = self._observer.of(NewConnection)[before:]
        assert len(told) == count
        await eventually(lambda: all(event.token in self._heard for _, event in told))
        return sorted(self._heard[event.token] - when for when, event in told)


async def test_a_policy_that_reads_nothing_is_cut_off_and_costs_nobody_anything(
    stage: MakeStage, bus: PrivateBus, program: Make
) -> None:
    """The control: before, it reads, and gets the calls for each connection that comes and goes.

    While it does not read, the bus has at most those calls to keep that were not answered.
    """
    it = await stage()
    deaf, following = program("deaf", 0), program("following", 1)
    await deaf.registered()
    await following.registered()
    await it.many(await it.listener(), 10)
    echo, port = await it.server.call("listen", address=SERVER[4])
    await it.server.call("echo", listener=echo)
    monitor = await Monitor().start()
    with Observer(it.lab) as observer:
        witness = Witness(it, observer)
        await witness.listen()
        calm = await witness.latencies(port, CALM)
        await eventually(lambda: len(monitor.calls_to(deaf.name)) >= 2 * CALM)
        assert await _owners(it) == {"deaf": 10}
        pids = {"daemon": it.daemon.pid, "bus": bus.pid}
        before = {name: memory_now(pid) for name, pid in pids.items()}

        deaf.stop()
        stopped = time.monotonic()
        beside = await witness.latencies(port, BESIDE)
        witness.close()
    growth = {name: highest_memory(pid) - before[name] for name, pid in pids.items()}

    await eventually(lambda: "Released" in [what for _, what in monitor.calls_to(deaf.name)])
    calls = [(when, what) for when, what in monitor.calls_to(deaf.name) if when > stopped]
    assert [what for _, what in calls].index("Released") == len(calls) - 1
    kept, waited = len(calls) - 1, calls[-1][0] - calls[-2][0]
    figures = ", ".join(f"the {name} grew by {grown >> 10} KiB" for name, grown in growth.items())
    tell(
        f"a policy that reads nothing was sent {kept} calls and cut off {waited:.2f} s later;"
        f" {figures}; others heard of connections after {median(beside) * 1e3:.2f} ms"
        f" (p99 {beside[-len(beside) // 100] * 1e3:.2f}), before after {median(calm) * 1e3:.2f} ms"
        f" (p99 {calm[-len(calm) // 100] * 1e3:.2f})"
    )
    assert UNANSWERED - PER_ANSWER < kept <= UNANSWERED
    assert 0.98 * DEAF < waited < 1.2 * DEAF  # as the monitor's clock sees it
    assert max(growth.values()) < GROWTH
    assert median(beside) < 2 * median(calm)
    assert await _owners(it) == {"following": 10}
    await it.agreed()
    assert "policy deaf on the bus is cut off: it does not read" in it.daemon.log.read_text()
    deaf.resume()
    await eventually(lambda: deaf.told("Released"))
    assert len(deaf.told()) < 20 + 3 * CALM + UNANSWERED + 50
    monitor.close()


async def test_a_policy_registers_again_with_a_daemon_that_is_back(
    stage: MakeStage, program: Make
) -> None:
    it = await stage()
    mine = program("mine", 0)
    await mine.registered()
    await it.connection(await it.listener())
    await eventually(lambda: mine.told("ConnectionEstablished"))

    it.daemon.kill()
    await it.daemon.start()
    await mine.registered(2)

    await eventually(lambda: len(mine.told("ConnectionEstablished")) == 2)
    assert await _owners(it) == {"mine": 1}


@pytest.mark.usefixtures("people")
async def test_only_who_is_authorised_registers_and_then_commands_its_own_alone(
    stage: MakeStage,
) -> None:
    """Alice may nothing, dora may register: she may not command what her policy does not own."""
    it = await stage()
    listener = await it.listener()
    _, path = await it.connection(listener)
    register: tuple[Any, ...] = (ROOT, MANAGER, "RegisterPolicy", "osa{sv}", "/", "hers")
    join: tuple[Any, ...] = (
        CONNECTION,
        "CreateSubflow",
        "sqa{sv}",
        "",
        0,
        {"LocalAddress": Variant("s", "10.0.2.1")},
    )
    flush: tuple[Any, ...] = (ROOT, MANAGER, "FlushEndpoints", "a{sv}", {})

    async with await BusClient.connect("alice") as alice:
        for command in ((*register, {}), (path, *join), flush):
            with pytest.raises(BusError, match="InteractiveAuthorizationRequired"):
                await alice.call(*command)
        assert await _owners(it) == {"": 1}
        assert len(it.sockets()) == 1

    async with await BusClient.connect("dora") as dora:
        dora.serve(lambda *_: None)
        with pytest.raises(BusError, match="InteractiveAuthorizationRequired"):
            await dora.call(path, *join)
        await dora.call(*register, {"Port": Variant("aq", [PORT])})
        assert await _owners(it) == {"hers": 1}
        _, other = await it.connection(await it.listener(port=PORT + 1), port=PORT + 1)
        for command in ((other, *join), flush):
            with pytest.raises(BusError, match="InteractiveAuthorizationRequired"):
                await dora.call(*command)
        subflow = await dora.call(path, *join)
        await dora.call(subflow, SUBFLOW, "SetBackup", "ba{sv}", True, {})
        await dora.call(subflow, SUBFLOW, "Destroy", "a{sv}", {})
        await it.agreed()

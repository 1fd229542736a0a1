"""The bus hangs, goes or is too slow, polkit dies, the kernel drops events: all comes right again.

Connections come and go meanwhile as fast as two applications can have them.  Memory stays within
GROWTH: what waits for the bus is QUEUE_BYTES, and as much again is for what is around it, messages
in little pieces and the connections of a moment.  A second after the trouble the bus shows what
ss(8) shows; on a machine that is slow just then, three times what a mere look at either takes.
Each test shows that the trouble took place, and tells its figures.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mptcpd_dbus.bus.names import QUEUE_BYTES, UID_CHECKS
from tests.conftest import show_on_failure
from tests.e2e.conftest import MakeStage
from tests.e2e.overload import LIFE, Churn, Follower, crowd
from tests.e2e.stage import CONNECTION, MANAGER, PORT, SUBFLOW, Stage
from tests.figures import tell
from tests.lab.app import exchange
from tests.lab.bus import PrivateBus, installed_kinds
from tests.lab.client import BUS, NAME, ROOT, BusClient, BusError
from tests.lab.hosts import SERVER
from tests.lab.memory import highest_memory, memory_now
from tests.lab.plugin_files import PluginFiles, write_configuration
from tests.lab.sandbox import initial_root, readable_repository
from tests.lab.wait import eventually

GROWTH = 2 * QUEUE_BYTES
LATER = 1.0
PATIENCE = 5.0  # for what comes between, on a machine that has much to do
STANDSTILL = 5.0
WARM = 1000  # connections before the trouble begins
SMALL_BUFFER = 256 << 10  # for some 300 events
OVERFLOWS = 10
MORE_SIGNALS = ("--signal-budget", "0", "--settle-time", "0")
POLKITS, HALF = 5, UID_CHECKS // 2

JOIN = """
    from mptcpd_dbus.plugin import Plugin


    class Join(Plugin):
        '''Joins over link2'''

        async def connection_established(self, connection):
            await self.pm.create_subflow(connection, interface="link2")
"""


@pytest.fixture(params=installed_kinds())
def bus(request: pytest.FixtureRequest, bus_policies: list[Path]) -> Iterator[PrivateBus]:
    """Give each kind of bus with our policy and actions, and polkitd."""
    with PrivateBus(
        kind=request.param,
        policies=bus_policies if initial_root() else (),
        polkit=initial_root(),
        actions=sorted((readable_repository() / "polkit").glob("*.policy")),
    ) as private:
        show_on_failure(request, "bus", private.logs)
        yield private


class Trouble:
    """A daemon to which trouble comes, with a plugin that joins on PORT, and what is measured."""

    def __init__(self, play: Stage, listener: int) -> None:
        self.play = play
        self.figures: dict[str, Any] = {}
        self._listener = listener
        self._descriptors = _descriptors(play)
        self._before = memory_now(play.daemon.pid)

    @property
    def log(self) -> str:
        """What the daemon has said."""
        return self.play.daemon.log.read_text()

    @property
    def growth(self) -> int:
        """How many bytes of memory more it has had at its highest."""
        return highest_memory(self.play.daemon.pid) - self._before

    async def policy_acts(self) -> None:
        """Connect to PORT; the plugin must join."""
        play = self.play
        before = len(_joined(play))
        talk, _ = await play.client.call("connect", address=SERVER[4], port=PORT)
        other = await play.server.call("accept", listener=self._listener)
        await exchange(play.client, talk, play.server, other)
        await eventually(lambda: len(_joined(play)) == before + 2, PATIENCE)

    async def right_again(self, since: float, by_the_bus: float = 0.0) -> None:
        """Wait until the bus shows what ss(8) does; it must be soon, and nothing may be left over.

        *by_the_bus* is what it took without us.
        """
        play = self.play

        async def right() -> bool:
            try:
                await play.agreed()
            except BusError:  # nobody has the name yet
                return False
            return True

        await eventually(right, within=20)
        took, began = time.monotonic() - since, time.monotonic()
        await play.agreed()
        look = time.monotonic() - began
        self.figures |= {
            "right again": f"after {took:.2f} s (a look {look:.2f} s, the bus {by_the_bus:.2f} s)",
            "growth": f"{self.growth / (1 << 20):.1f} MiB",
        }
        assert took < max(LATER, 3 * (look + by_the_bus))
        assert self.growth < GROWTH
        await eventually(lambda: _descriptors(play) == self._descriptors)

    async def followed(self, follower: Follower) -> None:
        """Wait until the client knows what there is; what it heard must have been in order."""
        objects = await self.play.viewer.managed_objects()
        there = {path for path, has in objects.items() if CONNECTION in has or SUBFLOW in has}

        async def knows() -> bool:
            assert await follower.view() == there
            return True

        await eventually(knows)
        self.figures["told of dropped signals"] = f"{len(follower.dropped)} times"
        came = [number for what, number in follower.lives if what == LIFE[0]]
        assert came == sorted(set(came))
        stages: dict[int, int] = {}
        for what, number in follower.lives:
            assert stages.get(number, -1) < LIFE.index(what), f"{what} of {number}"
            stages[number] = LIFE.index(what)


@asynccontextmanager
async def _trouble(stage: MakeStage, bus: PrivateBus, *arguments: str) -> AsyncIterator[Trouble]:
    """Give a daemon that is ready for trouble, and tell what came of it."""
    plugins = PluginFiles()
    plugins.write("join", JOIN)
    file = write_configuration(f"[plugin join]\nmatch-port = {PORT}\n")
    play = await stage("--plugin-dir", str(plugins.path), "--config", str(file), *arguments)
    await play.viewer.bus_call("RemoveMatch", "s", f"type='signal',sender='{NAME}'")
    await play.viewer.managed_objects()  # what is made at the first call is no growth
    trouble = Trouble(play, await play.listener())
    await trouble.policy_acts()
    try:
        yield trouble
    finally:
        tell(f"overload, {bus.kind}: {trouble.figures}")


def _joined(play: Stage) -> list[Any]:
    """Give the subflows of the connections to PORT."""
    return [row for row in play.sockets() if row[2][1] == PORT]


def _descriptors(play: Stage) -> int:
    return len(list(Path(f"/proc/{play.daemon.pid}/fd").iterdir()))


async def _our_connections(play: Stage) -> list[str]:
    """Give the names of all connections to the bus that the daemon has."""
    names = [n for n in await play.viewer.bus_call("ListNames", "") if n.startswith(":")]
    pids = [await play.viewer.bus_call("GetConnectionUnixProcessID", "s", name) for name in names]
    return [name for name, pid in zip(names, pids, strict=True) if pid == play.daemon.pid]


@pytest.mark.parametrize("budget", [0, 4000])
async def test_a_bus_that_hangs_is_left_and_found_again(
    stage: MakeStage, bus: PrivateBus, budget: int
) -> None:
    """For five seconds; clients hear it from the bus, and nothing of it stays.

    With a budget there may be so few signals that nobody notices.
    """
    async with (
        _trouble(stage, bus, "--signal-budget", str(budget)) as trouble,
        Follower.on() as follower,
        Churn.on(trouble.play) as churn,
    ):
        play = trouble.play
        await eventually(lambda: churn.connections >= WARM, within=20)
        [former] = await _our_connections(play)

        bus.pause("bus")
        until, connections = time.monotonic() + STANDSTILL, churn.connections
        asked = asyncio.ensure_future(play.viewer.bus_call("GetId", ""))
        if budget:
            await eventually(lambda: time.monotonic() > until - 1, STANDSTILL)
        else:
            await eventually(lambda: "the bus has taken nothing" in trouble.log, STANDSTILL - 1)
        heard = len(follower.lives)
        await trouble.policy_acts()
        await eventually(lambda: time.monotonic() > until, STANDSTILL)
        assert heard == len(follower.lives)
        assert not asked.done()
        trouble.figures["connections meanwhile"] = churn.connections - connections
        bus.resume("bus")
        resumed = time.monotonic()
        await asked
        by_the_bus = time.monotonic() - resumed
        await churn.stop()

        await trouble.right_again(time.monotonic(), by_the_bus)
        await trouble.followed(follower)
        assert churn.connections - connections > WARM / 4
        assert len(follower.lives) > heard
        [ours] = await _our_connections(play)
        assert await play.viewer.bus_call("GetNameOwner", "s", NAME) == ours
        if not budget:
            assert ours != former
            assert follower.owners == ["", ours]
            assert trouble.log.count("the bus went") == 1


async def test_a_bus_that_hangs_with_a_crowd_at_its_door_stops_no_policy(
    stage: MakeStage, bus: PrivateBus
) -> None:
    """Who connects to it then would wait; that there is no room the crowd has seen itself."""
    async with _trouble(stage, bus) as trouble, Churn.on(trouble.play) as churn:
        bus.pause("bus")
        with crowd() as waiting:
            await eventually(lambda: "the bus went" in trouble.log, within=20)
            await churn.stop()
            await trouble.policy_acts()
        trouble.figures["crowd"] = len(waiting)
        bus.resume("bus")

        await eventually(lambda: "back on the bus" in trouble.log, within=10)
        await trouble.right_again(time.monotonic())


async def test_a_bus_that_restarts_finds_a_policy_at_work_and_all_that_there_is(
    stage: MakeStage, bus: PrivateBus
) -> None:
    async with _trouble(stage, bus) as trouble, Churn.on(trouble.play) as churn:
        await eventually(lambda: churn.connections >= WARM, within=20)
        trouble.play.viewer.close()

        bus.stop("bus")
        await trouble.policy_acts()
        gone = churn.connections
        await eventually(lambda: churn.connections > gone + WARM, within=20)
        bus.start_bus()
        await churn.stop()

        async with await BusClient.connect() as viewer:
            trouble.play.viewer = viewer
            await trouble.right_again(time.monotonic())
            assert len(await _our_connections(trouble.play)) == 1


async def test_a_bus_that_is_too_slow_costs_signals_which_are_counted_and_told(
    stage: MakeStage, bus: PrivateBus
) -> None:
    """A client that then reads anew knows all that there is; one that does not is the control."""
    async with (
        _trouble(stage, bus, *MORE_SIGNALS) as trouble,
        Follower.on() as follower,
        Churn.on(trouble.play) as churn,
    ):
        play = trouble.play
        with _slowed(bus):
            asked = asyncio.ensure_future(
                play.viewer.call(
                    *(ROOT, MANAGER, "AddEndpoint", "sasa{sv}", "10.0.2.1", ["subflow"], {}),
                    within=60,
                )
            )
            await eventually(lambda: play.lab.ip("client", "mptcp", "endpoint", "show"), within=10)
            await trouble.policy_acts()
            await eventually(lambda: trouble.growth > 0.9 * QUEUE_BYTES, within=60)
            full = churn.connections
            await eventually(lambda: churn.connections > full + 5 * WARM, within=60)
            await churn.stop()
        resumed = time.monotonic()
        await asked
        await eventually(lambda: follower.dropped, within=60)
        trouble.figures["what had waited came"] = f"after {time.monotonic() - resumed:.2f} s"

        await trouble.right_again(time.monotonic())
        await trouble.followed(follower)
        seen = await play.viewer.call(ROOT, MANAGER, "GetStatistics")
        dropped = seen["signals_dropped"]
        trouble.figures["dropped"] = dropped
        assert dropped > 0
        assert "the bus went" not in trouble.log
        assert follower.dropped == sorted(follower.dropped)
        assert follower.belief() != await follower.view()


@contextmanager
def _slowed(bus: PrivateBus) -> Iterator[None]:
    """Let the bus have a fiftieth of a processor, but never hang for long.

    By a thread: the client that listens keeps this one busy.
    """
    over = threading.Event()

    def slow() -> None:
        while not over.wait(0.2):
            used = bus.processor_seconds()
            bus.resume("bus")
            while bus.processor_seconds() < used + 0.004 and not over.is_set():
                time.sleep(0.001)
            bus.pause("bus")

    bus.pause("bus")
    slowing = threading.Thread(target=slow)
    slowing.start()
    try:
        yield
    finally:
        over.set()
        slowing.join()
        bus.resume("bus")


async def test_ten_overflows_in_a_row_are_ten_times_made_good(
    stage: MakeStage, bus: PrivateBus
) -> None:
    """The kernel counts what it drops, too."""
    async with (
        _trouble(stage, bus, "--netlink-buffer", str(SMALL_BUFFER)) as trouble,
        Follower.on() as follower,
        Churn.on(trouble.play) as churn,
    ):
        play, dropped = trouble.play, _dropped(trouble.play)
        times = [await _overflow(play, number) for number in range(1, OVERFLOWS + 1)]
        await churn.stop()

        await trouble.right_again(time.monotonic())
        await trouble.followed(follower)
        trouble.figures |= {
            "connections": churn.connections,
            "overflows": await play.viewer.get(ROOT, MANAGER, "EventsLost"),
            "dropped by the kernel": _dropped(play) - dropped,
            "read anew after": f"{max(times):.2f} s at most",
        }


async def _overflow(play: Stage, number: int) -> float:
    """Stop the daemon until the kernel drops events; give how long it then takes to make up."""

    async def made_up() -> bool:
        return bool(await play.viewer.get(ROOT, MANAGER, "EventsLost") >= number)

    play.daemon.pause()
    before = _dropped(play)
    await eventually(lambda: _dropped(play) > before)
    play.daemon.resume()
    resumed = time.monotonic()
    await eventually(made_up)
    return time.monotonic() - resumed


def _dropped(play: Stage) -> int:
    """Give how many events the kernel could not put into a queue, of all its sockets."""
    rows = play.lab.run("client", ["cat", "/proc/net/netlink"]).splitlines()[1:]
    return sum(int(row.split()[8]) for row in rows)


@pytest.mark.usefixtures("people")
async def test_polkit_that_dies_while_it_is_asked_is_missed_by_those_who_wait_only(
    stage: MakeStage, bus: PrivateBus
) -> None:
    """Again and again: a check that stayed counted would soon leave no room for another one."""
    command: tuple[Any, ...] = (
        ROOT,
        MANAGER,
        "AddEndpoint",
        "sasa{sv}",
        "10.0.2.1",
        ["subflow"],
        {},
    )
    async with (
        _trouble(stage, bus) as trouble,
        await BusClient.connect("alice") as alice,
        await BusClient.connect("alice") as again,
        await BusClient.connect("carol") as carol,
    ):
        for _ in range(POLKITS):
            bus.pause("polkitd")
            asked = []
            for client in (alice, again):  # one alone would wait for its turn
                asked += [asyncio.ensure_future(_error(client, *command)) for _ in range(HALF)]
                await asyncio.sleep(0)  # the calls are sent first
                await client.call(ROOT, f"{BUS}.Peer", "Ping")
            name, text = await _error(again, *command)
            assert name == "LimitsExceeded", text
            assert not any(answer.done() for answer in asked)
            bus.stop("polkitd")

            reason = "polkit cannot be asked about org.mptcpd1.manage-endpoints"
            assert set(await asyncio.gather(*asked)) == {("AccessDenied", reason)}
            assert not trouble.play.lab.ip("client", "mptcp", "endpoint", "show")
            bus.start_polkit()
            name, _ = await _error(alice, *command)
            assert name == "InteractiveAuthorizationRequired"
        endpoint = await carol.call(*command)
        await carol.call(endpoint, f"{NAME}.Endpoint", "Remove", "a{sv}", {})

        trouble.figures["checks that died"] = POLKITS * UID_CHECKS
        await trouble.right_again(time.monotonic())


async def _error(client: BusClient, *command: Any) -> tuple[str, str]:
    """Call a method that is refused; give the error's name, without its beginning, and its text."""
    with pytest.raises(BusError) as refusal:
        await client.call(*command, within=30)
    return refusal.value.name.rpartition(".")[2], refusal.value.text

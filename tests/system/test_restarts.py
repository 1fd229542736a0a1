"""The bus, polkit and NetworkManager are restarted in every order, and connections live on.

Each time the installed service, which is never restarted, comes to show what there is and to obey
whom it should.  What is only stopped is missed, which shows that the tests would notice.
"""
# SPDX-License-Identifier: BSD-3-Clause

import itertools
import time
from functools import partial
from pathlib import Path

import pytest

from tests import figures
from tests.e2e.stage import INTERFACE, PORT, Stage
from tests.lab.app import Pair, converse
from tests.lab.bus import KINDS, SOCKET, Kind
from tests.lab.client import NAME, BusClient
from tests.lab.daemon import Daemon
from tests.lab.hosts import SERVER, Lab, address
from tests.lab.wait import eventually
from tests.system.conftest import MakeMachine
from tests.system.machine import Machine
from tests.system.managed_links import leave_links
from tests.system.product import UNIT, Installed

BUS, POLKIT, NETWORK_MANAGER = "dbus.service", "polkit.service", "NetworkManager.service"
RULE = "50-mptcpd-dbus.rules"
NOT_THERE, NOT_AUTHORISED = 3, 4
WITHIN = 60.0


class Scene:
    """A machine that is the lab's client, its service, and connections that live."""

    def __init__(self, lab: Lab, machine: Machine, log: Path) -> None:
        self.lab, self.machine = lab, machine
        self._log = log
        self._client, self._server = lab.app("client"), lab.app("server")
        self._metered = itertools.cycle(("yes", "no"))
        self.pairs: list[Pair] = []
        self.process = self._process()

    async def listen(self) -> None:
        """Have the server listen."""
        self._listener, _ = await self._server.call("listen", address=SERVER[4], port=PORT)

    async def connect(self) -> None:
        """Make one more connection."""
        target = {"address": SERVER[4], "port": PORT}
        pair = await converse(self._client, self._server, self._listener, **target)
        assert pair.token
        self.pairs.append(pair)

    async def disconnect(self) -> None:
        """Close the oldest."""
        pair = self.pairs.pop(0)
        await self._client.call("close", number=pair.client)
        await self._server.call("close", number=pair.server)

    async def converges(self) -> float:
        """Wait until all is as it should be; give how long that took."""
        started = time.monotonic()
        await self.follows_network_manager()
        async with await self._viewer() as viewer:
            stage = self._stage(viewer)
            await stage.agreed()
            assert await stage.tokens_shown() == {pair.token for pair in self.pairs}
            took = time.monotonic() - started
            path = await stage.path(self.pairs[-1].token or 0)
            before = len(stage.sockets())
            self.add_subflow(path, 1)
            self.add_subflow(path, 2, "alice", NOT_AUTHORISED)
            self.add_subflow(path, 2, "carol")
            assert len(stage.sockets()) == before + 2
            await stage.agreed()
        assert self._process() == self.process
        return took

    def add_subflow(self, path: str, link: int, user: str | None = None, status: int = 0) -> None:
        """Have a user ask for one more subflow."""
        argv = ("mptcpctl", "subflow", "add", path, "local", address("client", link))
        self.machine.run(*argv, user=user, status=status)

    @staticmethod
    async def knows(viewer: BusClient, within: float = WITHIN, **wanted: object) -> None:
        """Wait until the service says this of link1."""

        async def same() -> bool:
            objects = await viewer.managed_objects()
            shown = [it[INTERFACE] for it in objects.values() if INTERFACE in it]
            [link] = [it for it in shown if it["Name"] == "link1"]
            assert {key: link[key] for key in wanted} == wanted
            return True

        await eventually(same, within)

    def restart(self, unit: str) -> None:
        """Have it restarted, however often that was done lately."""
        # One that has lost the bus keeps NetworkManager from starting for 25 seconds.
        self.machine.run("systemctl", "stop", "systemd-hostnamed.service")
        self.machine.run("systemctl", "reset-failed", unit, status=None)  # or it is not even loaded
        self.machine.run("systemctl", "restart", unit)

    async def follows_network_manager(self) -> None:
        """Wait until the service says of link1 what NetworkManager has been told just now."""
        metered = next(self._metered)

        async def said() -> bool:
            self.machine.run("systemctl", "start", NETWORK_MANAGER)  # Debian 12's ends with the bus
            modify = ("connection", "modify", "lab1", "connection.metered", metered)
            for words in (modify, ("device", "reapply", "link1")):
                self.machine.run("nmcli", *words)
            async with await self._viewer() as viewer:
                await self.knows(viewer, 2, Managed=True, Metered=metered, ConnectionId="lab1")
            return True

        await eventually(said, WITHIN)

    async def _viewer(self) -> BusClient:
        """Wait for the bus, and on it for the service."""

        async def connected() -> BusClient | None:
            try:
                viewer = await BusClient.connect()
                if await viewer.owns(NAME):
                    return viewer
            except (OSError, EOFError):
                return None
            viewer.close()
            return None

        found = await eventually(connected, WITHIN)
        assert found is not None
        return found

    def _stage(self, viewer: BusClient) -> Stage:
        daemon = Daemon(self.lab, "client", self._log)
        return Stage(self.lab, "client", daemon, viewer, self._client, self._server)

    def _process(self) -> tuple[str, str]:
        return self.machine.shown("MainPID", UNIT), self.machine.shown("NRestarts", UNIT)


@pytest.fixture(params=KINDS)
def bus_kind(request: pytest.FixtureRequest) -> Kind:
    """Give the bus, whatever that of the release is."""
    kind: Kind = request.param
    return kind


@pytest.fixture
async def scene(boot: MakeMachine, lab: Lab, bus_kind: Kind, tmp_path: Path) -> Scene:
    """Give a machine whose group netdev may command, and two connections."""
    machine = boot(
        lambda it: leave_links(lab, it),
        bus=bus_kind,
        namespace=lab.namespaces["client"],
        binds={SOCKET.parent: str(SOCKET.parent)},
    )
    example = f"/usr/share/doc/mptcpd-dbus/examples/{RULE}"
    machine.run("install", "-m", "644", example, f"/etc/polkit-1/rules.d/{RULE}")
    machine.run("usermod", "--append", "--groups=netdev", "carol")
    machine.run("systemctl", "restart", POLKIT)
    machine.run("mptcpctl", "path-manager", "userspace")
    found = Scene(lab, machine, tmp_path / "log")
    await found.listen()
    await found.connect()
    await found.connect()
    await found.converges()
    return found


async def test_it_converges_after_restarts_in_every_order(
    scene: Scene, installed: Installed, bus_kind: Kind
) -> None:
    """A connection is made after each restart, while some are still coming back, and one closed."""
    took = []
    for order in itertools.permutations((BUS, POLKIT, NETWORK_MANAGER)):
        for unit in order:
            scene.restart(unit)
            await scene.connect()
        await scene.disconnect()
        took.append(await scene.converges())
    figures.tell(
        f"restarts of bus, polkit and NetworkManager, {installed.release}, {bus_kind}:"
        f" {len(took)} orders, all as it should be {min(took):.1f} to {max(took):.1f} s later"
    )


async def test_what_is_only_stopped_is_missed(scene: Scene) -> None:
    """The control, and it converges once that is started."""
    systemctl = partial(scene.machine.run, "systemctl")
    add = partial(scene.add_subflow, f"{scene.pairs[-1].token:x}", 3)
    systemctl("stop", NETWORK_MANAGER)
    async with await BusClient.connect() as viewer:
        await scene.knows(viewer, Managed=False, Metered="unknown", ConnectionId="")
    systemctl("start", NETWORK_MANAGER)

    systemctl("mask", "--runtime", "--now", POLKIT)
    add("carol", NOT_AUTHORISED)
    systemctl("unmask", "--runtime", POLKIT)
    await scene.connect()
    await scene.converges()

    systemctl("mask", "--runtime", "dbus.socket")  # or whoever calls somebody starts it again
    systemctl("stop", "dbus.socket", BUS, "systemd-hostnamed.service")
    add(status=NOT_THERE)
    await scene.connect()
    systemctl("unmask", "--runtime", "dbus.socket")
    systemctl("start", "dbus.socket", BUS, NETWORK_MANAGER)
    await scene.converges()

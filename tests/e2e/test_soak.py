"""Mixed load as of an hour, pressed into less than a minute: nothing of it stays with the daemon.

Measured are its resident memory and its descriptors; what is flat is said by one function, which is
shown what a leak would look like.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests import figures
from tests.e2e.conftest import MakeStage
from tests.e2e.stage import CONNECTION, MANAGER, PORT, SUBFLOW, Stage
from tests.lab.client import ROOT, BusClient, BusError
from tests.lab.hosts import SERVER, address
from tests.lab.memory import descriptors, resident
from tests.lab.plugin_files import shipped_plugins, write_configuration
from tests.lab.wait import eventually

SECONDS = 45.0
EVERY = 0.25  # seconds between two looks
MEMORY = 2 << 20  # bytes; with pools that still fill it is 0.3 to 0.8 MiB
DESCRIPTORS = 4
CONFIGURATION = """
[core]
plugin-dir = {plugins}
load-plugins = ndiffports
[plugin ndiffports]
subflows = {subflows}
"""


def growth(series: Sequence[float]) -> float:
    """Give by how much the last third of *series* is above the one in the middle.

    The first is that of caches and pools which fill.
    """
    third = len(series) // 3
    return statistics.median(series[-third:]) - statistics.median(series[third : 2 * third])


class Soak:
    """The loads, each a round again and again, and how many rounds each has made."""

    def __init__(self, play: Stage, configuration: Path) -> None:
        self._play = play
        self._configuration = configuration
        self.rounds: dict[str, int] = {}
        self.memory: list[float] = []
        self.descriptors: list[float] = []

    async def run(self) -> None:
        """Have all of it at once."""
        play = self._play
        play.lab.ip("server", "mptcp", "limits", "set", "subflows", 8, "add_addr_accepted", 8)
        listener = await play.listener()
        await play.server.call("echo", listener=listener)
        churner = play.lab.app("client")
        loads = (
            lambda: churner.call("churn", count=50, address=SERVER[4], port=PORT, rate=100),
            self._subflows,
            self._addresses,
            self._client,
            self._reload,
            self._plugin,
            self._look,
        )
        names = ("churn", "subflows", "addresses", "clients", "reloads", "plugins", "looks")
        until = asyncio.get_running_loop().time() + SECONDS
        async with asyncio.TaskGroup() as group:
            for name, load in zip(names, loads, strict=True):
                group.create_task(self._again(name, load, until))
        churner.kill()

    async def _again(self, name: str, load: Callable[[], Awaitable[object]], until: float) -> None:
        self.rounds[name] = 0
        while asyncio.get_running_loop().time() < until:
            await load()
            self.rounds[name] += 1

    async def _subflows(self) -> None:
        """Connect, add a subflow, end it, close; a plugin may be at it, too."""
        play = self._play
        talk, _ = await play.client.call("connect", address=SERVER[4], port=PORT)
        await play.client.call("send", talk=talk)
        await play.client.call("recv", talk=talk)
        token = await play.client.call("token", talk=talk)
        path = await eventually(lambda: play.path(token))
        with suppress(BusError):  # the plugin may have ended or made as many as there may be
            source = address("client", 2)
            made = await play.create_subflow(path, SERVER[4], PORT, LocalAddress=source)
            await play.command(path, CONNECTION, "GetStatistics")
            await play.command(made, SUBFLOW, "Destroy", "a{sv}", {})
            self.rounds["joins"] = self.rounds.get("joins", 0) + 1
        await play.client.call("close", number=talk)

    async def _addresses(self) -> None:
        for change in ("add", "del"):
            self._play.lab.ip("client", "address", change, "10.0.3.99/24", "dev", "link3")
            await asyncio.sleep(0.1)

    async def _client(self) -> None:
        async with await BusClient.connect() as client:
            await client.listen()
            await client.managed_objects()
            await client.call(ROOT, MANAGER, "ListConnections", "a{sv}uu", {}, 0, 0)
            with pytest.raises(BusError):
                await client.call(ROOT, MANAGER, "NoSuchMethod")

    async def _reload(self) -> None:
        await asyncio.sleep(0.5)
        subflows = 2 + self.rounds["reloads"] % 2
        text = CONFIGURATION.format(plugins=shipped_plugins(), subflows=subflows)
        self._configuration.write_text(text)
        self._play.daemon.reload()

    async def _plugin(self) -> None:
        await asyncio.sleep(0.3)
        await self._play.disable("ndiffports")
        await self._play.enable("ndiffports")

    async def _look(self) -> None:
        self.memory.append(resident(self._play.daemon.pid))
        self.descriptors.append(descriptors(self._play.daemon.pid))
        self._play.viewer.signals.clear()
        await asyncio.sleep(EVERY)


async def test_nothing_grows_under_mixed_load_and_all_is_right_after_it(stage: MakeStage) -> None:
    text = CONFIGURATION.format(plugins=shipped_plugins(), subflows=2)
    configuration = write_configuration(text)
    play = await stage("--config", str(configuration))
    soak = Soak(play, configuration)

    await soak.run()

    await play.agreed()
    assert min(soak.rounds.values()) > 10, soak.rounds
    figures.tell(
        f"soak of {SECONDS:g} s: {soak.rounds}; in its last third the memory grew by"
        f" {growth(soak.memory) / (1 << 20):.2f} MiB, descriptors by {growth(soak.descriptors):g}"
    )
    assert growth(soak.memory) < MEMORY
    assert growth(soak.descriptors) < DESCRIPTORS
    assert "Traceback" not in play.daemon.log.read_text()
    assert await play.daemon.stop() == 0


def test_a_leak_of_that_size_would_be_noticed() -> None:
    """Of each of a hundred connections a second 1500 bytes, or one descriptor a second."""
    looks = int(SECONDS / EVERY)
    noise = [(number * 7919) % 13 * 4096.0 for number in range(looks)]

    assert growth(noise) < MEMORY
    assert growth([n + number * EVERY * 100 * 1500 for number, n in enumerate(noise)]) > MEMORY
    assert growth([20 + number * EVERY for number in range(looks)]) > DESCRIPTORS
    assert growth([20.0] * looks) < DESCRIPTORS

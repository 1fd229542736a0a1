"""The configuration is read again while connections live, by a signal and over the bus."""
# SPDX-License-Identifier: BSD-3-Clause

from pathlib import Path

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import CONNECTION, MANAGER, Stage
from tests.lab.client import ROOT, BusError
from tests.lab.plugin_files import PluginFiles, write_configuration
from tests.lab.wait import eventually

JOIN = """
    from mptcpd_dbus.plugin import Plugin, PluginSettings


    class JoinSettings(PluginSettings):
        over_link: str = "link2"


    class Join(Plugin):
        '''Joins over one link'''

        settings: JoinSettings

        async def connection_established(self, connection):
            if not connection.subflows[1:]:
                await self.pm.create_subflow(connection, interface=self.settings.over_link)
"""
IDLE = """
    from mptcpd_dbus.plugin import Plugin


    class Idle(Plugin):
        '''Does nothing'''
"""
CONFIGURATION = """\
[core]
plugin-dir = {}
load-plugins = {}
path-manager = join
[plugin join]
over-link = {}
"""


async def _stage(make: MakeStage) -> tuple[Stage, Path, str]:
    """Give a stage, its configuration and its plugin directory."""
    files = PluginFiles()
    files.write("join", JOIN)
    files.write("idle", IDLE)
    file = write_configuration(CONFIGURATION.format(files.path, "join", "link2"))
    return await make("--config", str(file)), file, str(files.path)


async def _plugins(stage: Stage) -> dict[str, str]:
    objects = await stage.viewer.managed_objects()
    found = (its.get("org.mptcpd1.Plugin") for its in objects.values())
    return {its["Name"]: its["State"] for its in found if its}


async def _over(stage: Stage, token: int | None) -> set[str]:
    return {s[1][0] for s in stage.sockets() if s[0] == token}


async def test_new_settings_hold_for_new_connections_and_the_old_ones_stay(
    stage: MakeStage,
) -> None:
    it, file, directory = await _stage(stage)
    listener = await it.listener()
    old, path = await it.connection(listener)
    await it.heard("NewSubflow")

    file.write_text(CONFIGURATION.format(directory, "join, idle", "link3"))
    it.daemon.reload()

    async def both() -> bool:
        return await _plugins(it) == {"join": "running", "idle": "running"}

    await eventually(both)
    assert await it.viewer.get(path, CONNECTION, "Owner") == "join"
    assert await _over(it, old.token) == {"10.0.1.1", "10.0.2.1"}
    new, _ = await it.connection(listener)
    await it.heard("NewSubflow", lambda body: body[3] == "10.0.3.1")
    assert await _over(it, new.token) == {"10.0.1.1", "10.0.3.1"}
    assert await it.viewer.get(ROOT, MANAGER, "EventsLost") == 0
    await it.agreed()


async def test_a_plugin_that_is_no_longer_listed_stops(stage: MakeStage) -> None:
    it, file, directory = await _stage(stage)
    file.write_text(CONFIGURATION.format(directory, "join, idle", "link2"))
    await it.command(ROOT, MANAGER, "Reload", "a{sv}", {})
    assert set(await _plugins(it)) == {"join", "idle"}

    file.write_text(CONFIGURATION.format(directory, "join", "link2"))
    await it.command(ROOT, MANAGER, "Reload", "a{sv}", {})

    assert set(await _plugins(it)) == {"join"}


@pytest.mark.parametrize(
    ("link", "wrong", "line"),
    [("link3\nover-lnik = link2", "over-lnik", 7), ("link3\n[croe]", "croe", 7)],
)
async def test_a_wrong_file_is_named_by_line_and_changes_nothing(
    stage: MakeStage, link: str, wrong: str, line: int
) -> None:
    it, file, directory = await _stage(stage)

    file.write_text(CONFIGURATION.format(directory, "join, idle", link))
    it.daemon.reload()

    def told() -> bool:
        return any(f"{file}:{line}:" in text and wrong in text for text in _log(it))

    await eventually(told)
    with pytest.raises(BusError) as refused:  # nor does the bus tell where our files are
        await it.command(ROOT, MANAGER, "Reload", "a{sv}", {})
    assert str(file.parent) not in str(refused.value)
    assert await _plugins(it) == {"join": "running"}
    pair, _ = await it.connection(await it.listener())
    await it.heard("NewSubflow")
    assert await _over(it, pair.token) == {"10.0.1.1", "10.0.2.1"}


def _log(stage: Stage) -> list[str]:
    return stage.daemon.log.read_text().splitlines()

"""Plugins of the documents in the real daemon, installed with the documents' command lines."""
# SPDX-License-Identifier: BSD-3-Clause

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mptcpd_dbus import __version__, config
from tests import manual
from tests.documents import PLUGINS, SHIP, blocks, command_lines, commands, python_files
from tests.e2e.conftest import MakeStage
from tests.e2e.stage import CONNECTION, SUBFLOW, Stage
from tests.lab.client import ROOT
from tests.lab.hosts import SERVER
from tests.lab.plugin_files import PluginFiles, write_configuration
from tests.lab.sandbox import REPOSITORY
from tests.lab.wait import eventually

PLUGIN = "org.mptcpd1.Plugin"
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHONPATH": str(REPOSITORY),
    "PKG_CONFIG_PATH": str(REPOSITORY / "plugins"),
}


def _type(line: str, directory: Path) -> str:
    return subprocess.check_output(["sh", "-ec", line], cwd=directory, env=ENVIRONMENT, text=True)


def _write(directory: Path, sources: Mapping[str, str]) -> None:
    for name, text in sources.items():
        (directory / name).write_text(text)


async def _shown(stage: Stage, path: str, interface: str) -> dict[str, Any]:
    objects = await stage.viewer.managed_objects()
    return dict(objects.get(f"{ROOT}/{path}", {}).get(interface, {}))


async def test_the_first_plugin_runs_as_the_page_says(stage: MakeStage, tmp_path: Path) -> None:
    """Where the page names the daemon's directory, one of the lab stands here."""
    place = PluginFiles().path
    it = await stage("--plugin-dir", str(place))
    install, *on_the_bus, journal = command_lines(PLUGINS)
    assert config.PLUGIN_DIR in install
    _write(tmp_path, python_files(PLUGINS))

    _type(install.removeprefix("sudo ").replace(config.PLUGIN_DIR, str(place)), tmp_path)
    said = [it.lab.run("client", words) for words in commands(PLUGINS)[1:-1]]
    await it.connection(await it.listener())

    assert len(on_the_bus) == 2
    assert 's "running"' in str(said[-1])
    assert journal == f"journalctl -u {_unit()} -f"
    await eventually(lambda: f"to {SERVER[4]}" in it.daemon.log.read_text())


async def test_the_plugin_of_the_man_page_is_installed_and_loaded_anew_as_it_says(
    stage: MakeStage, tmp_path: Path
) -> None:
    place = PluginFiles().path
    settings = write_configuration("[core]\n")
    it = await stage("--plugin-dir", str(place), "--config", str(settings))
    install, reload, look, load = (c for c in command_lines(manual.PLUGIN) if "pydoc" not in c)
    (text,), (section,) = blocks(manual.PLUGIN, "python"), blocks(manual.PLUGIN, "ini")

    def install_it(text: str) -> None:
        _write(tmp_path, {"spare.py": text})
        _type(install.removeprefix("sudo ").replace(config.PLUGIN_DIR, str(place)), tmp_path)

    install_it(text)
    settings.write_text(section.replace("wlan0", "link2"))
    assert reload == f"sudo systemctl reload {_unit()}"
    it.daemon.reload()
    await eventually(lambda: "was read again" in it.daemon.log.read_text())
    assert it.lab.run("client", shlex.split(look)) == 's "running"\ns ""\n'
    await it.connection(await it.listener())
    await it.heard("NewSubflow", lambda told: told[-1] == "link2")

    install_it(text.replace("A backup subflow", "Loaded anew, a backup subflow"))
    it.lab.run("client", shlex.split(load))
    shown = await _shown(it, "plugin/spare", PLUGIN)
    assert shown["Description"].startswith("Loaded anew")


def _unit() -> str:
    (unit,) = REPOSITORY.glob("systemd/*.service")
    return unit.name


async def test_a_plugin_of_other_sources_is_installed_by_pkg_config_and_steers(
    stage: MakeStage,
) -> None:
    """The daemon loads it from where its author's Makefile has put it."""
    author = PluginFiles().path
    (makefile,) = blocks(SHIP, "makefile")
    sources = python_files(PLUGINS)
    _write(author, {name: sources[name] for name in ("spare.py", "test_spare.py")})
    _write(author, {"Makefile": makefile})

    for line in command_lines(SHIP):
        _type(line, author)
    place = f"{author}/stage{_pkg_config('--variable=plugindir')}"
    settings = write_configuration("[plugin spare]\ninterface=link2\n")
    it = await stage("--plugin-dir", place, "--config", str(settings))
    await it.connection(await it.listener())

    async def joined() -> dict[str, Any]:
        return await _shown(it, "connection/1/subflow/2", SUBFLOW)

    subflow = await eventually(joined)
    assert (await _shown(it, "plugin/spare", PLUGIN))["State"] == "running"
    assert (await _shown(it, "connection/1", CONNECTION))["Owner"] == "spare"
    assert (subflow["Interface"], subflow["BackupRequested"]) == ("link2", True)


def _pkg_config(*options: str) -> str:
    argv = ["pkg-config", *options, "mptcpd-dbus"]
    return subprocess.check_output(argv, env=ENVIRONMENT, text=True).strip()


def test_pkg_config_names_the_directory_and_the_version_of_the_daemon() -> None:
    assert _pkg_config("--variable=plugindir") == config.PLUGIN_DIR
    assert _pkg_config("--modversion") == __version__

    moved = _pkg_config("--define-variable=prefix=/opt/x", "--variable=plugindir")
    assert moved == "/opt/x/lib/mptcpd-dbus"

"""The real command with a plugin directory: what it takes, what it refuses, how it ends.

Behaviour is that of mptcpd's own tests but for four things, which are said where they are tested.
"""
# SPDX-License-Identifier: BSD-3-Clause

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mptcpd_dbus.core.events import NewSubflow
from tests.e2e.conftest import MakeStage
from tests.e2e.observer import Observer
from tests.e2e.stage import CONNECTION, Stage
from tests.lab import users
from tests.lab.bus import ADDRESS
from tests.lab.hosts import Lab
from tests.lab.plugin_files import PluginFiles
from tests.lab.sandbox import initial_root, readable_repository
from tests.lab.wait import eventually

PLUGIN = "org.mptcpd1.Plugin"
EX_UNAVAILABLE, EX_CONFIG = 69, 78

NOTES = """
    import logging
    from mptcpd_dbus.plugin import Plugin

    class Notes(Plugin):
        '''Writes down what it hears'''

        priority = PRIORITY

        async def start(self):
            logging.getLogger("mptcpd_dbus.plugin").info("NAME starts")

        async def new_connection(self, connection):
            logging.getLogger("mptcpd_dbus.plugin").info("NAME has %08x", connection.token)
"""


def _notes(files: PluginFiles, name: str, priority: int = 0) -> None:
    files.write(name, NOTES.replace("NAME", name).replace("PRIORITY", str(priority)))


async def _plugins(play: Stage) -> dict[str, dict[str, Any]]:
    objects = await play.viewer.managed_objects()
    return {o[PLUGIN]["Name"]: o[PLUGIN] for o in objects.values() if PLUGIN in o}


async def _owner(play: Stage, path: str) -> str:
    return str(await play.viewer.get(path, CONNECTION, "Owner"))


def _refused(lab: Lab, *arguments: str) -> tuple[int, str]:
    """Start the command as its unit does; it must end by itself."""
    repository = readable_repository()
    argv = ["env", f"PYTHONPATH={repository}", f"{repository}/.venv/bin/python", "-m"]
    argv += ["mptcpd_dbus", "--bus", ADDRESS, "--netlink-buffer", "65536", *arguments]
    if initial_root():
        argv = users.as_user(users.DAEMON, argv, capability="net_admin")
    ran = subprocess.run(
        lab.command("client", argv),
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
        cwd="/",
    )
    assert "Traceback" not in ran.stderr
    return ran.returncode, ran.stderr


# What mptcpd does, too


async def test_a_directory_for_its_group_is_taken_and_the_named_default_beats_priority(
    stage: MakeStage,
) -> None:
    """Mptcpd's "good permissions": mode 0770; only the default hears of connections."""
    files = PluginFiles()
    for name, priority in (("high", -20), ("default", 0), ("low", 19)):
        _notes(files, name, priority)
    files.path.chmod(0o770)
    if initial_root():  # it belongs to the daemon's own user and group, as root's would not do
        shutil.chown(files.path, users.DAEMON, users.DAEMON)
    play = await stage("--plugin-dir", str(files.path), "--path-manager", "low")
    _, path = await play.connection(await play.listener())

    assert await _owner(play, path) == "low"
    log = play.daemon.log.read_text()
    assert [f"{name} starts" in log for name in ("high", "default", "low")] == [True] * 3
    assert [f"{name} has" in log for name in ("high", "default", "low")] == [False, False, True]
    assert await play.daemon.stop() == 0


async def test_a_list_loads_what_it_names_once_and_in_its_order(stage: MakeStage) -> None:
    files = PluginFiles()
    for name in ("one", "two", "three", "four"):
        _notes(files, name)
    play = await stage("--plugin-dir", str(files.path), "--load-plugins", "four,two,four")
    _, path = await play.connection(await play.listener())

    assert sorted(await _plugins(play)) == ["four", "two"]
    assert await _owner(play, path) == "four"
    starts = [w for w in play.daemon.log.read_text().splitlines() if w.endswith(" starts")]
    assert [line.split()[-2].rpartition(":")[2] for line in starts] == ["four", "two"]


# What it does otherwise: mptcpd exits with 1, or takes the first plugin that there is.


async def test_without_a_plugin_it_runs_without_policy(stage: MakeStage) -> None:
    """Mptcpd does not start from an empty directory."""
    files = PluginFiles()
    play = await stage("--plugin-dir", str(files.path))
    listener = await play.listener()
    _, path = await play.connection(listener)

    assert await _plugins(play) == {}
    assert await _owner(play, path) == ""
    with Observer(play.lab) as observer:  # and obeys the bus
        await play.create_subflow(path, LocalAddress="10.0.2.1")
        await eventually(lambda: observer.of(NewSubflow))
    assert await play.daemon.stop() == 0


async def test_with_nothing_but_broken_plugins_it_runs_without_policy(stage: MakeStage) -> None:
    """Mptcpd's "bad plugins" (no name, no symbol, a failing init) keep it from starting."""
    files = PluginFiles()
    files.write("no_class", "x = 1")
    files.write("syntax", "class (")
    files.write(
        "failed_init",
        """
        from mptcpd_dbus.plugin import Plugin
        class It(Plugin):
            async def start(self):
                raise RuntimeError("no")
        """,
    )
    play = await stage("--plugin-dir", str(files.path))
    _, path = await play.connection(await play.listener())

    found = await _plugins(play)
    assert {name: p["State"] for name, p in found.items()} == dict.fromkeys(
        ("no_class", "syntax", "failed_init"), "failed"
    )
    assert "one class derived from Plugin is wanted" in found["no_class"]["Problem"]
    assert "line 1: invalid syntax" in found["syntax"]["Problem"]
    assert "it did not start: RuntimeError: no" in found["failed_init"]["Problem"]
    log = play.daemon.log.read_text()
    assert all(f"plugin {name}" in log for name in found)
    assert await _owner(play, path) == ""
    assert await play.daemon.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--load-plugins", "one,missing"], "--load-plugins: there is no missing.py in "),
        # mptcpd takes the first plugin instead, and says nothing.
        (["--path-manager", "missing"], "path-manager: there is no plugin 'missing' among those"),
        (
            ["--load-plugins", "one", "--path-manager", "two"],
            "path-manager: there is no plugin 'two'",
        ),
    ],
)
def test_a_named_plugin_that_is_missing_ends_it_with_78(
    arguments: list[str], words: str, lab: Lab, bus: object
) -> None:
    del bus  # it must only be there
    files = PluginFiles()
    _notes(files, "one")
    _notes(files, "two")

    status, said = _refused(lab, "--plugin-dir", str(files.path), *arguments)
    assert status == EX_CONFIG
    assert words in said


def _everybodys(path: Path) -> None:
    path.chmod(0o777)


def _everybodys_parent(path: Path) -> None:
    path.parent.chmod(0o777)


def _gone(path: Path) -> None:
    shutil.rmtree(path)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_everybodys, "is writable by everybody (mode 0777)"),
        (_everybodys_parent, "is writable by everybody (mode 0777)"),
        (_gone, "cannot be opened: No such file or directory"),
    ],
)
def test_a_directory_that_cannot_be_trusted_ends_it_with_78(
    harm: Any, words: str, lab: Lab, bus: object
) -> None:
    """Mptcpd's "bad permissions", and more; the control is that it ends for the bus alone."""
    del bus  # it must only be there
    files = PluginFiles()
    files.path /= "inner"
    files.path.mkdir(mode=0o755)
    _notes(files, "one")
    status, said = _refused(lab, "--plugin-dir", str(files.path), "--bus", "unix:path=/nowhere")
    assert (status, "cannot reach the bus" in said) == (EX_UNAVAILABLE, True)

    harm(files.path)
    status, said = _refused(lab, "--plugin-dir", str(files.path))
    assert status == EX_CONFIG
    assert f"the plugin directory {files.path}" in said
    assert words in said


async def test_where_mptcp_is_off_it_ends_with_69_before_any_plugin_runs(
    lab: Lab, stage: MakeStage
) -> None:
    """Mptcpd ends with 1; with MPTCP on both run, and end with 0 when they are asked to."""
    files = PluginFiles()
    _notes(files, "one")
    play = await stage("--plugin-dir", str(files.path))
    assert "one starts" in play.daemon.log.read_text()
    assert await play.daemon.stop() == 0

    play.lab.sysctl("client", "net.mptcp.enabled", 0)
    status, said = _refused(play.lab, "--plugin-dir", str(files.path))
    assert status == EX_UNAVAILABLE
    assert "net.mptcp.enabled=1" in said
    assert "one starts" not in said
    del lab

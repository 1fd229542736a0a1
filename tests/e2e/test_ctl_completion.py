"""The completions work in the real shells: what a TAB makes of a line, with what there is."""
# SPDX-License-Identifier: BSD-3-Clause

import os
import shlex
from pathlib import Path

import pytest

from tests.contract import REPOSITORY
from tests.e2e.conftest import MakeStage
from tests.e2e.ctl import Ctl, OnTerminal, argv
from tests.e2e.stage import Stage
from tests.e2e.test_ctl import CONFIGURATION
from tests.lab.plugin_files import shipped_plugins, write_configuration

COMPLETION = REPOSITORY / "mptcpd_dbus/ctl/completion"
SHELLS = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        f"source {COMPLETION}/mptcpctl",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        f"fpath=({COMPLETION} $fpath); autoload -U compinit; compinit -D -u; bindkey -e",
    ),
}


def _lines(token: str) -> dict[str, str]:
    """Give what is typed before a TAB, and the line that it becomes."""
    return {
        "plug": "plugin",
        "--js": "--json",
        "plugin show active": "plugin show active_backup",
        f"show {token[:6]}": f"show {token}",
        f"subflow backup {token[:6]}": f"subflow backup {token}/1",
        f"--bus=system sub back {token}/1 of": f"--bus=system sub back {token}/1 off",
        "endpoint add dead:beef:2::1 sub": "endpoint add dead:beef:2::1 subflow",
        "endpoint add 10.0.2.1 dev link3": "endpoint add 10.0.2.1 dev link3",
        "list --int": "list --interface",
        "path-m": "path-manager",
        "path-manager user": "path-manager userspace",
    }


@pytest.fixture
async def connected(stage: MakeStage) -> tuple[Stage, str]:
    """Give a stage with a plugin and a connection, and that one's token."""
    config = str(write_configuration(CONFIGURATION))
    play = await stage("--config", config, "--plugin-dir", str(shipped_plugins()))
    pair, _ = await play.connection(await play.listener())
    return play, f"{pair.token:08x}"


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """Give the environment of a shell that finds mptcpctl."""
    command = tmp_path / "bin/mptcpctl"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.join(argv())} "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(tmp_path), "TERM": "xterm", "PS1": "> ", "LC_ALL": "C.UTF-8"}


class Shell:
    """A shell at whose prompt one types."""

    def __init__(self, terminal: OnTerminal) -> None:
        self._terminal = terminal
        self._count = 0

    async def completes(self, typed: str) -> str:
        """Give the line that a TAB makes of it; what is typed then prints it."""
        self._count += 1
        self._terminal.type(f"mptcpctl {typed}\t")
        # Ctrl-A and Ctrl-E go to both ends; what is typed is not what will be printed.
        self._terminal.type(f"\x01echo from$(({self._count})) \x05 to$(({self._count}))\n")
        shown = await self._terminal.shows(f" to{self._count}")
        line = shown.rpartition(f"from{self._count} ")[2].rpartition(" to")[0]
        return line.removeprefix("mptcpctl ")


@pytest.mark.parametrize("name", SHELLS)
async def test_a_tab_completes_what_is_unique(
    connected: tuple[Stage, str], installed: dict[str, str], name: str
) -> None:
    play, token = connected
    start, setting = SHELLS[name]
    environment = [f"{key}={value}" for key, value in installed.items()]

    with OnTerminal(play.lab.command("client", ["env", "-i", *environment, *start]), 200) as it:
        it.type(f"{setting}; echo ready-$((1 + 1))\n")
        await it.shows("ready-2")
        shell = Shell(it)
        for typed, line in _lines(token).items():
            assert await shell.completes(typed) == line
        it.type("mptcpctl endpoint \t\t")
        for word in ("show", "add", "delete", "change", "flush"):
            await it.shows(word)


async def test_fish_completes_the_same_and_tells_what_it_means(
    connected: tuple[Stage, str], installed: dict[str, str]
) -> None:
    """Asked as fish asks itself, see `complete -C` in complete(1) of fish."""
    play, token = connected
    environment = [f"{key}={value}" for key, value in installed.items()]

    def candidates(typed: str) -> list[list[str]]:
        script = f"source {COMPLETION}/mptcpctl.fish; complete -C {shlex.quote(typed)}"
        fish = ["env", "-i", *environment, "fish", "--no-config", "-c", script]
        return [line.split("\t") for line in play.lab.run("client", fish).splitlines()]

    for typed, line in _lines(token).items():
        assert [word for word, *_ in candidates(f"mptcpctl {typed}")] == [line.split()[-1]]
    assert ["status", "How the daemon and Multipath TCP on this host are doing (the default)"] in (
        candidates("mptcpctl ")
    )
    assert [word for word, *_ in candidates("mptcpctl endpoint ")][:3] == ["show", "add", "delete"]


async def test_it_is_silent_where_there_is_nothing_to_say(
    connected: tuple[Stage, str],
) -> None:
    """Wrong lines, and a daemon that is not there; neither may disturb who types."""
    play, token = connected
    ctl = Ctl(play.lab)

    def candidates(*words: str) -> list[str]:
        """Complete the last word."""
        ran = ctl.complete(*words)
        assert (ran.status, ran.err) == (0, "")
        return [line.partition("\t")[0] for line in ran.out.splitlines()]

    assert candidates("show", "") == [token]
    assert candidates("nonsense", "") == []
    assert candidates("s", "") == []
    assert candidates("show", "--nonsense", "") == []
    assert candidates("show", token, "") == []
    assert candidates("--bus", "unix:path=/nowhere", "show", "") == []
    await play.daemon.stop()
    assert candidates("show", "") == []
    assert candidates("sta") == ["status"]

"""The kernel's path manager: set by the configuration or a command, and put back at the end.

All is seen in the sysctl of the daemon's network namespace.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import CONNECTION, MANAGER
from tests.installation import CONFIGURATION
from tests.lab import service_manager
from tests.lab.bus import PrivateBus
from tests.lab.client import NAME, ROOT, BusClient
from tests.lab.daemon import Daemon
from tests.lab.hosts import Lab
from tests.lab.plugin_files import PluginFiles, shipped_plugins, write_configuration
from tests.lab.sandbox import SCRATCH
from tests.lab.service_manager import ServiceManager
from tests.lab.wait import eventually
from tests.system.service import Service

SYSCTL = "net.mptcp.path_manager"
KEY = "kernel-path-manager="
EX_UNAVAILABLE, EX_CONFIG = 69, 78


@pytest.fixture
def bus_policies(bus_policies: list[Path]) -> list[Path]:
    """Let systemd on the bus."""
    return [*bus_policies, service_manager.BUS_POLICY]


class Play:
    """A daemon with a configuration of its own, on a host whose path manager is the kernel's."""

    def __init__(self, lab: Lab, daemon: Daemon) -> None:
        self.daemon = daemon
        self.lab = lab
        self.file = write_configuration("")
        self.plugins = PluginFiles().path
        self.says("")

    def says(self, line: str) -> None:
        """Write the configuration."""
        self.file.write_text(f"[core]\nplugin-dir={self.plugins}\n{line}\n")

    async def start(self) -> None:
        """Start the daemon with it."""
        await self.daemon.start("--config", str(self.file))

    async def command(self, name: str) -> None:
        """Choose a path manager as root does on the bus."""
        argv = ["busctl", "call", NAME, ROOT, MANAGER, "SetPathManager", "sa{sv}", name, "0"]
        self.lab.run("client", argv)

    @property
    def found(self) -> str:
        """What the kernel has."""
        return self.lab.sysctl("client", SYSCTL)

    def somebody_sets(self, name: str) -> None:
        """Set it by hand."""
        self.lab.sysctl("client", SYSCTL, name)


@pytest.fixture
def play(lab: Lab, daemon: Callable[..., Daemon], memory: Path) -> Play:
    """Give a play; the daemon has a place for its notes."""
    del memory  # the environment has it
    return Play(lab, daemon())


# By configuration


@pytest.mark.also_booted
@pytest.mark.parametrize("found", ["kernel", "userspace"])
async def test_the_shipped_configuration_writes_no_sysctl(play: Play, found: str) -> None:
    """Whatever it is; one choice in the file would."""
    text = CONFIGURATION.read_text()
    play.somebody_sets(found)
    before = play.lab.run("client", ["sysctl", "net.mptcp"])

    for chosen in (text, re.sub(f"^#({KEY}.*)$", r"\1", text, flags=re.MULTILINE)):
        play.file.write_text(chosen)
        await play.daemon.start("--config", str(play.file), "--plugin-dir", str(shipped_plugins()))
        assert play.found == (found if chosen == text else "userspace")
        assert await play.daemon.stop() == 0
        assert play.lab.run("client", ["sysctl", "net.mptcp"]) == before


@pytest.mark.also_booted
async def test_the_configuration_sets_it_before_anybody_sees_the_daemon_and_the_end_puts_it_back(
    stage: MakeStage, memory: Path
) -> None:
    del memory
    file = write_configuration(f"[core]\n{KEY}userspace\n")
    it = await stage("--config", str(file), path_manager="kernel")

    assert it.lab.sysctl("client", SYSCTL) == "userspace"
    assert await it.viewer.get(ROOT, MANAGER, "PathManager") == "userspace"
    _, path = await it.connection(await it.listener())
    assert await it.viewer.get(path, CONNECTION, "PathManager") == "userspace"

    assert await it.daemon.stop() == 0
    assert it.lab.sysctl("client", SYSCTL) == "kernel"


async def test_what_was_so_before_stays(play: Play) -> None:
    """The control: it was not set by us."""
    play.somebody_sets("userspace")
    play.says(f"{KEY}userspace")
    await play.start()

    assert await play.daemon.stop() == 0
    assert play.found == "userspace"


async def test_what_somebody_sets_later_stays(play: Play) -> None:
    play.somebody_sets("userspace")
    play.says(f"{KEY}kernel")
    await play.start()
    assert play.found == "kernel"
    play.somebody_sets("userspace")
    await play.daemon.stop()
    assert play.found == "userspace"


async def test_a_changed_configuration_is_followed(play: Play) -> None:
    await play.start()
    play.says(f"{KEY}userspace")
    play.daemon.reload()
    await eventually(lambda: play.found == "userspace")

    await play.command("kernel")
    play.says(f"{KEY}userspace\nlog=stderr")
    await _reloaded(play)
    assert play.found == "kernel"  # for the matter it says what it said before the command

    play.says(f"{KEY}kernel")
    await _reloaded(play)
    play.says(f"{KEY}userspace")
    play.daemon.reload()
    await eventually(lambda: play.found == "userspace")
    play.says("")
    play.daemon.reload()
    await eventually(lambda: play.found == "kernel")


async def _reloaded(play: Play) -> None:
    play.lab.run("client", ["busctl", "call", NAME, ROOT, MANAGER, "Reload", "a{sv}", "0"])


# By command


async def test_what_was_commanded_holds_until_the_stop(play: Play) -> None:
    await play.start()
    await play.command("userspace")
    assert play.found == "userspace"
    await play.daemon.stop()
    assert play.found == "kernel"
    await play.start()
    assert play.found == "kernel"
    await play.daemon.stop()

    play.says(f"{KEY}userspace")
    await play.start()
    await play.command("kernel")
    await play.daemon.stop()
    assert play.found == "kernel"
    await play.start()
    assert play.found == "userspace"  # the word of the configuration counts again


# Restarts


@pytest.mark.parametrize("job", ["restart", "stop", ""])
async def test_a_restart_leaves_what_is_set_and_the_next_daemon_puts_it_back(
    play: Play, job: str
) -> None:
    """A stop, and one that nobody has a job for, are the controls."""
    await play.start()
    await play.command("userspace")

    async with await ServiceManager.connect() as manager:
        await manager.come(job)
        await play.daemon.stop()
    assert play.found == ("userspace" if job == "restart" else "kernel")

    await play.start()
    assert play.found == ("userspace" if job == "restart" else "kernel")
    await play.daemon.stop()
    assert play.found == "kernel"


@pytest.mark.also_booted
async def test_systemd_tells_a_restart_from_a_stop(play: Play) -> None:
    """By the same signal."""
    await play.start()
    await play.command("userspace")

    if isinstance(play.daemon, Service):
        await play.daemon.restart()
    else:
        async with await ServiceManager.connect() as manager:
            await manager.come("restart")
            await play.daemon.stop()
            await play.start()
    assert play.found == "userspace"

    await play.daemon.stop()
    assert play.found == "kernel"


async def test_a_command_against_the_configuration_outlives_a_restart(play: Play) -> None:
    play.says(f"{KEY}userspace")
    await play.start()
    await play.command("kernel")
    async with await ServiceManager.connect() as manager:
        await manager.come("restart")
        await play.daemon.stop()
        await play.start()
        assert play.found == "kernel"

        for word in ("kernel", "userspace"):  # a configuration that has changed is the later word
            await play.daemon.stop()
            play.says(f"{KEY}{word}")
            await play.start()
            assert play.found == word


@pytest.mark.also_booted
async def test_after_a_kill_the_next_daemon_knows_what_it_was(play: Play) -> None:
    play.says(f"{KEY}userspace")
    await play.start()
    play.daemon.kill()
    assert play.found == "userspace"
    await play.start()
    play.daemon.kill()

    await play.start()
    await play.daemon.stop()
    assert play.found == "kernel"


async def test_without_a_note_nobody_knows_what_it_was(play: Play, memory: Path) -> None:
    """The control of the tests on restarts."""
    play.says(f"{KEY}userspace")
    await play.start()
    play.daemon.kill()
    (memory / "path-manager").unlink()
    await play.start()
    await play.daemon.stop()

    assert play.found == "userspace"


# Failures


async def test_a_daemon_that_cannot_follow_puts_it_back_and_the_next_one_sets_it(
    play: Play,
) -> None:
    await play.start()
    await play.command("userspace")
    play.daemon.kill()
    play.says("what is this")
    assert play.found == "userspace"

    assert play.daemon.fails("--config", str(play.file)) == EX_CONFIG
    assert play.found == "kernel"
    assert play.daemon.fails("--config", str(play.file)) == EX_CONFIG

    play.says("")
    await play.start()
    assert play.found == "userspace"
    await play.daemon.stop()
    assert play.found == "kernel"


async def test_a_daemon_that_fails_while_it_serves_puts_it_back(
    play: Play, bus: PrivateBus
) -> None:
    """Its name is another's when the bus returns."""
    play.says(f"{KEY}userspace")
    await play.start()
    play.daemon.pause()
    bus.stop("bus")
    bus.start_bus()
    async with await BusClient.connect() as other:
        await other.bus_call("RequestName", "su", NAME, 0)
        play.daemon.resume()

        assert await play.daemon.ended() == EX_UNAVAILABLE
    assert play.found == "kernel"

    await play.start()
    assert play.found == "userspace"


async def test_a_stop_before_the_daemon_serves_puts_it_back(play: Play) -> None:
    """It follows one that was killed, and comes to a bus that says nothing."""
    play.says(f"{KEY}userspace")
    await play.start()
    play.daemon.kill()
    silent = SCRATCH / "silent-bus"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(silent))
        silent.chmod(0o666)
        listener.listen()
        listener.setblocking(False)
        bus = ("--bus", f"unix:path={silent}")
        starting = asyncio.ensure_future(play.daemon.start("--config", str(play.file), *bus))
        caller, _ = await asyncio.get_running_loop().sock_accept(listener)
        assert play.found == "userspace"

        assert await play.daemon.stop() == 0
        caller.close()
    with pytest.raises(RuntimeError, match="the daemon has died"):
        await starting
    assert play.found == "kernel"

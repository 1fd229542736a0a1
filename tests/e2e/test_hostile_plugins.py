"""Plugins that misbehave in every way that we could think of: each is named, none disturbs others.

Beside each stands a healthy one.  Both roles are played: the culprit decides for the connections,
or it only hears of the host while the healthy one decides.  The one exception is a handler that
blocks: in one process that cannot be hidden.
"""
# SPDX-License-Identifier: BSD-3-Clause

import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from mptcpd_dbus.repeats import LINES
from tests.e2e.conftest import MakeStage
from tests.e2e.stage import CONNECTION, PORT, Stage
from tests.lab.app import converse
from tests.lab.client import BusClient
from tests.lab.daemon import Daemon
from tests.lab.hosts import SERVER, Lab
from tests.lab.plugin_files import PluginFiles
from tests.lab.sandbox import SCRATCH
from tests.lab.supervisor import Supervisor
from tests.lab.wait import eventually

PLUGIN = "org.mptcpd1.Plugin"
PATH = "/org/mptcpd1/plugin/"
MANY = 300

GOOD = """
    from mptcpd_dbus.plugin import Plugin

    class Good(Plugin):
        '''Joins over the second link'''

        async def connection_established(self, connection):
            await self.pm.create_subflow(connection, interface="link2")
"""
BAD = """
    import asyncio, sys, time
    from mptcpd_dbus.plugin import Match, Plugin

    class Bad(Plugin):
        '''Misbehaves'''

        priority = -1
        claims = CLAIMS
        MORE

        async def HANDLER(self, *arguments):
            MISDEED
"""
HANDLERS = {"owner": "new_connection", "watcher": "new_local_address"}
WAIT = "await asyncio.Event().wait()"
SWALLOW = """\
while True:
    try:
        await asyncio.sleep(1)
    except asyncio.CancelledError:
        pass
"""


def _write(files: PluginFiles, misdeed: str, role: str, name: str = "bad", more: str = "") -> None:
    source = BAD.replace("HANDLER", HANDLERS[role]).replace("CLAIMS", str(role == "owner"))
    source = source.replace("MORE", more)
    files.write(name, source.replace("MISDEED", textwrap.indent(misdeed, 12 * " ").strip()))
    files.write("good", GOOD)


async def _plugin(viewer: BusClient, name: str) -> dict[str, Any]:
    objects = await viewer.managed_objects()
    return dict(objects[PATH + name][PLUGIN])


async def _joined(play: Stage, count: int, within: float = 5) -> None:
    """Wait until each of so many connections has its second subflow, and all is as ss(8) has it."""

    async def all_of_them() -> bool:
        over = [s[1][0] for s in await play.subflows()]
        return over.count("10.0.2.1") == count == len(over) / 2

    await eventually(all_of_them, within=within)
    await play.agreed()


# What is seen when it is loaded


def _world_writable(files: PluginFiles) -> None:
    files.write("world_writable", GOOD).chmod(0o666)


def _link(files: PluginFiles) -> None:
    outside = SCRATCH / "outside.py"
    outside.write_text(textwrap.dedent(GOOD))
    (files.path / "link.py").symlink_to(outside)


FILES: dict[str, tuple[str | Callable[[PluginFiles], None], str]] = {
    "syntax": ("def f(:\n", "line 1: invalid syntax"),
    "leaves": ("import sys\nsys.exit(3)", "line 2: SystemExit: 3"),
    "interrupts": ("raise KeyboardInterrupt", "line 1: KeyboardInterrupt"),
    "misspelt": (
        GOOD.replace("connection_established", "conection_established"),
        "conection_established is no handler; do you mean connection_established?",
    ),
    "signature": (
        GOOD.replace("(self, connection)", "(self)"),
        "connection_established has a wrong parameter list",
    ),
    "generator": (GOOD.replace("await", "yield"), "connection_established must be a coroutine"),
    "world_writable": (_world_writable, "world_writable.py is writable by everybody (mode 0666)"),
    "link": (_link, "link.py is a symbolic link"),
}


async def test_what_cannot_be_loaded_is_named_and_the_healthy_one_works(stage: MakeStage) -> None:
    files = PluginFiles()
    files.write("good", GOOD)
    for name, (how, _) in FILES.items():
        if callable(how):
            how(files)
        else:
            files.write(name, how)
    play = await stage("--plugin-dir", str(files.path))
    await play.many(await play.listener(), 3)
    await _joined(play, 3)

    log = play.daemon.log.read_text()
    for name, (_, words) in FILES.items():
        found = await _plugin(play.viewer, name)
        assert (found["State"], words in found["Problem"]) == ("failed", True), found
        assert str(files.path) not in found["Problem"]  # everybody reads it
        assert any(f"plugin {name} in " in line and words in line for line in log.split("\n"))
    assert (await _plugin(play.viewer, "good"))["Problem"] == ""
    assert await play.daemon.stop() == 0


# What it does in a handler

RAISED = {
    "error": ("raise ValueError('on purpose')", "ValueError: on purpose"),
    "leaves": ("raise SystemExit(3)", "SystemExit: 3"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "cancelled": ("raise asyncio.CancelledError", "CancelledError"),
    "cancels": ("asyncio.current_task().cancel(); await asyncio.sleep(1)", "CancelledError"),
    "awaits": ("await None", "TypeError: object NoneType can't be used in 'await' expression"),
    "mute": ("raise type('Mute', (Exception,), {'__str__': None})", "Mute: (its text"),
}
COUNT = 5


@pytest.mark.parametrize("role", HANDLERS)
async def test_those_that_raise_are_named_and_disabled_and_their_connections_pass_on(
    stage: MakeStage, role: str
) -> None:
    """All at once; as owners each has the connections to a port of its own."""
    files = PluginFiles()
    for port, (name, (misdeed, _)) in enumerate(RAISED.items(), PORT):
        _write(files, misdeed, role, name, f"match = Match(port=({port},))")
    play = await stage("--plugin-dir", str(files.path))
    if role == "watcher":
        added = [f"address add 10.0.3.{10 + n}/24 dev link3" for n in range(COUNT)]
        play.lab.batch("client", added)
    for port in range(PORT, PORT + len(RAISED)):
        await play.many(await play.listener(port=port), COUNT, port)
    await _joined(play, COUNT * len(RAISED))

    log = play.daemon.log.read_text()
    for name, (_, words) in RAISED.items():
        bad = await _plugin(play.viewer, name)
        assert bad["State"] == "failed"
        assert bad["Problem"].startswith(
            f"5 handlers failed in a row, the last: {HANDLERS[role]}: {words}"
        )
        assert bad["Errors"] == COUNT
        assert f"plugin {name}, {HANDLERS[role]}" in log
    good = await _plugin(play.viewer, "good")
    assert (good["State"], good["Problem"], good["Errors"]) == ("running", "", 0)
    assert good["Connections"] == COUNT * len(RAISED)
    assert await play.daemon.stop() == 0


async def test_one_that_fails_over_and_over_does_not_fill_the_log(stage: MakeStage) -> None:
    """Every second time, so that it is not disabled, and each time in other words."""
    files = PluginFiles()
    files.write("good", GOOD)
    odd = "if arguments[0].number % 2: raise ValueError(str(arguments[0].token))"
    _write(files, odd, "owner")
    play = await stage("--plugin-dir", str(files.path))
    await play.many(await play.listener(), 10 * LINES)

    async def failed() -> bool:
        return bool((await _plugin(play.viewer, "bad"))["Errors"] == 5 * LINES)

    await eventually(failed)
    log = play.daemon.log.read_text()
    assert log.count("ERROR: plugin bad, new_connection") == log.count("Traceback") == LINES
    assert (await _plugin(play.viewer, "bad"))["State"] == "running"


@pytest.mark.parametrize("role", HANDLERS)
@pytest.mark.parametrize("misdeed", [WAIT, SWALLOW], ids=["waits", "stays"])
async def test_one_that_hangs_for_ever_holds_up_nobody_and_lets_go_when_it_is_disabled(
    stage: MakeStage, role: str, misdeed: str
) -> None:
    files = PluginFiles()
    _write(files, misdeed, role)
    play = await stage("--plugin-dir", str(files.path))
    if role == "watcher":
        play.lab.ip("client", "address", "add", "10.0.3.10/24", "dev", "link3")
    await play.many(await play.listener(), 6)
    if role == "owner":
        await play.agreed()
        assert (await _plugin(play.viewer, "bad"))["Connections"] == 6
        await play.command(PATH + "bad", PLUGIN, "Disable", "a{sv}", {})
    await _joined(play, 6)

    if role == "watcher":
        await play.command(PATH + "bad", PLUGIN, "Disable", "a{sv}", {})
    assert (await _plugin(play.viewer, "bad"))["State"] == "disabled"
    assert await play.daemon.stop() == 0


async def test_one_that_hangs_when_it_starts_or_stops_keeps_the_daemon_from_neither(
    stage: MakeStage,
) -> None:
    files = PluginFiles()
    _write(files, WAIT, "owner")
    bad = (files.path / "bad.py").read_text()
    (files.path / "bad.py").write_text(bad.replace("new_connection", "start"))
    files.write("late", bad.replace("new_connection", "stop"))
    play = await stage("--plugin-dir", str(files.path))
    path = (await play.connection(await play.listener()))[1]

    assert (await _plugin(play.viewer, "bad"))["State"] == "loaded"
    assert await play.viewer.get(path, CONNECTION, "Owner") == "late"
    assert await play.daemon.stop() == 0
    assert "plugins that did not stop within 5 s: late" in play.daemon.log.read_text()


async def test_handlers_that_never_end_under_a_burst_cost_no_event_and_no_connection(
    stage: MakeStage,
) -> None:
    """The healthy one then gets all that are still there."""
    files = PluginFiles()
    _write(files, WAIT, "owner")
    play = await stage("--plugin-dir", str(files.path))
    listener = await play.listener()
    talks, accepted = await play.many(listener, 2 * MANY)
    for app, numbers in ((play.client, talks), (play.server, accepted)):
        for number in numbers[::2]:
            await app.call("close", number=number)
    await eventually(lambda: len(play.tokens()) == MANY, within=20)
    await play.agreed()
    assert (await _plugin(play.viewer, "bad"))["Connections"] == MANY

    await play.command(PATH + "bad", PLUGIN, "Disable", "a{sv}", {})
    await _joined(play, MANY, within=20)
    assert (await _plugin(play.viewer, "good"))["Connections"] == MANY


# What cannot be hidden


@pytest.mark.parametrize("role", HANDLERS)
async def test_two_seconds_without_the_loop_are_named_and_nothing_is_missing_afterwards(
    stage: MakeStage, role: str
) -> None:
    """It blocks once; meanwhile others connect, and the bus waits."""
    files = PluginFiles()
    once = "if not hasattr(self, 'done'):\n    self.done = True\n    time.sleep(2)\n"
    join = "await self.pm.create_subflow(connection, interface='link2')\n"
    _write(files, once, role)
    if role == "owner":  # it works, too
        with (files.path / "bad.py").open("a") as file:
            file.write(f"\n    async def connection_established(self, connection):\n        {join}")
    play = await stage("--plugin-dir", str(files.path))
    listener = await play.listener()
    if role == "watcher":
        play.lab.ip("client", "address", "add", "10.0.3.10/24", "dev", "link3")
    await play.many(listener, 50)
    await _joined(play, 50, within=10)

    found = await _plugin(play.viewer, "bad")
    assert found["State"] == "running"
    assert found["Problem"] == f"{HANDLERS[role]} blocked the daemon for 2.0 s"
    assert found["Errors"] == 1
    said = f"plugin bad blocked the daemon for 2.0 s in {HANDLERS[role]}"
    assert play.daemon.log.read_text().count(said) == 1
    assert (await _plugin(play.viewer, "good"))["Problem"] == ""


async def test_one_that_never_gives_the_loop_back_is_disabled_by_the_next_start(
    lab: Lab, daemon: Callable[..., Daemon]
) -> None:
    files = PluginFiles()
    _write(files, "if len(self.pm.connections) == 2:\n    time.sleep(1e6)", "owner")
    lab.sysctl("client", "net.mptcp.path_manager", "userspace")
    manager, process = Supervisor(), daemon()
    arguments = ("--plugin-dir", str(files.path))
    await process.start(*arguments, environment=manager.environment)
    async with await BusClient.connect() as viewer:
        play = Stage(lab, "client", process, viewer, lab.app("client"), lab.app("server"))
        listener = await play.listener()
        await play.connection(listener)
        for _ in range(3):  # the control: a daemon that is well is heard
            assert "WATCHDOG=1" in await manager.hear() or await manager.hear()
        assert (await _plugin(viewer, "bad"))["State"] == "running"

        await converse(play.client, play.server, listener, address=SERVER[4], port=PORT)
        await manager.until_silent()
        process.abort()
        assert await process.ended() == -6
        await process.start(*arguments, environment=manager.environment)

        bad = await _plugin(viewer, "bad")
        why = "the daemon was killed while new_connection held it up; enable it to try again"
        assert (bad["State"], bad["Problem"]) == ("failed", why)
        assert f"plugin bad is disabled: {why}" in process.log.read_text()
        assert (await _plugin(viewer, "good"))["Connections"] == 2
        await play.connection(listener)
        await _joined(play, 3)

        await play.command(PATH + "bad", PLUGIN, "Enable", "a{sv}", {})
        assert (await _plugin(viewer, "bad"))["State"] == "running"
    assert await process.stop() == 0
    manager.close()


LEAVES = """
    import asyncio, threading, time
    from mptcpd_dbus.plugin import Plugin

    class It(Plugin):
        '''Leaves something running'''

        async def start(self):
            WHAT

        async def _stay(self):
            while True:
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    pass
"""


@pytest.mark.parametrize(
    "what",
    [
        "self.task = asyncio.ensure_future(self._stay())",
        "threading.Thread(target=time.sleep, args=(1000,)).start()",
        "asyncio.get_running_loop().run_in_executor(None, time.sleep, 1000)",
    ],
    ids=["task", "thread", "executor"],
)
async def test_what_a_plugin_leaves_running_keeps_no_daemon_from_its_end(
    stage: MakeStage, what: str
) -> None:
    files = PluginFiles()
    files.write("leaves", LEAVES.replace("WHAT", what))
    play = await stage("--plugin-dir", str(files.path))
    assert await play.daemon.stop() == 0

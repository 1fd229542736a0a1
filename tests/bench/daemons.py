"""The daemons under test behind one door: ours, and Debian's mptcpd with a plugin that counts.

Each is a fresh process, on the client, run by an ordinary user with CAP_NET_ADMIN, as both units
do it.  What one has handled is what it has done for each event: ours has sent a signal, which the
subscriber counts; mptcpd has called its plugin, which counts (`reference.c`).
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import contextlib
import itertools
import os
import pwd
import struct
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Literal, Protocol

from tests.bench.bare import READY
from tests.bench.holds import Holds
from tests.lab import users
from tests.lab.app import App
from tests.lab.daemon import Daemon
from tests.lab.hosts import Lab
from tests.lab.plugin_files import PluginFiles
from tests.lab.sandbox import SCRATCH, initial_root, readable_repository
from tests.lab.wait import eventually

Name = Literal["ours", "mptcpd"]
Policy = Literal["count", "join", "hold"]
"""What a daemon's plugin does; with "hold" ours joins and looks at the loop, too (`holds.py`)."""

MPTCPD = Path("/usr/libexec/mptcpd")
COUNTERS = struct.Struct("=QQ")  # struct counters of reference.c
NO_EVENT = {"SignalsDropped", "EventsLost"}
JOIN = """
    from mptcpd_dbus.plugin import Plugin


    class Join(Plugin):
        '''Joins over link2 what goes to the server's one address'''

        async def connection_established(self, connection):
            if connection.remote_address != "10.0.9.1":
                return
            await self.pm.create_subflow(
                connection, interface="link2", local_port=connection.local_port
            )
"""
_numbers = itertools.count(1)


class Subject(Protocol):
    """A daemon that runs."""

    @property
    def pid(self) -> int:
        """Its process."""

    async def handled(self) -> int:
        """Tell how many events it has handled since it was started."""


class Ours:
    """The daemon of this repository, and the subscriber that it tells everything."""

    def __init__(self, daemon: Daemon, subscriber: App, holds: Holds | None) -> None:
        self._daemon, self._subscriber, self.holds = daemon, subscriber, holds

    @property
    def pid(self) -> int:
        """Its process."""
        return self._daemon.pid

    async def handled(self) -> int:
        """Count the signals that are events."""
        heard = await self._subscriber.call("heard")
        return sum(count for member, count in heard.items() if member not in NO_EVENT)


class Mptcpd:
    """Debian's, and the file in which its plugin counts."""

    def __init__(self, process: subprocess.Popen[bytes], counters: Path) -> None:
        self._process, self._counters = process, counters

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    async def handled(self) -> int:
        """Read how many events its plugin was told."""
        return self.counted()[1]

    def counted(self) -> tuple[int, int]:
        """Read whether it is ready, and how many events came."""
        ready, events = COUNTERS.unpack(self._counters.read_bytes())
        return ready, events


@contextlib.asynccontextmanager
async def ours(
    lab: Lab,
    subscriber: App,
    policy: Policy = "count",
    buffer: int = 0,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Ours]:
    """Run ours, with what a service manager adds to its *environment*.

    To count it needs no plugin, for it tells the bus of every event anyhow.
    """
    daemon = Daemon(lab, "client", SCRATCH / "ours.log")
    daemon.log.touch()
    arguments = ["--signal-budget", "0"]
    holds = None
    if policy != "count":
        plugins = PluginFiles()
        plugins.write("join", JOIN)
        arguments += ["--plugin-dir", str(plugins.path), "--load-plugins", "join"]
    if policy == "hold":
        holds = Holds(plugins)
        arguments[-1] += ",holds"  # behind the one that decides
    if buffer:
        arguments += ["--netlink-buffer", str(buffer)]
    await daemon.start(*arguments, environment=environment)
    await subscriber.call("forget")
    try:
        yield Ours(daemon, subscriber, holds)
    finally:
        await daemon.stop()


@contextlib.asynccontextmanager
async def mptcpd(lab: Lab, policy: Policy, buffer: int) -> AsyncIterator[Mptcpd]:
    """Run Debian's."""
    directory = SCRATCH / f"mptcpd{next(_numbers)}"
    directory.mkdir()
    counters = directory / "counters"
    counters.write_bytes(bytes(COUNTERS.size))
    _compile(directory / "bench.so")
    argv = [
        *("env", f"BENCH_COUNTERS={counters}", f"BENCH_PLUGIN={policy}", f"BENCH_BUFFER={buffer}"),
        *(str(MPTCPD), "--log=stderr", f"--plugin-dir={directory}"),
        *("--load-plugins=bench", f"--path-manager={policy}"),
    ]
    if initial_root():
        user = pwd.getpwnam(users.DAEMON)
        os.chown(counters, user.pw_uid, user.pw_gid)
        argv = users.as_user(users.DAEMON, argv, capability="net_admin")
    with (directory / "log").open("wb") as log:
        process = lab.popen("client", argv, stderr=log, cwd="/")
    it = Mptcpd(process, counters)

    def ready() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"mptcpd has died: {(directory / 'log').read_text()}")
        return it.counted()[0] == 1

    try:
        await eventually(ready, within=15)
        yield it
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 10)


@contextlib.asynccontextmanager
async def bare(lab: Lab) -> AsyncIterator[None]:
    """Run what a Python program must do at least to join (`bare.py`)."""
    argv = [str(readable_repository() / ".venv/bin/python"), "-m", "tests.bench.bare"]
    if initial_root():
        argv = users.as_user(users.DAEMON, argv, capability="net_admin")
    process = lab.popen(
        "client", argv, stdout=subprocess.PIPE, text=True, cwd=readable_repository()
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == f"{READY}\n"
        yield
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 10)
        process.stdout.close()


def _compile(target: Path) -> None:
    source = readable_repository() / "tests/bench/reference.c"
    if not MPTCPD.exists():
        raise RuntimeError("no mptcpd here: `make bench` installs it")
    subprocess.run(
        ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", target, source],
        check=True,
    )

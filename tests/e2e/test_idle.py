"""A daemon with nothing to do sleeps: it wakes up for its watchdog, and looks around on the way.

A wake-up is a voluntary context switch, which the kernel counts for each thread; see proc(5).
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import os
import re
import signal
import subprocess
from pathlib import Path

from tests.e2e.stage import PORT
from tests.figures import tell
from tests.lab import users
from tests.lab.app import converse
from tests.lab.hosts import SERVER, Host, Lab
from tests.lab.plugin_files import shipped_plugins
from tests.lab.sandbox import initial_root, readable_repository
from tests.lab.supervisor import Supervisor
from tests.lab.wait import eventually

PING_SECONDS = 6
PINGS = 60 // PING_SECONDS
FINDING = 3
"""Wake-ups when something was found: what is asked of the kernel then may wait for its locks."""


class Sleeper:
    """A daemon on a bus of its own, and the service manager whom it tells how it is."""

    def __init__(self, lab: Lab, host: Host, *arguments: str) -> None:
        if initial_root():
            users.install()
        self._manager = Supervisor(2 * PING_SECONDS)
        variables = self._manager.environment | {
            "PYTHONPATH": str(readable_repository()),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        python = f"{readable_repository()}/.venv/bin/python"
        argv = ["env", *(f"{name}={value}" for name, value in variables.items())]
        argv += ["dbus-run-session", "--", "sh", "-c", 'echo $$; exec "$@"', "sh"]
        argv += [python, "-m", "mptcpd_dbus", "--bus", "session", *arguments]
        if initial_root():
            argv = users.as_user(users.DAEMON, argv, capability="net_admin")
        self._session = lab.popen(host, argv, stdout=subprocess.PIPE, text=True, cwd="/")
        assert self._session.stdout is not None
        self.pid = int(self._session.stdout.readline())

    async def ready(self) -> None:
        """Wait until it serves, and for its first ping."""
        while not (await self._manager.hear()).startswith("WATCHDOG=1"):
            pass

    async def pings(self, count: int) -> tuple[int, str]:
        """Give its wake-ups from a ping to so many further ones, and how it then says it is."""
        await self._manager.hear()
        before = await self._wake_ups()
        for _ in range(count):
            status = await self._manager.hear()
        return await self._wake_ups() - before, status

    async def _wake_ups(self) -> int:
        """Count them when it has done all that it does for the last one."""
        await eventually(lambda: all("S (sleeping)" in status for status in self._threads()))
        statuses = "".join(self._threads())
        return sum(
            map(int, re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", statuses, re.MULTILINE))
        )

    def _threads(self) -> list[str]:
        return [file.read_text() for file in Path(f"/proc/{self.pid}/task").glob("*/status")]

    def memory(self) -> str:
        """Say what it takes; of what it shares, Pss counts its share.  See proc(5)."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        found = re.findall(r"^(Rss|Pss):\s+(\d+) kB", text, re.MULTILINE)
        return ", ".join(f"{name} {int(size) / 1024:.1f} MiB" for name, size in found)

    def stop(self) -> None:
        """End it, and its bus with it."""
        os.kill(self.pid, signal.SIGTERM)
        assert self._session.wait(10) == 0
        self._manager.close()


async def test_without_connections_it_wakes_up_for_the_watchdog_alone(lab: Lab) -> None:
    """For a minute, and finds what others did to endpoints, of which the kernel tells nobody.

    One daemon is as it is by default, with all plugins that we ship; the other one has endpoints to
    look after.  The control is a connection between their hosts, for which both wake up.
    """
    lab.sysctl("client", "net.mptcp.path_manager", "userspace")
    plugins = ("--plugin-dir", str(shipped_plugins()))
    sleepers = {
        "default": Sleeper(lab, "client", *plugins),
        "addr_adv": Sleeper(lab, "server", *plugins, "--load-plugins", "addr_adv"),
    }
    await asyncio.gather(*(sleeper.ready() for sleeper in sleepers.values()))
    lab.ip("server", "mptcp", "endpoint", "add", "10.0.7.7", "subflow")

    quiet = await asyncio.gather(*(sleeper.pings(PINGS) for sleeper in sleepers.values()))
    for (name, sleeper), (count, _) in zip(sleepers.items(), quiet, strict=True):
        tell(f"idle, {name}: {count} wake-ups in 60 s for {PINGS} pings; {sleeper.memory()}")
    client, server = lab.app("client"), lab.app("server")
    listener, _ = await server.call("listen", address=SERVER[4], port=PORT)
    await converse(client, server, listener, address=SERVER[4], port=PORT)
    busy = await asyncio.gather(*(sleeper.pings(2) for sleeper in sleepers.values()))
    tell(f"idle, the control: {[count for count, _ in busy]} wake-ups for 2 pings")

    (resting, _), (steering, status) = quiet
    assert resting == PINGS
    assert steering <= PINGS + FINDING
    endpoints = lab.ip("server", "mptcp", "endpoint", "show").count(" id ")
    assert f"by {endpoints} endpoints" in status
    for count, status in busy:
        assert count / 2 > steering / PINGS
        assert "1 connection;" in status
    for sleeper in sleepers.values():
        sleeper.stop()

"""The daemon as a process on a host of the lab, started as its unit starts it: not as root.

It knows the command, its bus name and its log, and nothing that goes on inside.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.lab import users, without_internet
from tests.lab.bus import ADDRESS
from tests.lab.client import NAME, BusClient
from tests.lab.hosts import Host, Lab
from tests.lab.sandbox import initial_root, over_usr, readable_repository
from tests.lab.wait import eventually


class Daemon:
    """A daemon, from start() to stop(), as often as wanted."""

    def __init__(self, lab: Lab, host: Host, log: Path) -> None:
        self.log = log
        self._lab, self._host = lab, host
        self._process: subprocess.Popen[Any] | None = None

    async def start(
        self,
        *arguments: str,
        root: bool = False,
        environment: Mapping[str, str] | None = None,
        installed: Path | None = None,
        listens: bool = True,
    ) -> None:
        """Start the daemon and return when its name is on the bus.

        It runs as its own user with CAP_NET_ADMIN alone, or as root; without real root as root
        of the sandbox, where there is no other user.  *environment* is what a service manager adds,
        *installed* the /usr that has the daemon, else it is that of the sources.  Unless it
        *listens*, it may have no sockets of the internet.
        """
        argv = _argv(*arguments, root=root, environment=environment, installed=installed)
        if not listens:
            argv = [sys.executable, without_internet.SCRIPT, *argv]
        with self.log.open("ab") as log:
            self._process = self._lab.popen(self._host, argv, stderr=log, cwd="/")
        async with await BusClient.connect() as client:

            async def ready() -> bool:
                if self._running().poll() is not None:
                    raise RuntimeError(f"the daemon has died:\n{self.log.read_text()}")
                return await client.owns(NAME)

            await eventually(ready, within=15.0)

    def fails(self, *arguments: str) -> int:
        """Start a daemon that ends by itself, and return its exit status."""
        argv = self._lab.command(self._host, _argv(*arguments))
        with self.log.open("ab") as log:
            return subprocess.run(argv, check=False, stderr=log, timeout=20, cwd="/").returncode

    async def stop(self) -> int:
        """Ask the daemon to end and return its exit status."""
        self._running().send_signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self, within: float = 10.0) -> int:
        """Wait for the end of the daemon and return its exit status."""
        return await asyncio.to_thread(self._running().wait, within)

    def kill(self) -> None:
        """End the daemon as a crash would."""
        self._running().kill()
        self._running().wait()

    def abort(self) -> None:
        """End the daemon as a service manager's watchdog would."""
        self._running().send_signal(signal.SIGABRT)

    def reload(self) -> None:
        """Have the daemon read its configuration again."""
        self._running().send_signal(signal.SIGHUP)

    def pause(self) -> None:
        """Stop the daemon in its tracks."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused daemon go on."""
        self._running().send_signal(signal.SIGCONT)

    @property
    def pid(self) -> int:
        """The process of the daemon."""
        return self._running().pid

    def _running(self) -> subprocess.Popen[Any]:
        assert self._process is not None, "the daemon was never started"
        return self._process


def _argv(
    *arguments: str,
    root: bool = False,
    environment: Mapping[str, str] | None = None,
    installed: Path | None = None,
) -> list[str]:
    repository = readable_repository()
    sources = [f"{repository}/.venv/bin/python", "-m", "mptcpd_dbus"]
    command = ["/usr/bin/mptcpd-dbus"] if installed else sources
    argv = [*command, "--bus", ADDRESS, *arguments]
    added = (f"{name}={value}" for name, value in (environment or {}).items())
    argv = ["env", f"PYTHONPATH={repository}", "PYTHONDONTWRITEBYTECODE=1", *added, *argv]
    if initial_root() and not root:
        argv = users.as_user(users.DAEMON, argv, capability="net_admin")
    if installed:
        argv = over_usr(installed, argv)
    return argv

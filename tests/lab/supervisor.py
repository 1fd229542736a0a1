"""The service manager that has started the daemon, as far as it listens to it: sd_notify(3).

It must not know what the daemon does.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import shutil
import socket
from pathlib import Path

from tests.lab import users
from tests.lab.sandbox import SCRATCH, initial_root


class Supervisor:
    """Hears how the daemon is."""

    SECONDS = 5.0
    """The daemon must be heard within this time."""

    def __init__(self) -> None:
        self.place = SCRATCH / "supervisor"
        shutil.rmtree(self.place, ignore_errors=True)
        for directory in (self.place, self.place / "runtime"):
            directory.mkdir(mode=0o755)
        if initial_root():
            shutil.chown(self.place / "runtime", users.DAEMON, users.DAEMON)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.place / "notify"))
        Path(self.place / "notify").chmod(0o666)
        self._socket.setblocking(False)
        self.environment = {
            "NOTIFY_SOCKET": str(self.place / "notify"),
            "RUNTIME_DIRECTORY": str(self.place / "runtime"),
            "WATCHDOG_USEC": str(int(self.SECONDS * 1_000_000)),
        }

    async def hear(self) -> str:
        """Give what the daemon says next; TimeoutError when it is silent for too long."""
        async with asyncio.timeout(self.SECONDS):
            loop = asyncio.get_running_loop()
            return (await loop.sock_recv(self._socket, 4096)).decode()

    async def until_silent(self) -> None:
        """Listen for as long as the daemon is alive."""
        while True:
            try:
                await self.hear()
            except TimeoutError:
                return

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

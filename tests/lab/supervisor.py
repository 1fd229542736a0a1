"""The service manager that has started the daemon, as far as it listens to it: sd_notify(3).

It must not know what the daemon does.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import itertools
import shutil
import socket
from contextlib import suppress
from pathlib import Path

from tests.lab import users
from tests.lab.sandbox import SCRATCH, initial_root

_numbers = itertools.count(1)


class Supervisor:
    """Hears how the daemon is."""

    def __init__(self, seconds: float = 5.0) -> None:
        self.seconds = seconds
        """The daemon must be heard within this time."""
        self.place = SCRATCH / f"supervisor{next(_numbers)}"
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
            "WATCHDOG_USEC": str(int(self.seconds * 1_000_000)),
        }

    async def hear(self) -> str:
        """Give what the daemon says next; TimeoutError when it is silent for too long."""
        async with asyncio.timeout(self.seconds):
            loop = asyncio.get_running_loop()
            return (await loop.sock_recv(self._socket, 4096)).decode()

    def said(self) -> list[str]:
        """Give what it has said and nobody has heard, without waiting."""
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(self._socket.recv(4096).decode())
        return found

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

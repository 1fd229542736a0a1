"""NetworkManager's own dispatcher on a host of the lab, with one script of ours and no others.

It must not know what the script does.  See NetworkManager-dispatcher(8).
"""
# SPDX-License-Identifier: BSD-3-Clause

import shutil
from pathlib import Path

from tests.lab.client import BusClient
from tests.lab.hosts import Host, Lab
from tests.lab.sandbox import SCRATCH
from tests.lab.wait import eventually

NAME = "org.freedesktop.nm_dispatcher"
BUS_POLICY = Path("/usr/share/dbus-1/system.d/nm-dispatcher.conf")

_LAY_OVER = """\
mount --bind "$0" /etc/NetworkManager/dispatcher.d &&
exec /usr/lib/NetworkManager/nm-dispatcher --persist --debug
"""


class Dispatcher:
    """The directory of the scripts, and the process that runs them."""

    def __init__(self, lab: Lab, host: Host = "client") -> None:
        self._lab, self._host = lab, host
        self._directory = SCRATCH / "dispatcher.d"
        shutil.rmtree(self._directory, ignore_errors=True)
        (self._directory / "pre-down.d").mkdir(parents=True)
        self.log = SCRATCH / "dispatcher.log"

    def install(self, script: Path) -> None:
        """Have it run for all actions, and waited for before an interface goes down."""
        name = "50-lab"
        shutil.copy(script, self._directory / name)
        (self._directory / "pre-down.d" / name).symlink_to(f"../{name}")

    async def start(self) -> None:
        """Start it where the bus would activate it, and return when it can be called."""
        with self.log.open("wb") as log:
            argv = ["sh", "-c", _LAY_OVER, str(self._directory)]
            self._lab.popen(self._host, argv, stdout=log, stderr=log)
        async with await BusClient.connect() as client:
            await eventually(lambda: client.owns(NAME))

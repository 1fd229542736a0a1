"""A real NetworkManager on a host of the lab: it manages some links and leaves them as they are.

Its profiles have the links' own addresses and routes.  In its namespace /sys is read-only, by which
it knows that there is no udev to wait for (as in a container), and what it remembers is in the
scratch directory.  See NetworkManager(8), NetworkManager.conf(5), nmcli(1).  It must not know the
daemon.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import itertools
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab.client import BusClient
from tests.lab.hosts import SERVER, Host, Lab, address
from tests.lab.sandbox import SCRATCH
from tests.lab.wait import eventually

NAME = "org.freedesktop.NetworkManager"
BUS_POLICY = Path(f"/usr/share/dbus-1/system.d/{NAME}.conf")

_CONFIGURATION = """\
[main]
plugins=keyfile
no-auto-default=*
dns=none
auth-polkit=root-only
[logging]
level=INFO
[keyfile]
path={directory}/profiles
[device-lab]
match-device={links}
managed=1
[device-others]
match-device=interface-name:*
managed=0
"""
_PROFILE = """\
[connection]
id=lab{link}
uuid=00000000-0000-4000-8000-00000000000{link}
type=ethernet
interface-name=link{link}
mptcp-flags=1
[ipv4]
method=manual
address1={v4[0]}/24
route1={server[4]}/32,{v4[1]},{metric}
[ipv6]
method=manual
address1={v6[0]}/64
route1={server[6]}/128,{v6[1]},{metric}
"""
_FURNISH = """\
mkdir -p /run/NetworkManager "$0/run" "$0/lib"
mount --bind "$0/run" /run/NetworkManager && mount --bind "$0/lib" /var/lib &&
mount -o remount,bind,ro /sys && exec "$@"
"""
_numbers = itertools.count(1)


class NetworkManager:
    """NetworkManager, from start() to stop(), as often as wanted; lab1 is the profile of link1."""

    def __init__(self, lab: Lab, host: Host = "client", links: Sequence[int] = (1, 2)) -> None:
        self._lab, self._host, self._links = lab, host, links
        self._directory = SCRATCH / f"network-manager{next(_numbers)}"
        self._process: subprocess.Popen[Any] | None = None
        profiles = self._directory / "profiles"
        profiles.mkdir(parents=True)
        self.log.touch()
        names = ",".join(f"interface-name:link{link}" for link in links)
        settings = _CONFIGURATION.format(directory=self._directory, links=names)
        (self._directory / "NetworkManager.conf").write_text(settings)
        for link in links:
            v4, v6 = (
                [address(side, link, family) for side in ("client", "server")] for family in (4, 6)
            )
            file = profiles / f"lab{link}.nmconnection"
            file.write_text(
                _PROFILE.format(link=link, v4=v4, v6=v6, server=SERVER, metric=100 * link)
            )
            file.chmod(0o600)  # it reads no others

    async def start(self) -> None:
        """Start it, and return when it has activated the links."""
        directory = self._directory
        argv = [
            *("NetworkManager", "--debug", f"--config={directory}/NetworkManager.conf"),
            *(f"--config-dir={directory}/none", f"--system-config-dir={directory}/none"),
            *(f"--intern-config={directory}/intern", f"--state-file={directory}/state"),
        ]
        with self.log.open("ab") as log:
            self._process = self._lab.popen(
                self._host, ["sh", "-c", _FURNISH, str(directory), *argv], stdout=log, stderr=log
            )
        async with await BusClient.connect() as client:
            await eventually(lambda: client.owns(NAME), within=10)
        for link in self._links:
            await self.nmcli("connection", "up", f"lab{link}")

    @property
    def log(self) -> Path:
        """What it had to say."""
        return self._directory / "log"

    async def stop(self) -> None:
        """Have it end, and leave the links as they are."""
        self.signal(signal.SIGTERM)
        assert self._process is not None
        await asyncio.to_thread(self._process.wait, 10)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal: SIGSTOP makes it hang."""
        assert self._process is not None, "NetworkManager was never started"
        self._process.send_signal(number)

    async def set(self, link: int, *words: str) -> None:
        """Change a link's profile in the words of nmcli(1), and have the device follow at once."""
        await self.nmcli("connection", "modify", f"lab{link}", *words)
        await self.nmcli("device", "reapply", f"link{link}")

    async def nmcli(self, *words: str) -> str:
        """Return what nmcli says; it must succeed."""
        argv = ["nmcli", "--terse", *words]
        ran = await asyncio.to_thread(
            subprocess.run, argv, check=False, capture_output=True, text=True, timeout=30
        )
        assert ran.returncode == 0, f"{' '.join(argv)}: {ran.stderr}{ran.stdout}"
        return str(ran.stdout)

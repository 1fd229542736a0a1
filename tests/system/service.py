"""The installed service as a daemon of the lab: under its unit, on a machine that is a host there.

The machine's system bus is the one that every client of the sandbox finds.  The unit is as it was
installed; only arguments of a test stand in a drop-in.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.lab.bus import SOCKET
from tests.lab.daemon import Daemon
from tests.lab.hosts import Host, Lab
from tests.lab.sandbox import SCRATCH
from tests.lab.wait import eventually
from tests.system.machine import Machine
from tests.system.product import UNIT, Installed
from tests.system.refusals import refusals

_DROP_IN = f"run/systemd/system/{UNIT}.d/lab.conf"
_WANTED = f"etc/systemd/system/multi-user.target.wants/{UNIT}"
_NETWORK_MANAGER = "etc/systemd/system/NetworkManager.service"
_NO_LISTENERS = (
    *("install", "-Dm", "644", "/usr/share/doc/mptcpd-dbus/examples/no-listeners.conf"),
    *("-t", f"/etc/systemd/system/{UNIT}.d"),
)
_CONFIGURATION = "etc/mptcpd-dbus/mptcpd-dbus.conf"


class Service(Daemon):
    """The service, from start() to stop(), as often as wanted; the machine is booted first."""

    def __init__(self, lab: Lab, host: Host, log: Path, installed: Installed) -> None:
        super().__init__(lab, host, log)
        self.machine = Machine(
            installed.layers,
            bus=installed.bus,
            namespace=lab.namespaces[host],
            binds={SOCKET.parent: str(SOCKET.parent), SCRATCH: f"{SCRATCH}:norbind"},
        )
        self._follower: subprocess.Popen[bytes] | None = None
        self.unit: list[str] = []
        """Lines by which a test wants the unit to be otherwise."""

    async def start(
        self,
        *arguments: str,
        root: bool = False,
        environment: Mapping[str, str] | None = None,
        installed: Path | None = None,
        listens: bool = True,
    ) -> None:
        """Start the service with these arguments and return when systemd calls it started."""
        assert not root, "the unit says as whom it runs"
        assert installed is None, "it is installed"
        if self._follower is None:
            await asyncio.to_thread(self._boot)
        lines = [*self.unit]
        lines += [f'Environment="{name}={value}"' for name, value in (environment or {}).items()]
        if arguments:
            lines += ["ExecStart=", " ".join(["ExecStart=/usr/bin/mptcpd-dbus", *arguments])]
        self._drop_in(lines)
        if not listens:
            await asyncio.to_thread(self.machine.run, *_NO_LISTENERS)
            self.machine.run("systemctl", "daemon-reload")
        await self._systemctl("start", UNIT)

    async def stop(self) -> int:
        """Have it stopped and return its exit status."""
        await self._systemctl("stop", UNIT)
        return await self.ended()

    async def restart(self) -> None:
        """Have it stopped and started."""
        await self._systemctl("restart", UNIT)

    async def ended(self, within: float = 10.0) -> int:
        """Wait for its end and return its exit status."""

        def is_off() -> bool:
            return self._shown("ActiveState") in ("inactive", "failed")

        await eventually(is_off, within)
        return int(self._shown("ExecMainStatus"))

    def kill(self) -> None:
        """End it as a crash would, and have nobody start it again."""
        self._drop_in(["Restart=no"])
        self.crash()
        self.machine.wait(lambda: self._shown("ActiveState") == "failed", "the end of the service")

    def crash(self) -> None:
        """End it as a crash would."""
        self._signal("KILL")

    def abort(self) -> None:
        """End it as its watchdog would."""
        self._signal("ABRT")

    def reload(self) -> None:
        """Have it read its configuration again."""
        self._signal("HUP")

    def pause(self) -> None:
        """Stop it in its tracks."""
        self._signal("STOP")

    def resume(self) -> None:
        """Let it go on after a pause."""
        self._signal("CONT")

    @property
    def main_pid(self) -> str:
        """Its process, as it is called on its machine; "0" for none."""
        return self._shown("MainPID")

    def is_active(self) -> bool:
        """Whether systemd calls it up."""
        return self._shown("ActiveState") == "active"

    @property
    def pid(self) -> int:
        """Its process, as it is called out here."""
        return self.machine.process(int(self.main_pid))

    def end(self) -> None:
        """Switch the machine off, if it was ever on, and delete it; find that all was allowed."""
        journal = ""
        if self._follower is not None:
            self._follower.kill()
            self._follower.wait()
            journal = self.machine.journal(f"--unit={UNIT}")
            self.machine.power_off()
        self.machine.remove()
        assert refusals(journal) == []

    def _boot(self) -> None:
        """Boot without what a test starts itself, and without what would use the lab's links."""
        (self.machine.root / _WANTED).unlink()
        (self.machine.root / _NETWORK_MANAGER).symlink_to("/dev/null")
        none = SCRATCH / "no-plugins"
        none.mkdir(exist_ok=True)
        (self.machine.root / _CONFIGURATION).write_text(f"[core]\nplugin-dir={none}\n")
        self.machine.boot()
        follow = ["journalctl", "--follow", "--output=cat", f"--unit={UNIT}"]
        with self.log.open("ab") as log:
            self._follower = subprocess.Popen(self.machine.command(*follow), stdout=log)

    def _drop_in(self, lines: list[str]) -> None:
        """Have the unit be otherwise, in these lines alone."""
        self.machine.write(_DROP_IN, "\n".join(["[Service]", *lines, ""]))
        self.machine.run("systemctl", "daemon-reload")

    def _signal(self, name: str) -> None:
        self.machine.run("systemctl", "kill", f"--signal={name}", UNIT)

    def _shown(self, name: str) -> str:
        return self.machine.shown(name, UNIT)

    async def _systemctl(self, *arguments: str) -> None:
        try:
            await asyncio.to_thread(self.machine.run, "systemctl", *arguments)
        except AssertionError as error:
            raise RuntimeError(f"{error}\n{self.log.read_text()}") from error

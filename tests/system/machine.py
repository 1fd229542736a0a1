"""A Debian system booted in a container: systemd is process 1, on a bus and a network of its own.

Its root is an overlay over the layers that it is given, the uppermost first.  Its network is a host
of the lab if one is given.  It ends with the sandbox at the latest, and must not know what is
installed in it.  See systemd-nspawn(1), nsenter(1).
"""
# SPDX-License-Identifier: BSD-3-Clause

import itertools
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

from tests.lab.bus import Kind
from tests.lab.sandbox import SCRATCH, inside

_CGROUPS = Path("/sys/fs/cgroup")
_NAMESPACES = ("-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w")  # and its root
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENTER = 'echo 0 >"$0/cgroup.procs" && exec "$@"'
T = TypeVar("T")
_numbers = itertools.count(1)


class Machine:
    """A system from boot() to power_off(), as often as wanted."""

    def __init__(
        self,
        layers: Sequence[Path],
        *,
        bus: Kind = "dbus-daemon",
        namespace: str | None = None,
        binds: Mapping[Path, str] | None = None,
    ) -> None:
        if not inside():
            raise RuntimeError("a machine needs the sandbox: python -m tests.lab.sandbox COMMAND")
        self.name = f"machine{next(_numbers)}"
        self._place = SCRATCH / self.name
        self._bus, self._namespace, self._binds = bus, namespace, binds or {}
        self._container: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._last_journal = ""
        self._group = Path()
        for directory in ("upper", "work", "root"):
            (self._place / directory).mkdir(parents=True)
        lower = ":".join(map(str, layers))
        options = f"lowerdir={lower},upperdir={self.layer},workdir={self._place}/work"
        _run("mount", "-t", "overlay", "-o", options, "overlay", str(self.root))

    @property
    def root(self) -> Path:
        """Where its files are seen from here."""
        return self._place / "root"

    @property
    def layer(self) -> Path:
        """What it has written; a layer for others once it is off."""
        return self._place / "upper"

    def __enter__(self) -> Self:
        self.boot()
        return self

    def __exit__(self, *_: object) -> None:
        self.power_off()

    def boot(self) -> None:
        """Boot, and return when all that starts at boot has started."""
        self._choose_bus()
        self._group = _control_group()
        network = f"--network-namespace-path=/run/netns/{self._namespace}"
        with (self._place / "console.log").open("ab") as console:
            self._container = subprocess.Popen(
                [
                    *("sh", "-c", _ENTER, str(self._group)),
                    *("systemd-nspawn", "--boot", f"--directory={self.root}"),
                    *("--register=no", "--keep-unit", "--console=passive", "--quiet"),
                    *("--resolv-conf=off", "--timezone=off", "--link-journal=no"),
                    f"--machine={self.name}",
                    network if self._namespace else "--private-network",
                    "--capability=CAP_NET_ADMIN",
                    *(f"--bind={ours}:{theirs}" for ours, theirs in self._binds.items()),
                ],
                env=os.environ | {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        self._leader = self.wait(self._find_leader, "process 1")
        self.wait(self._is_up, "the end of its boot")

    def power_off(self) -> None:
        """Shut down in order; what was written stays."""
        assert self._container is not None
        self._last_journal = self.journal()
        self._leader = 0
        self._container.send_signal(signal.SIGTERM)
        try:
            self._container.wait(30)
        finally:
            self._container.kill()
            self._container.wait()
        for directory, _, _ in os.walk(self._group, topdown=False):
            Path(directory).rmdir()

    def remove(self) -> None:
        """Delete all that it has written; it is off for good."""
        _run("umount", str(self.root))
        shutil.rmtree(self._place)

    def run(self, *argv: str, user: str | None = None, status: int | None = 0) -> str:
        """Return what a command prints that runs there; it must end with that status, if any."""
        ran = subprocess.run(
            self.command(*argv, user=user),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert status in (None, ran.returncode), (
            f"{shlex.join(argv)}: {ran.returncode}\n{ran.stdout}"
        )
        return ran.stdout

    def shown(self, name: str, unit: str) -> str:
        """Give a property of a unit there."""
        return self.run("systemctl", "show", f"--property={name}", "--value", unit).strip()

    def command(self, *argv: str, user: str | None = None) -> list[str]:
        """Give the command line that runs argv there, as root or as a user without a session."""
        there = ["nsenter", f"--target={self._leader}", *_NAMESPACES]
        environment = ["env", "-i", _PATH, "HOME=/root", "LANG=C.UTF-8"]
        become = [f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
        # nsenter(1) must fork, and hands no signal on.
        return [*there, *environment, "setpriv", "--pdeathsig=KILL", *become, *argv]

    @staticmethod
    def session(user: str, *argv: str) -> list[str]:
        """Give the command line that runs argv as who sits at the machine, see pam_systemd(8)."""
        settings = (
            *(f"User={user}", "PAMName=login", "WorkingDirectory=/"),
            *("Environment=XDG_SEAT=seat0", "Environment=XDG_SESSION_TYPE=x11"),
        )
        run = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect"]
        words = (word.replace("$", "$$") for word in argv)  # which systemd would expand
        return [*run, *(f"--property={setting}" for setting in settings), *words]

    def console(self) -> str:
        """Give what appeared on its console."""
        return (self._place / "console.log").read_text(errors="replace")

    def journal(self, *arguments: str) -> str:
        """Give what is in its journal, all of it once it is off; nothing before it is on."""
        if not self._leader:
            return self._last_journal
        return self.run("journalctl", "--boot", "--no-pager", "--quiet", *arguments)

    def write(self, file: str, text: str) -> None:
        """Write a file there, also where it has a file system of its own."""
        path = Path(f"/proc/{self._leader}/root", file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def process(self, number: int) -> int:
        """Give the number out here of a process that has another one there."""
        groups = self._group.rglob("cgroup.procs")
        processes = (int(word) for group in groups for word in group.read_text().split())
        return next(outer for outer in processes if _inmost(outer) == number)

    def wait(self, condition: Callable[[], T], what: str, within: float = 60.0) -> T:
        """Return the first true value of the condition."""
        deadline = time.monotonic() + within
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} never came to {what}:\n{self.console()}")
            time.sleep(0.02)
        return found

    def _choose_bus(self) -> None:
        for scope in ("system", "user"):
            alias = self.root / f"etc/systemd/{scope}/dbus.service"
            alias.unlink(missing_ok=True)
            if self._bus == "dbus-broker":
                alias.symlink_to(f"/usr/lib/systemd/{scope}/dbus-broker.service")

    def _find_leader(self) -> int:
        """Give the process that is 1 in there: a child of the container's, or a grandchild."""
        assert self._container is not None
        with suppress(FileNotFoundError, ProcessLookupError):  # some of them come and go
            for child in _children(self._container.pid):
                for process in (child, *_children(child)):
                    if _inmost(process) == 1:
                        return process
        return 0

    def _is_up(self) -> bool:
        state = self.run("systemctl", "is-system-running", status=None).strip()
        return state in ("running", "degraded")


def _control_group() -> Path:
    """Make a control group for a container, below which its systemd makes others."""
    if not (_CGROUPS / "cgroup.procs").exists():  # the sandbox has an empty /sys
        _run("mount", "-t", "cgroup2", "cgroup2", str(_CGROUPS))
    return Path(tempfile.mkdtemp(prefix="mptcpd-dbus-", dir=_CGROUPS))


def _children(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(word) for word in text.split()]


def _inmost(process: int) -> int:
    """Give the number of a process in its own namespace."""
    status = Path(f"/proc/{process}/status").read_text()
    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:"))
    return int(numbers.split()[-1])


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)

"""A private system bus: a real dbus-daemon or dbus-broker, and a real polkitd on it.

It listens where every client looks for the system bus, and its policy is the machine's own
system.conf (so everything is denied that no file allows), see dbus-daemon(1), polkit(8).
Without real root there are no other users: then everything is allowed, and there is no polkit.
It must not know the daemon beyond the files it is given.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import threading
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from tests.lab import users
from tests.lab.journal import decode
from tests.lab.sandbox import SCRATCH, initial_root, inside, overlay, readable_repository

Kind = Literal["dbus-daemon", "dbus-broker"]
KINDS: tuple[Kind, ...] = ("dbus-daemon", "dbus-broker")
SOCKET = Path("/run/dbus/system_bus_socket")
JOURNAL = Path("/run/systemd/journal/socket")
ADDRESS = f"unix:path={SOCKET}"

_QUEUE = Path("/proc/sys/net/unix/max_dgram_qlen")  # of a new socket; systemd sets it, too
_POLKIT = "org.freedesktop.PolicyKit1"
_UNWANTED: tuple[str, ...] = (
    *("fork", "pidfile", "syslog", "include", "includedir"),
    *("servicehelper", "standard_system_servicedirs"),
)
_HEADER = (
    '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"\n'
    ' "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">\n'
)
_ALLOW_ALL = '<policy context="mandatory"><allow own="*"/><allow send_destination="*"/></policy>'
_RULES = f"""\
polkit.addAdminRule(function(action, subject) {{ return ["unix-user:bob"]; }});
polkit.addRule(function(action, subject) {{
    if (subject.isInGroup("{users.ALLOWED_GROUP}")) return polkit.Result.YES;
    if (action.id == "org.mptcpd1.register-policy" && subject.isInGroup("{users.DECIDING_GROUP}"))
        return polkit.Result.YES;
}});
"""
_COMMANDS: dict[Kind, list[str]] = {
    "dbus-daemon": ["dbus-daemon", "--address=systemd:", "--nofork", "--nopidfile"],
    "dbus-broker": ["dbus-broker-launch", "--scope", "system"],
}
_ACTIVATE = 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3<&0 </dev/null'  # sd_listen_fds(3)
_numbers = itertools.count(1)


def installed_kinds() -> list[Kind]:
    """Return the buses of which this user can run one; dbus-broker needs another user."""
    return [kind for kind in KINDS if shutil.which(kind) and (initial_root() or kind == KINDS[0])]


class PrivateBus:
    """The system bus of the sandbox while it is entered."""

    def __init__(
        self,
        *,
        kind: Kind = "dbus-daemon",
        policies: Sequence[Path] = (),
        polkit: bool = False,
        actions: Sequence[Path] = (),
    ) -> None:
        if not inside():
            raise RuntimeError("the bus needs its sandbox: python -m tests.lab.sandbox COMMAND")
        if polkit and not initial_root():
            raise RuntimeError("polkit needs users, and only root has more than one")
        self.kind = kind
        self.directory = SCRATCH / f"bus{next(_numbers)}"
        self._policies, self._polkit, self._actions = policies, polkit, actions
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.entries: list[dict[str, str]] = []
        """What came to the journal."""
        _QUEUE.write_text("512")
        self._journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._journal_reader = threading.Thread(target=self._read_journal, daemon=True)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._set_up()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the bus and polkitd."""
        for name in reversed(list(self._processes)):
            self.stop(name)
        self._journal.shutdown(socket.SHUT_RDWR)
        if self._journal_reader.is_alive():
            self._journal_reader.join()
        self._journal.close()

    def start_bus(self) -> None:
        """Start the bus on a socket that is open already, as systemd does with either kind."""
        SOCKET.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(SOCKET))
            SOCKET.chmod(0o666)
            listener.listen(128)
            argv = [*_COMMANDS[self.kind], f"--config-file={self.directory}/bus.conf"]
            self._start("bus", ["sh", "-c", _ACTIVATE, "sh", *argv], stdin=listener)
        self._wait_for("org.freedesktop.DBus")

    def start_polkit(self) -> None:
        """Start polkitd, and return when it can be asked."""
        places = ("/usr/lib/polkit-1/polkitd", "/usr/libexec/polkitd")
        self._start("polkitd", [next(place for place in places if Path(place).exists())])
        self._wait_for(_POLKIT)

    def stop(self, name: str) -> None:
        """Kill "bus" or "polkitd"."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def pause(self, name: str) -> None:
        """Have "bus" or "polkitd" hang: it is there, and does nothing."""
        self._signal(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let it go on."""
        self._signal(name, signal.SIGCONT)

    def processor_seconds(self) -> float:
        """Give how much of the processor's time the bus has had; see schedstat in proc(5)."""
        files = [Path(f"/proc/{pid}/schedstat") for pid in self._family("bus")]
        return sum(int(file.read_text().split()[0]) for file in files) / 1e9

    def _signal(self, name: str, number: int) -> None:
        for pid in self._family(name):
            os.kill(pid, number)

    def _family(self, name: str) -> list[int]:
        """Give the process and those that it has started."""
        pid = self._processes[name].pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    @property
    def pid(self) -> int:
        """The process of the bus, of a dbus-daemon."""
        return self._processes["bus"].pid

    def logs(self) -> str:
        """Return what the bus and polkitd had to say."""
        files = sorted(self.directory.glob("*.log"))
        return "".join(f"--- {file.stem}\n{file.read_text()}" for file in files)

    def _start(self, name: str, command: list[str], **options: Any) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log, **options)

    def _wait_for(self, name: str) -> None:
        waiting = ["gdbus", "wait", "--address", ADDRESS, "--timeout", "10", name]
        if subprocess.run(waiting, check=False).returncode != 0:
            raise RuntimeError(f"no {name} on the bus:\n{self.logs()}")

    def _set_up(self) -> None:
        self.directory.mkdir()
        if initial_root():
            users.install()
        (self.directory / "bus.conf").write_text(self._configuration())
        self._open_journal()
        self.start_bus()
        if self._polkit:
            self._install_polkit_files()
            self.start_polkit()

    def _open_journal(self) -> None:
        """Be the journal, without which dbus-broker does not start."""
        JOURNAL.parent.mkdir(parents=True, exist_ok=True)
        JOURNAL.unlink(missing_ok=True)
        self._journal.bind(str(JOURNAL))
        JOURNAL.chmod(0o666)
        self._journal_reader.start()

    def _read_journal(self) -> None:
        """Take the entries as they come: dbus-broker stands still when a few are not read."""
        with (self.directory / "bus.log").open("a", buffering=1) as log:
            while entry := self._journal.recv(1 << 20):
                fields = dict(decode(entry))
                self.entries.append(fields)
                log.write("".join(f"{name}={value}\n" for name, value in fields.items()))

    def _configuration(self) -> str:
        """Return the machine's system.conf without what makes it the machine's, and with ours."""
        # The machine's own file, nobody's input.
        root = ET.parse("/usr/share/dbus-1/system.conf").getroot()  # noqa: S314
        dropped = _UNWANTED if initial_root() else (*_UNWANTED, "user")
        for element in list(root):
            if element.tag in dropped:
                root.remove(element)
        if not initial_root():
            root.append(ET.fromstring(_ALLOW_ALL))  # noqa: S314 - written above
        for policy in (*self._policies, *self._polkit_policies()):
            ET.SubElement(root, "include").text = str(policy)
        return _HEADER + ET.tostring(root, encoding="unicode")

    def _polkit_policies(self) -> list[Path]:
        places = ("/usr/share/dbus-1/system.d", "/etc/dbus-1/system.d")
        files = [Path(place, f"{_POLKIT}.conf") for place in places if self._polkit]
        return [file for file in files if file.exists()]

    def _install_polkit_files(self) -> None:
        """Lay the actions and the lab's rules over the machine's, once in a sandbox."""
        rules = Path("/etc/polkit-1/rules.d")
        for directory in (Path("/usr/share/polkit-1"), rules.parent):
            if not directory.is_mount():
                overlay(directory, directory)
        rules.mkdir(exist_ok=True)
        (rules / "00-lab.rules").write_text(_RULES)
        for action in self._actions:
            shutil.copy(action, "/usr/share/polkit-1/actions/")


class Agent:
    """Somebody who answers polkit's questions for one process, as `tests/lab/agent.py`."""

    def __init__(self, answer: Literal["approve", "deny", "hang"], user: str, pid: int) -> None:
        script = f"{readable_repository()}/tests/lab/agent.py"
        self.process = subprocess.Popen(
            ["/usr/bin/python3", "-I", script, str(pid), user, answer],
            stdout=subprocess.PIPE,
            text=True,
        )

    async def __aenter__(self) -> Self:
        try:
            await self.expect("registered")
        except BaseException:
            self.process.kill()
            self.process.communicate()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    async def expect(self, word: str, within: float = 10.0) -> str:
        """Return the agent's next line, which must begin with the word."""
        assert self.process.stdout is not None
        async with asyncio.timeout(within):
            line = await asyncio.to_thread(self.process.stdout.readline)
        assert line.startswith(word), f"the agent says {line!r} instead of {word!r}"
        return line

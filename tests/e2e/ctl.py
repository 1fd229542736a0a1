"""mptcpctl as people run it: a process on a host of the lab, with pipes or on a terminal.

It knows how to run it, and nothing of what it says.
"""
# SPDX-License-Identifier: BSD-3-Clause

import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
from dataclasses import dataclass
from typing import Any, Self

from tests.lab.bus import ADDRESS
from tests.lab.client import BusClient, BusError
from tests.lab.hosts import Host, Lab
from tests.lab.sandbox import readable_repository
from tests.lab.wait import eventually

LONGEST = 40.0


def argv(*words: str, **environment: str) -> list[str]:
    """Give the command line that runs mptcpctl from the sources, for any user."""
    repository = readable_repository()
    given = {"PYTHONPATH": str(repository), "PYTHONDONTWRITEBYTECODE": "1", "TERM": "xterm"}
    settings = (f"{name}={value}" for name, value in (given | environment).items())
    python = f"{repository}/.venv/bin/python"
    # readline, which pytest imports, sets the width of the terminal that it sees.
    unset = ["-u", "COLUMNS", "-u", "LINES", "-u", "NO_COLOR"]
    return ["env", "-C", "/", *unset, *settings, python, "-m", "mptcpd_dbus.ctl", *words]


async def name_on_bus(pid: int) -> str:
    """Wait until a process is on the bus and give its name there."""
    async with await BusClient.connect() as client:

        async def found() -> str:
            for name in await client.bus_call("ListNames", ""):
                with contextlib.suppress(BusError):  # it has left meanwhile
                    if await client.bus_call("GetConnectionUnixProcessID", "s", name) == pid:
                        return str(name)
            return ""

        return await eventually(found, within=15)


@dataclass(frozen=True)
class Ran:
    """What came of it."""

    status: int
    out: str
    err: str


class Ctl:
    """mptcpctl on a host, as a user if one is given."""

    def __init__(self, lab: Lab, host: Host = "client", user: str | None = None) -> None:
        self._lab, self._host, self._user = lab, host, user

    def argv(self, *words: str, **environment: str) -> list[str]:
        """Give the command line."""
        return self._lab.command(self._host, argv(*words, **environment), self._user)

    def run(self, *words: str, bus: str = ADDRESS, **environment: str) -> Ran:
        """Run it with pipes to its end."""
        return self._run(self.argv("--bus", bus, *words, **environment))

    def complete(self, *words: str) -> Ran:
        """Ask it, as shells do, what completes the last word."""
        return self._run(self.argv("__complete", *words))

    @staticmethod
    def _run(argv: list[str]) -> Ran:
        ran = subprocess.run(
            argv,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST,
        )
        assert "Traceback" not in ran.stderr, ran.stderr
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def said(self, *words: str, **environment: str) -> str:
        """Run what must succeed without a complaint; give what it printed."""
        ran = self.run(*words, **environment)
        assert (ran.status, ran.err) == (0, ""), ran
        return ran.out

    def json(self, *words: str) -> Any:
        """Run what must succeed and give the one object that it printed."""
        (line,) = self.said("--json", *words).splitlines()
        return json.loads(line)

    def refused(self, *words: str, bus: str = ADDRESS) -> tuple[int, str]:
        """Run what must fail with one line; give the exit status and the line."""
        ran = self.run(*words, bus=bus)
        assert ran.status != 0, ran
        assert ran.out == ""
        assert ran.err.startswith("mptcpctl: ")
        assert ran.err.count("\n") == 1
        return ran.status, ran.err.removeprefix("mptcpctl: ").rstrip()


class OnTerminal:
    """A program on a terminal of that size; `shown` has all that it printed there."""

    def __init__(self, argv: list[str], columns: int = 80, lines: int = 24) -> None:
        self.shown = ""
        self._ours, theirs = pty.openpty()
        self.resize(columns, lines)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *argv], stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        os.set_blocking(self._ours, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up, which ends what still runs."""
        os.close(self._ours)
        self.process.wait(LONGEST)

    @property
    def pid(self) -> int:
        """The process, also after exec(2)."""
        return self.process.pid

    @property
    def settings(self) -> list[Any]:
        """How the terminal is set, see termios(3)."""
        return termios.tcgetattr(self._ours)

    def resize(self, columns: int, lines: int) -> None:
        """Give it another size, which who runs there is told."""
        self.columns, self.lines = columns, lines
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def screen(self) -> list[str]:
        """Give the lines of the last screen that was drawn whole from its top left corner."""
        self._read()
        for drawn in reversed(self.shown.split("\033[H")):
            found = drawn.split("\033[?")[0].split("\r\n")
            if [len(line) for line in found] == [self.columns] * self.lines:
                return [line.rstrip() for line in found]
        return []

    async def shows(self, text: str) -> str:
        """Wait until it has printed that; give all."""

        def there() -> bool:
            self._read()
            assert text in self.shown, self.shown
            return True

        await eventually(there, within=15)
        return self.shown

    async def ended(self) -> int:
        """Wait for its end and give the exit status."""

        def over() -> bool:
            self._read()
            return self.process.poll() is not None

        await eventually(over, within=15)
        self._read()
        return int(self.process.returncode)

    def type(self, text: str) -> None:
        r"""Type; \3 is Ctrl-C."""
        os.write(self._ours, text.encode())

    def _read(self) -> None:
        try:
            while data := os.read(self._ours, 1 << 16):
                self.shown += data.decode()
        except OSError:  # nothing there now, or nobody at the other end
            return

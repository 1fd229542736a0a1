"""Asks for passwords on the terminal: pkttyagent(1), as systemctl(1) starts it.

polkit asks whoever has registered for this process or its session; in a desktop session somebody
has, and then the desktop asks.
"""
# SPDX-License-Identifier: BSD-3-Clause

import os
import select
import shutil
import subprocess
import sys
from typing import Self

_START_SECONDS = 5.0


class Agent:
    """The agent, from the first command that may need it to the end."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def start(self) -> None:
        """Start it where it can ask; wait until it is registered, or has found somebody else."""
        program = shutil.which("pkttyagent")
        terminal = sys.stdin is not None and sys.stdin.isatty()
        if program is None or not terminal or os.geteuid() == 0 or self._process is not None:
            return
        ready, told = os.pipe()
        argv = [program, "--process", str(os.getpid()), "--notify-fd", str(told)]
        if "XDG_SESSION_ID" in os.environ:  # without a session polkit finds no fallback
            argv.append("--fallback")
        self._process = subprocess.Popen(argv, pass_fds=(told,))  # noqa: S603  a fixed program
        os.close(told)
        select.select([ready], [], [], _START_SECONDS)  # it closes its end when it is ready
        os.close(ready)

"""Runs a command on a terminal of its own and types a password when it asks for one.

    at_terminal.py PASSWORD COMMAND...

It prints what appears there, and ends with the command's status.  See pty(7).  It is run inside a
machine and knows nothing of ours.
"""
# SPDX-License-Identifier: BSD-3-Clause

import os
import pty
import sys
import termios
import time


def main(password: str, command: list[str]) -> int:
    """Be the person at the keyboard."""
    process, terminal = pty.fork()
    if process == 0:
        os.execvp(command[0], command)  # noqa: S606 - no shell wanted
    seen = b""
    while data := _read(terminal):
        seen += data
        if seen.endswith(b"assword: "):
            while termios.tcgetattr(terminal)[3] & termios.ECHO:  # what came before is thrown away
                time.sleep(0.01)
            os.write(terminal, password.encode() + b"\n")
            seen += b"\n"
    os.write(1, seen)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # whoever had the other end is gone
        return b""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))

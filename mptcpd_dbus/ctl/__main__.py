"""The command mptcpctl: from the command line to an exit status.

What --help and mistakes do not need is imported only when a command runs.
"""
# SPDX-License-Identifier: BSD-3-Clause

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from mptcpd_dbus import __version__
from mptcpd_dbus.ctl.failure import BROKEN_PIPE, FAILED, INTERRUPTED, OK, Failure
from mptcpd_dbus.ctl.parser import Call, group, parse
from mptcpd_dbus.ctl.view import harmless

COMPLETE = "__complete"
"""What the completions of the shells call."""


def main(arguments: Sequence[str]) -> int:
    """Do what *arguments* say; give the exit status."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # they are files
    try:
        if arguments[:1] == [COMPLETE]:
            _complete(arguments[1:])
        else:
            _run(parse(arguments))
        sys.stdout.flush()
    except Failure as failure:
        return _complain(failure.status, str(failure))
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:  # of standard output, which must have nothing left to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return BROKEN_PIPE
        return _complain(FAILED, f"cannot write: {error.strerror}")
    return OK


def _complain(status: int, text: str) -> int:
    sys.stderr.write(f"mptcpctl: {harmless(text)}\n")
    return status


def _run(call: Call) -> None:
    if "help" in call.given:
        sys.stdout.write(_help(call) + "\n")
    elif "version" in call.given:
        sys.stdout.write(f"mptcpctl {__version__}\n")
    else:
        _run_command(call)


def _help(call: Call) -> str:
    from mptcpd_dbus.ctl import help as texts  # noqa: PLC0415  only when it is asked for

    if call.name == call.command.name:
        return texts.of(call.command)
    return texts.of_all(group(call.name)) if call.name else texts.of_all()


def _complete(words: Sequence[str]) -> None:
    from mptcpd_dbus.ctl.complete import complete  # noqa: PLC0415  only for shells

    sys.stdout.write("".join(f"{line}\n" for line in complete(words)))


def _run_command(call: Call) -> None:
    import asyncio  # noqa: PLC0415  slow to import

    from mptcpd_dbus.ctl.session import run  # noqa: PLC0415  likewise

    asyncio.run(run(call))


def run() -> NoReturn:
    """Be the command."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()

"""The help is at hand, complete and fast."""
# SPDX-License-Identifier: BSD-3-Clause

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mptcpd_dbus import __version__
from mptcpd_dbus.ctl.__main__ import main
from mptcpd_dbus.ctl.commands import COMMANDS, GLOBAL_OPTIONS
from mptcpd_dbus.ctl.failure import FAILED, STATUSES, USAGE
from mptcpd_dbus.ctl.grammar import Argument, Command, Keyword
from mptcpd_dbus.ctl.help import WIDTH
from tests.contract import REPOSITORY
from tests.figures import tell

RUNS = 9
LIMIT = 0.2


def _seconds(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def test_the_help_is_there_at_once() -> None:
    """Against the interpreter alone, in turns: other work of the machine counts for both."""
    pairs = [(_seconds("-c", ""), _seconds("-m", "mptcpd_dbus.ctl", "--help")) for _ in range(RUNS)]
    bare, helped = (statistics.median(times) for times in zip(*pairs, strict=True))

    tell(f"mptcpctl --help: {helped * 1000:.0f} ms, the interpreter alone {bare * 1000:.0f} ms")
    assert helped - bare < LIMIT


def test_the_help_loads_nothing_that_it_does_not_need() -> None:
    code = "from mptcpd_dbus.ctl.__main__ import main; main(['--help']); import sys"
    argv = [sys.executable, "-c", f"{code}; print(*sys.modules, file=sys.stderr)"]
    loaded = subprocess.run(argv, check=True, capture_output=True, text=True).stderr.split()

    assert "mptcpd_dbus.ctl.help" in loaded
    assert not {"asyncio", "dbus_next", "json", "pydantic", "rich", "socket"} & {*loaded}


def _said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert not err
    return out


def test_the_help_names_all_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = _said(capsys, "--help")
    words = text.split()

    for command in COMMANDS:
        assert f"\n  {command.name}" in text
    assert {option.word for option in GLOBAL_OPTIONS} <= {*words}
    assert {f"{status}:" for status in STATUSES} <= {*words}
    assert max(map(len, text.splitlines())) <= WIDTH


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_each_command_has_a_help(capsys: pytest.CaptureFixture[str], command: Command) -> None:
    text = _said(capsys, *command.name.split(), "--help")

    assert " ".join(text.split()).startswith(f"Usage: mptcpctl {command.usage} ")
    things: list[Argument | Keyword]
    things = [*command.arguments, *command.keywords, *command.options]
    for thing in things:
        assert thing.words in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= WIDTH


def test_a_group_has_a_help_and_the_version_is_that_of_the_package(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = _said(capsys, "endpoint", "-h")

    assert text.count("\n  endpoint ") == sum(c.name.startswith("endpoint ") for c in COMMANDS)
    assert "plugin" not in text
    assert _said(capsys, "-V") == f"mptcpctl {__version__}\n"


def test_a_mistake_is_one_line_and_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["\033[1mlist"]) == USAGE

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mptcpctl: there is no command '\\x1b[1mlist'; there are status, list, ")
    assert err.count("\n") == 1


def test_what_cannot_be_written_is_said() -> None:
    argv = [sys.executable, "-m", "mptcpd_dbus.ctl", "--help"]
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(argv, check=False, stdout=full, stderr=subprocess.PIPE, text=True)

    assert (ran.returncode, ran.stderr) == (
        FAILED,
        "mptcpctl: cannot write: No space left on device\n",
    )


def test_it_is_a_command_of_the_package() -> None:
    assert (
        '\nmptcpctl = "mptcpd_dbus.ctl.__main__:run"\n'
        in (REPOSITORY / "pyproject.toml").read_text()
    )

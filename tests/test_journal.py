"""Lines in the journal: what an entry has, and what becomes of those that nobody reads."""
# SPDX-License-Identifier: BSD-3-Clause

import json
import logging
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mptcpd_dbus import journal
from mptcpd_dbus.bus import error_names
from mptcpd_dbus.journal import LONGEST, JournalHandler, encode
from mptcpd_dbus.log_fields import FIELDS, about
from tests import manual
from tests.documents import commands
from tests.lab.journal import decode
from tests.lab.wait import eventually

FORGED = "wlan0\nPRIORITY=0\nMPTCP_UID=0\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give where the journal listens, if there is one."""
    place = tmp_path / "journal"
    monkeypatch.setattr(journal, "_SOCKET", str(place))
    return place


@pytest.fixture
def reader(place: Path) -> Iterator[socket.socket]:
    """Listen as the journal."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(str(place))
        reader.setblocking(False)
        yield reader


def _logger() -> logging.Logger:
    """Give a logger that is nobody else's and writes to the journal only."""
    logger = logging.Logger("test")  # noqa: LOG001  not one of the process
    logger.addHandler(JournalHandler())
    return logger


@pytest.fixture
def log(reader: socket.socket) -> Iterator[logging.Logger]:
    """Give a logger."""
    del reader  # it must only be there
    logger = _logger()
    yield logger
    logger.handlers[0].close()


def _read(reader: socket.socket) -> dict[str, str]:
    pairs = list(decode(reader.recv(1 << 20)))
    fields = dict(pairs)
    assert len(fields) == len(pairs), pairs  # none came twice
    return fields


def test_an_entry_has_what_the_line_is_about(log: logging.Logger, reader: socket.socket) -> None:
    fields = about(
        token=0xABC,
        interface="wlan0",
        plugin="sspi",
        event="NewSubflow",
        path="/org/mptcpd1",
        sender=":1.7",
        uid=0,
        method="org.mptcpd1.Manager.Reload",
        result="ok",
    )

    log.info("here is %s", "what happened", extra=fields)

    entry = _read(reader)
    assert {name: entry.pop(name) for name in FIELDS} == {
        "MPTCP_TOKEN": "00000abc",
        "MPTCP_INTERFACE": "wlan0",
        "MPTCP_PLUGIN": "sspi",
        "MPTCP_EVENT": "NewSubflow",
        "MPTCP_OBJECT": "/org/mptcpd1",
        "MPTCP_SENDER": ":1.7",
        "MPTCP_UID": "0",
        "MPTCP_METHOD": "org.mptcpd1.Manager.Reload",
        "MPTCP_RESULT": "ok",
    }
    assert entry.pop("CODE_LINE").isdigit()
    assert entry == {
        "MESSAGE": "here is what happened",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "mptcpd-dbus",
        "SYSLOG_FACILITY": "3",
        "CODE_FILE": __file__,
        "CODE_FUNC": "test_an_entry_has_what_the_line_is_about",
    }


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.DEBUG, "7"),
        (logging.INFO, "6"),
        (logging.WARNING, "4"),
        (logging.ERROR, "3"),
        (logging.CRITICAL, "2"),
    ],
)
def test_a_level_is_a_priority_and_what_is_not_known_is_no_field(
    log: logging.Logger, reader: socket.socket, level: int, priority: str
) -> None:
    log.log(level, "well")

    entry = _read(reader)
    assert entry["PRIORITY"] == priority
    assert [name for name in entry if name.startswith("MPTCP_")] == []


@pytest.mark.parametrize("value", [FORGED, "\n", "", "=", "a\0b", "\udcff\ud800", "\x1b[31m", "é"])
def test_no_value_is_taken_for_a_field(value: str) -> None:
    fields = {"MPTCP_PLUGIN": value, "MPTCP_INTERFACE": value, "MESSAGE": value}

    pairs = list(decode(encode(fields)))

    shown = value.encode(errors="backslashreplace").decode()
    assert pairs == [(name, shown) for name in fields]


def test_a_traceback_is_one_entry(log: logging.Logger, reader: socket.socket) -> None:
    try:
        int(FORGED)
    except ValueError:
        log.exception("it failed")

    message = _read(reader)["MESSAGE"].splitlines()
    assert message[0] == "it failed"
    assert message[-1] == f"ValueError: invalid literal for int() with base 10: {FORGED!r}"
    with pytest.raises(BlockingIOError):
        reader.recv(1)


def test_what_is_too_long_is_cut(log: logging.Logger, reader: socket.socket) -> None:
    log.info("é" * 1_000_000, extra=about(plugin="x" * 1_000_000, result="ok"))

    entry = _read(reader)
    assert entry["MESSAGE"] == "é" * LONGEST
    assert entry["MPTCP_PLUGIN"] == "x" * LONGEST
    assert entry["MPTCP_RESULT"] == "ok"


def test_a_wrong_call_stops_nobody(
    log: logging.Logger, reader: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    log.info("%d", "no number")
    log.info("goes on")

    assert _read(reader)["MESSAGE"] == "goes on"
    assert "no number" in capsys.readouterr().err


def test_a_journal_that_does_not_read_costs_lines_and_no_time(
    log: logging.Logger, reader: socket.socket
) -> None:
    began = time.monotonic()
    for number in range(2000):
        log.info("line %d", number)
    assert time.monotonic() - began < 1

    taken: list[str] = []
    while len(taken) < 2000:
        try:
            taken.append(_read(reader)["MESSAGE"])
        except BlockingIOError:
            break
    assert 0 < len(taken) < 2000
    assert taken == [f"line {number}" for number in range(len(taken))]
    log.info("one more")
    log.info("and another")
    notice = _read(reader)
    assert notice["MESSAGE"].startswith(f"{2000 - len(taken)} lines were lost here: ")
    assert notice["PRIORITY"] == "4"
    assert [_read(reader)["MESSAGE"] for _ in range(2)] == ["one more", "and another"]


def test_a_journal_that_is_started_again_gets_what_comes_then(
    place: Path, request: pytest.FixtureRequest
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as first:
        first.bind(str(place))
        log = _logger()
        request.addfinalizer(log.handlers[0].close)
    log.info("nobody hears this")
    place.unlink()
    log.info("nor this")

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second:
        second.bind(str(place))
        log.info("this is heard")
        said = [_read(second)["MESSAGE"] for _ in range(2)]

    assert said == ["2 lines were lost here: the journal did not take them", "this is heard"]


@pytest.mark.usefixtures("place")
def test_without_a_journal_there_is_no_handler() -> None:
    with pytest.raises(FileNotFoundError):
        JournalHandler()


def test_stderr_is_the_journal_where_the_service_manager_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "stderr").open("w") as stream:
        monkeypatch.setattr(journal, "_STDERR", stream.fileno())
        found = os.fstat(stream.fileno())
        for value, expected in (
            (f"{found.st_dev}:{found.st_ino}", True),
            (f"{found.st_dev}:{found.st_ino + 1}", False),  # it went elsewhere since
            ("", False),
        ):
            monkeypatch.setenv("JOURNAL_STREAM", value)
            assert journal.is_stderr() == expected
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not journal.is_stderr()


# The journal itself


@pytest.fixture
def journald(people: None, tmp_path: Path) -> Iterator[None]:
    """Run the real one, which wants control groups and keeps what it gets in memory."""
    del people  # it is root's
    if not Path("/sys/fs/cgroup/cgroup.procs").exists():  # they stay for who comes next
        mount = ["mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"]
        subprocess.run(mount, check=True)
    settings = Path("/run/systemd/journald.conf.d/lab.conf")
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text("[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\n")
    Path("/run/systemd/journal/socket").unlink(missing_ok=True)
    with (tmp_path / "journald.log").open("wb") as log:
        process = subprocess.Popen(["/usr/lib/systemd/systemd-journald"], stdout=log, stderr=log)
    yield
    process.terminate()
    process.wait(10)


def _found(*match: str) -> list[dict[str, Any]]:
    argv = ["journalctl", *match, "--output=json", "--all"]  # the last output counts
    ran = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=30)
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.usefixtures("journald")
async def test_the_journal_finds_a_line_by_its_fields_and_none_by_forged_ones(
    request: pytest.FixtureRequest,
) -> None:
    log = await eventually(_logger_of_who_listens)
    request.addfinalizer(log.handlers[0].close)
    log.info("see %s", FORGED, extra=about(token=0xABC, plugin=FORGED))
    log.warning("x" * 1_000_000, extra=about(token=0xDEF))

    (entry,) = await eventually(lambda: _found("MPTCP_TOKEN=00000abc"))
    assert entry["MESSAGE"] == f"see {FORGED}"
    assert entry["MPTCP_PLUGIN"] == FORGED
    assert entry["PRIORITY"] == "6"
    assert entry["_TRANSPORT"] == "journal"
    (long,) = await eventually(lambda: _found("MPTCP_TOKEN=00000def"))
    assert len(long["MESSAGE"]) == LONGEST
    assert _found("MPTCP_UID=0") == _found("PRIORITY=0", "SYSLOG_IDENTIFIER=mptcpd-dbus") == []


@pytest.mark.usefixtures("journald")
async def test_what_the_man_page_types_finds_what_it_says(request: pytest.FixtureRequest) -> None:
    typed = [words for words in commands(manual.DAEMON) if "MPTCP_" in words[-1]]
    assert len(typed) == 3
    log = await eventually(_logger_of_who_listens)
    request.addfinalizer(log.handlers[0].close)
    log.info("a command", extra=about(token=0x0A1B2C3D, uid=1000, result=error_names.ACCESS_DENIED))
    log.info("another", extra=about(token=1, uid=0, result="ok"))

    for program, *arguments in typed:
        assert program == "journalctl"
        (entry,) = await eventually(partial(_found, *arguments))
        assert entry["MESSAGE"] == "a command"


def _logger_of_who_listens() -> logging.Logger:
    try:
        return _logger()
    except OSError as error:
        raise AssertionError(str(error)) from error

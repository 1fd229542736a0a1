"""The command itself: where it logs, and with what it ends."""
# SPDX-License-Identifier: BSD-3-Clause

import logging
import sys
from pathlib import Path

import pytest

from mptcpd_dbus import __main__ as command


def test_a_place_to_log_to_that_is_not_there_is_said_and_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_LOG_SOCKET", str(tmp_path / "log"))
    monkeypatch.setattr(sys, "argv", ["mptcpd-dbus", "--log", "syslog"])

    assert command.main() == command.EX_UNAVAILABLE

    assert capsys.readouterr().err.startswith("mptcpd-dbus: cannot log to syslog: ")


@pytest.mark.parametrize(
    ("level", "prefix"), [(logging.DEBUG, 7), (logging.INFO, 6), (logging.ERROR, 3)]
)
def test_lines_for_the_journal_carry_their_level(level: int, prefix: int) -> None:
    record = logging.LogRecord("", level, "", 0, "one\ntwo", (), None)

    text = command._Prefixed("%(message)s").format(record)  # noqa: SLF001  it is what is tested

    assert text == f"<{prefix}>one\n<{prefix}>two"

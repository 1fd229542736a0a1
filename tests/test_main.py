"""The command itself: where it logs, and with what it ends."""
# SPDX-License-Identifier: BSD-3-Clause

import gc
import sys
from pathlib import Path

import pytest

from mptcpd_dbus import __main__ as command
from mptcpd_dbus import journal
from mptcpd_dbus.config import Settings
from mptcpd_dbus.core.errors import ConfigurationError, KernelRefused, MptcpdError, NotReady


@pytest.fixture
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep away what this machine's daemon is told."""
    monkeypatch.setattr("mptcpd_dbus.config.FILE", tmp_path / "mptcpd-dbus.conf")


@pytest.mark.usefixtures("no_configuration")
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, command.EX_OK),
        (NotReady("there is no bus"), command.EX_UNAVAILABLE),
        (KernelRefused("GETFAMILY", 1), command.EX_UNAVAILABLE),
        (ConfigurationError("there is no plugin nobody.py"), command.EX_CONFIG),
        (MptcpdError("nobody caught this"), command.EX_SOFTWARE),
        (ValueError("a mistake"), command.EX_SOFTWARE),
    ],
)
def test_how_the_daemon_ended_is_its_exit_status(
    error: Exception | None,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def serve(_: Settings) -> None:
        if error:
            raise error

    monkeypatch.setattr(command, "serve", serve)
    monkeypatch.setattr(command, "_log_to", lambda _: None)
    monkeypatch.setattr(command, "COLLECTOR_THRESHOLDS", gc.get_threshold())
    monkeypatch.setattr(sys, "argv", ["mptcpd-dbus", "--log", "null"])

    assert command.main() == status

    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    internal = status == command.EX_SOFTWARE
    assert told == (["internal error"] if internal else [str(error)] if error else [])


def test_a_wrong_configuration_is_said_and_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.conf"
    file.write_text("log=null\n")
    file.chmod(0o644)
    monkeypatch.setattr(sys, "argv", ["mptcpd-dbus", "--log=null", "--config", str(file)])

    assert command.main() == command.EX_CONFIG

    assert capsys.readouterr().err.startswith(f"mptcpd-dbus: {file}:1: 'log' stands in no section")


@pytest.mark.usefixtures("no_configuration")
@pytest.mark.parametrize("place", ["syslog", "journal"])
def test_a_place_to_log_to_that_is_not_there_is_said_and_ends_it(
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "_LOG_SOCKET", str(tmp_path / "log"))
    monkeypatch.setattr(journal, "_SOCKET", str(tmp_path / "journal"))
    monkeypatch.setattr(sys, "argv", ["mptcpd-dbus", "--log", place])

    assert command.main() == command.EX_UNAVAILABLE

    assert capsys.readouterr().err.startswith("mptcpd-dbus: cannot log to " + place)

"""What is believed of the note about the path manager, and what happens when it cannot be set.

What is set, put back and left alone is seen on the real kernel, in e2e/test_choice.py.
"""
# SPDX-License-Identifier: BSD-3-Clause

import errno
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from mptcpd_dbus.choice import Choice
from mptcpd_dbus.core.errors import ConfigurationError, InvalidArgument, KernelRefused
from mptcpd_dbus.core.readings import SettingsRead

NAMESPACE = Path("/proc/self/ns/net").stat().st_ino
GOOD: dict[str, Any] = {
    "namespace": NAMESPACE,
    "before": "kernel",
    "ours": "userspace",
    "configured": "",
    "put_back": False,
}


class Sysctl:
    """Has a value, and a reason why another one cannot be written."""

    def __init__(self, value: str = "kernel") -> None:
        self.value = value
        self.error: Exception | None = None

    def read(self) -> SettingsRead:
        """Give it."""
        return SettingsRead(True, self.value, ("kernel", "userspace"), "default")

    def write(self, name: str) -> None:
        """Change it."""
        if self.error is not None:
            raise self.error
        self.value = name


def _left(file: Path, **changes: object) -> str:
    """Give the sysctl after a daemon that found the note and was stopped."""
    file.write_text(json.dumps(GOOD | changes))
    sysctl = Sysctl("userspace")
    choice = Choice(sysctl.read, sysctl.write)
    choice.recall(file)
    choice.follow("")
    choice.stop()
    return sysctl.value


def test_a_note_is_believed_and_gone_after_the_stop(tmp_path: Path) -> None:
    file = tmp_path / "path-manager"

    assert _left(file) == "kernel"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"namespace": 1},
        {"before": None},
        {"before": "k" * 65},
        {"put_back": 1},
        {"more": ""},
        {"ours": "kernel"},  # so somebody else has set what is there now
    ],
    ids=str,
)
def test_a_note_that_cannot_be_meant_is_not(tmp_path: Path, changes: dict[str, object]) -> None:
    assert _left(tmp_path / "path-manager", **changes) == "userspace"


def test_what_the_kernel_does_not_have_is_an_error_of_the_configuration() -> None:
    sysctl = Sysctl()
    sysctl.error = InvalidArgument("no path manager 'userspace'")
    choice = Choice(sysctl.read, sysctl.write)

    for _ in range(2):  # it is not taken for followed, either
        with pytest.raises(ConfigurationError, match="kernel-path-manager=userspace: no path"):
            choice.follow("userspace")
    choice.stop()
    assert not choice.is_ours


def test_what_cannot_be_put_back_is_logged_and_left_to_the_next_daemon(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "path-manager"
    sysctl = Sysctl()
    choice = Choice(sysctl.read, sysctl.write)
    choice.recall(file)
    choice.set("userspace")
    sysctl.error = KernelRefused("path_manager", errno.EROFS, "it cannot be written")

    with caplog.at_level(logging.ERROR):
        choice.fail()

    assert "new connections go on getting the userspace path manager: " in caplog.text
    sysctl.error = None
    again = Choice(sysctl.read, sysctl.write)
    again.recall(file)
    again.stop()
    assert sysctl.value == "kernel"


def test_a_note_that_cannot_be_written_is_logged_and_the_choice_stands(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sysctl = Sysctl()
    choice = Choice(sysctl.read, sysctl.write)
    choice.recall(tmp_path / "missing/path-manager")

    choice.set("userspace")

    assert "after a crash the path manager stays as it is" in caplog.text
    assert sysctl.value == "userspace"
    choice.stop()
    assert sysctl.value == "kernel"


def test_what_is_left_to_the_next_daemon_is_touched_no_more(tmp_path: Path) -> None:
    file = tmp_path / "path-manager"
    sysctl = Sysctl()
    choice = Choice(sysctl.read, sysctl.write)
    choice.recall(file)
    choice.set("userspace")

    choice.leave()
    choice.stop()
    choice.fail()

    assert sysctl.value == "userspace"
    assert file.exists()

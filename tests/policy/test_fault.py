"""One line says what went wrong, whatever the text of an exception is."""
# SPDX-License-Identifier: BSD-3-Clause

import pytest

from mptcpd_dbus.core.errors import MptcpdError
from mptcpd_dbus.policy.fault import one_line, printable


class _Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\nb"), "ValueError: a"),
        (ValueError(), "ValueError"),
        (MptcpdError("in our words"), "in our words"),
        (MptcpdError("one\r\ntwo"), "one"),
        (MptcpdError(), "MptcpdError"),
        (_Mute(), "_Mute: (its text cannot be had)"),
        (ValueError("x" * 500), "ValueError: " + "x" * 188),
    ],
)
def test_an_exception_is_one_line(error: BaseException, line: str) -> None:
    assert one_line(error) == line


def test_what_a_terminal_or_the_bus_would_not_take_is_a_question_mark() -> None:
    assert printable("  \n") == ""
    assert printable("Zürich \x1b[1m\0\udc80\t\u202e") == "Zürich ?[1m????"

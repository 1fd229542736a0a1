"""People call a connection or a subflow by what they see, and by as little as is unique."""
# SPDX-License-Identifier: BSD-3-Clause

import pytest

from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.ctl.failure import FAILED, Failure, Misuse
from mptcpd_dbus.ctl.find import named, plugin_path, read_subflow

ROOT = "/org/mptcpd1/connection"
TOKENS = {1: 0x1A2B3C4D, 2: 0x1A2B0000, 3: 0x0000001A, 17: 0x12345678, 18: 0xFFFFFFFF, 19: 0xC0FFEE}
LISTED = [(f"{ROOT}/{number}", token) for number, token in TOKENS.items()]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1a2b3c4d", 1),
        ("0x1a2b3c4d", 1),
        ("1A2B3", 1),
        ("0x1a2b0", 2),
        ("439041101", 1),
        ("26", 3),
        ("4294967295", 18),
        ("f", 18),
        ("c0ffee", 19),  # ss(8) prints no zeros before it
        ("00c0", 19),
        ("connection/17", 17),
        (f"{ROOT}/17", 17),
        ("12345678", 17),
    ],
)
def test_a_connection_is_found_by_token_or_number(text: str, number: int) -> None:
    assert named(text, LISTED) == f"{ROOT}/{number}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1a2b", "1a2b may be 1a2b3c4d or 1a2b0000: type more of it"),
        ("1", "1 may be 1a2b3c4d or 1a2b0000 or 12345678: type more"),
        ("beef", "there is no connection beef; see `mptcpctl list`"),
        ("connection/4", "there is no connection connection/4"),
        ("9999999999", "there is no connection 9999999999"),
    ],
)
def test_what_is_not_there_or_not_unique_is_said(text: str, words: str) -> None:
    with pytest.raises(Failure) as failure:
        named(text, LISTED)

    assert (failure.value.status, words in str(failure.value)) == (FAILED, True)


@pytest.mark.parametrize("text", ["", "xyz", "#1", "connection/0", "1a2b3c4d5", "\x1b[m", "\u0661"])
def test_what_can_be_no_connection_is_misuse(text: str) -> None:
    with pytest.raises(Misuse):
        named(text, LISTED)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1a2b/2", ("1a2b", "2")),
        ("connection/17/2", ("connection/17", "2")),
        (f"{ROOT}/17/subflow/2", (f"{ROOT}/17", "2")),
        ("10.0.1.1:4000-10.0.9.1:80", FourTuple("10.0.1.1", 4000, "10.0.9.1", 80)),
        ("10.0.1.1:4000 - 10.0.9.1:80", FourTuple("10.0.1.1", 4000, "10.0.9.1", 80)),
        ("[dead::1]:4000-[dead::2]:80", FourTuple("dead::1", 4000, "dead::2", 80)),
    ],
)
def test_a_subflow_is_called_by_number_or_4_tuple(text: str, meant: object) -> None:
    assert read_subflow(text) == meant


@pytest.mark.parametrize("text", ["", "1a2b", "connection/17", "10.0.1.1-10.0.9.1", "1a/0", "-"])
def test_what_can_be_no_subflow_is_misuse(text: str) -> None:
    with pytest.raises(Misuse):
        read_subflow(text)


def test_a_plugin_with_a_name_that_no_path_takes_is_spelt_in_hexadecimal() -> None:
    assert plugin_path("active_backup") == "/org/mptcpd1/plugin/active_backup"
    assert plugin_path("my-own") == "/org/mptcpd1/plugin/_/my_2down"

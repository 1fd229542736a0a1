"""The command line: what it means, and what is said of what means nothing."""
# SPDX-License-Identifier: BSD-3-Clause

import pytest

from mptcpd_dbus import __version__
from mptcpd_dbus.config import EX_USAGE, Settings, read_command_line


def test_without_arguments_the_defaults_count() -> None:
    assert read_command_line([]) == Settings(
        bus="system", log="stderr", debug=False, netlink_buffer=64 << 20
    )


def test_every_option_reaches_its_setting() -> None:
    given = ["--bus", "unix:path=/x", "--log", "null", "--debug", "--netlink-buffer", "262144"]

    assert read_command_line(given) == Settings(
        bus="unix:path=/x", log="null", debug=True, netlink_buffer=262144
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--bus", "home"], "--bus=home: give system, session, or a D-Bus address"),
        (["--log", "paper"], "--log=paper: Input should be 'stderr', 'syslog'"),
        (["--netlink-buffer", "12"], "--netlink-buffer=12: Input should be greater than"),
        (["--netlink-buffer", "much"], "--netlink-buffer=much: Input should be a valid integer"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["stray"], "unrecognized arguments: stray"),
    ],
)
def test_a_wrong_option_is_named_with_what_was_expected(
    given: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_command_line(given)

    said = capsys.readouterr().err
    assert ended.value.code == EX_USAGE
    assert words in said
    assert "see mptcpd-dbus --help" in said
    assert said.count("\n") == 1


def test_help_names_every_option_and_version_the_version(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for option, words in (("--help", "--netlink-buffer"), ("--version", __version__)):
        with pytest.raises(SystemExit) as ended:
            read_command_line([option])
        assert ended.value.code == 0
        assert words in capsys.readouterr().out

"""What is said to those who come from mptcpd is true: what they have is taken, or refused as said.

Source of what mptcpd takes: its mptcpd(8) and mptcpd.conf.
"""
# SPDX-License-Identifier: BSD-3-Clause

import re
import subprocess
from pathlib import Path

import pytest

from mptcpd_dbus import __main__ as command
from mptcpd_dbus import config
from mptcpd_dbus.config import Settings, read_settings
from mptcpd_dbus.config_file import KEYS
from mptcpd_dbus.core.errors import ConfigurationError
from mptcpd_dbus.ctl.parser import parse
from mptcpd_dbus.policy.catalogue import Catalogue
from mptcpd_dbus.policy.source import open_source
from mptcpd_dbus.policy.watch import Watch
from tests.documents import FROM_MPTCPD, command_lines, rows
from tests.lab.plugin_files import shipped_plugins
from tests.lab.sandbox import REPOSITORY
from tests.test_config import MPTCPD_CONF

MPTCPDS_KEYS = {"addr-flags", "load-plugins", "log", "notify-flags", "path-manager", "plugin-dir"}
MPTCPDS_OPTIONS = {f"--{key}" for key in MPTCPDS_KEYS} | {
    *("-d", "--debug", "-l", "-?", "--help", "--usage", "-V", "--version")
}
OPTIONS = rows(FROM_MPTCPD, "## Options and keys")
PLAIN = re.findall("`([^`]+)`", FROM_MPTCPD.read_text().partition("without a value are ")[2])[:7]
UNIT = REPOSITORY / "systemd/mptcpd-dbus.service"


def _quoted(cell: str) -> list[str]:
    return re.findall("`([^`]+)`", cell)


def _configuration(directory: Path, lines: str) -> list[str]:
    """Write a file; give the arguments that name it."""
    file = directory / "mptcpd.conf"
    file.write_text(f"[core]\n{lines}\n")
    file.chmod(0o644)
    return ["--config", str(file)]


def test_the_page_has_mptcpds_options_and_keys_and_no_others() -> None:
    options = [option for row in OPTIONS for option in _quoted(row[0])] + PLAIN
    keys = [key for row in OPTIONS for key in _quoted(row[1])]

    assert sorted(options) == sorted(MPTCPDS_OPTIONS)
    assert sorted(keys) == sorted(MPTCPDS_KEYS)
    new = {"kernel-path-manager", "settle-time", "signal-budget"}
    assert {*KEYS["core"]} - MPTCPDS_KEYS == new


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: row[1])
def test_an_option_of_mptcpd_is_taken_and_its_key_means_the_same(
    row: list[str], tmp_path: Path
) -> None:
    nothing = _configuration(tmp_path, "")
    options, (key,), values = map(_quoted, row[:3])
    assert values

    for value in values:
        given = [_meant(read_settings([*nothing, option, value])) for option in options]
        written = _meant(read_settings(_configuration(tmp_path, f"{key}={value}")))
        assert given == [written] * len(options)
        assert (written == _meant(Settings())) == (value == "stderr")
        _configuration(tmp_path, "")


@pytest.mark.parametrize("option", PLAIN)
def test_an_option_without_a_value_is_taken(option: str, tmp_path: Path) -> None:
    arguments = [*_configuration(tmp_path, ""), option]
    if option in ("-d", "--debug"):
        assert read_settings(arguments).debug
        return

    with pytest.raises(SystemExit) as ended:
        read_settings(arguments)
    assert not ended.value.code


def _meant(settings: Settings) -> dict[str, object]:
    return settings.model_dump(exclude={"arguments", "places"})


def test_an_empty_value_is_the_default(tmp_path: Path) -> None:
    empty = _configuration(tmp_path, "load-plugins=\nplugin-dir=\naddr-flags=\nnotify-flags=")

    assert _meant(read_settings(empty)) == _meant(Settings())


@pytest.mark.parametrize(
    "row", rows(FROM_MPTCPD, "## What is an error now"), ids=lambda row: row[0]
)
def test_what_is_refused_is_refused_with_these_words(row: list[str], tmp_path: Path) -> None:
    line, words = _quoted(row[0])[0], row[2].strip("`")
    theirs = tmp_path / "mptcpd"
    theirs.mkdir()
    (theirs / "sspi.so").touch()
    line = line.replace("/usr/lib/mptcpd", str(theirs))

    with pytest.raises(ConfigurationError) as refused:
        _load(tmp_path, line)
    assert words in str(refused.value)
    assert f"{tmp_path}/mptcpd.conf:3: " in str(refused.value)


def test_what_is_right_is_taken(tmp_path: Path) -> None:
    """The control of the test above."""
    _load(tmp_path, "load-plugins=sspi\npath-manager=sspi\nlog=stderr")


def _load(directory: Path, line: str) -> None:
    """Read a configuration with *line* in it, and load what it names of our own plugins."""
    settings = read_settings(_configuration(directory, f"\n{line}"))
    source = open_source(settings.model_copy(update={"plugin_dir": shipped_plugins()}), Watch())
    try:
        Catalogue(settings, source, Watch()).load_all({})
    finally:
        source.close()


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    arguments = _configuration(tmp_path, "")
    file = Path(arguments[1])

    file.chmod(0o646)
    with pytest.raises(ConfigurationError, match="can be written by everybody"):
        read_settings(arguments)
    file.chmod(0o644)
    read_settings(arguments)


def test_the_command_lines_switch(tmp_path: Path) -> None:
    """Those that start and stop name the units; those between make a file that is taken."""
    stop, copy, edit, start, look = command_lines(FROM_MPTCPD)
    theirs, ours = tmp_path / "theirs.conf", tmp_path / "ours.conf"
    theirs.write_text(MPTCPD_CONF.format(directory="/usr/lib/mptcpd"))
    assert f"Conflicts={stop.split()[-1]}\n" in UNIT.read_text()

    for line in (copy, edit):
        there = line.replace("/etc/mptcpd/mptcpd.conf", str(theirs)).replace(
            str(config.FILE), str(ours)
        )
        subprocess.run(["sh", "-ec", there.removeprefix("sudo ")], check=True)

    assert _meant(read_settings(["--config", str(ours)])) == _meant(
        Settings(path_manager="addr_adv")
    )
    assert start == f"sudo systemctl enable --now {UNIT.name}"
    assert parse(look.split()[1:]).command.name == "status"


def test_units_files_and_statuses_are_those_of_the_code() -> None:
    table = rows(FROM_MPTCPD, "## Unit, files, exit statuses")
    told = {row[0].strip("| "): row[2] for row in table}
    unit = UNIT.read_text()

    assert _quoted(told["unit"]) == [UNIT.name]
    assert _quoted(told["configuration"]) == [str(config.FILE), "--config"]
    assert f"`{config.PLUGIN_DIR}`" in told["plugins"]
    assert f"User={_quoted(told['user'])[0]}\n" in unit
    assert f"AmbientCapabilities=CAP_NET_ADMIN {_quoted(told['capabilities'])[0]}\n" in unit
    assert f"status {command.EX_CONFIG}" in told["a wrong configuration"]
    for what in ("no MPTCP", "without the privilege"):
        assert f"status {command.EX_UNAVAILABLE}" in told[what]

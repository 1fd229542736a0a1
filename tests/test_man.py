"""The man pages are well formed, and true: they have all that the code has, and nothing else.

What is typed in them is run in test_docs.py, and in e2e/test_plugin_from_elsewhere.py.
"""
# SPDX-License-Identifier: BSD-3-Clause

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import pytest
from dbus_next._private import address

from mptcpd_dbus import __main__ as command
from mptcpd_dbus import config, config_file, daemon, journal, systemd
from mptcpd_dbus.bus.interface import Interface, Method, Property, Signal
from mptcpd_dbus.bus.names import AUDIT_LINES, AUDIT_SECONDS
from mptcpd_dbus.config import Settings, read_settings
from mptcpd_dbus.log_fields import FIELDS
from mptcpd_dbus.plugin import Match, PathManager
from mptcpd_dbus.policy.base import HANDLERS
from mptcpd_dbus.policy.loader import load, settings_of
from mptcpd_dbus.policy.sections import read_section
from mptcpd_dbus.policy.watch import Watch
from mptcpd_dbus.testing import connect, play
from tests import installation
from tests.contract import documented, interfaces
from tests.documents import PLUGINS, blocks, commands, python_files
from tests.lab.plugin_files import shipped_kinds
from tests.lab.sandbox import REPOSITORY
from tests.manual import (
    CONFIGURATION,
    CONTRACT,
    DAEMON,
    DIRECTORY,
    PAGES,
    PLUGIN,
    entries,
    plain,
    section,
)

UNIT = (REPOSITORY / "systemd/mptcpd-dbus.service").read_text()


# Form


def _lint(page: Path) -> str:
    argv = ["mandoc", "-T", "lint", "-W", "style", str(page)]
    return subprocess.run(argv, check=False, capture_output=True, text=True).stdout


def _groff(page: Path) -> str:
    """Give what groff(1), by which man-db shows pages, complains of."""
    argv = ["groff", "-man", "-Tutf8", "-ww", "-z", str(page)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_and_groff_have_nothing_to_say_about_a_page(page: Path) -> None:
    assert not _lint(page)
    assert not _groff(page)


def test_a_mistake_in_a_page_would_be_named(tmp_path: Path) -> None:
    """The control."""
    wrong = tmp_path / "wrong.5"
    wrong.write_text(CONTRACT.read_text().replace(".TP\n", ".TPP\n", 1))

    assert "unknown macro" in _lint(wrong)
    assert "macro 'TPP' not defined" in _groff(wrong)


def test_pages_that_are_referred_to_exist_or_are_of_others() -> None:
    ours = {page.name for page in PAGES}
    text = "\n".join(page.read_text() for page in PAGES)
    told = {
        f"{plain(name)}.{number}"
        for name, number in re.findall(r"^\.BR (\S+) \((\d)\)", text, re.MULTILINE)
        if re.match("mptcpd-dbus|mptcpctl|org.mptcpd1", plain(name))
    }

    assert told == ours == {page.name for page in DIRECTORY.iterdir()}
    (named,) = re.findall("^Documentation=(.*)$", UNIT, re.MULTILINE)
    assert {re.sub(r"man:(.*)\((\d)\)", r"\1.\2", word) for word in named.split()} <= ours


# The page of the contract


def _shown(page: Path) -> str:
    """Give what a reader sees of a page, in one line."""
    argv = ["mandoc", "-T", "utf8", str(page)]
    text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return " ".join(re.sub(".\b", "", text).split())


def test_a_reader_sees_all_that_the_contract_says() -> None:
    """The formatter has swallowed nothing; quoted words are bold instead."""
    shown = _shown(CONTRACT).replace("'", "")

    for its in documented():
        members: list[Interface | Method | Signal | Property]
        members = [its, *its.methods, *its.signals, *its.properties]
        said = [" ".join(member.doc.split()).replace("'", "") for member in members]
        assert [text for text in said if text not in shown] == []


# The page of the daemon


def _setting(key: str) -> Any:
    return Settings.model_fields[key.replace("-", "_")]


def _words_of(annotation: Any) -> Iterable[str]:
    """Give the words that a setting may have, if they are a few."""
    for kind in get_args(annotation):
        if isinstance(kind, str):
            yield kind
        else:
            yield from _words_of(kind)


def test_the_page_has_every_option_of_the_help_and_no_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        read_settings(["--help"])
    options = re.findall(r"^  (-.*?)(?:  |$)", capsys.readouterr().out, re.MULTILINE)

    told = entries(DAEMON, "OPTIONS")
    assert list(told) == [re.sub(r" [A-Z]+, ", ", ", option) for option in options]
    assert len(told) > 10


def test_the_page_has_the_defaults_of_the_options_and_the_words_that_they_take() -> None:
    told = {tag.split("--")[1].split()[0]: text for tag, text in entries(DAEMON, "OPTIONS").items()}
    settings = [key for key in told if key.replace("-", "_") in Settings.model_fields]
    assert len(settings) == 11

    assert str(config.FILE) in told["config"]
    assert config.PLUGIN_DIR in told["plugin-dir"]
    for key in settings:
        field = _setting(key)
        assert str(field.default or "") in told[key], key
        assert [w for w in _words_of(field.rebuild_annotation()) if w not in told[key]] == [], key


def test_the_page_has_every_exit_status() -> None:
    statuses = {
        str(value)
        for module in (command, config)
        for name, value in vars(module).items()
        if name.startswith("EX_")
    }
    never = re.findall(r"^RestartPreventExitStatus=(\d+) (\d+)$", UNIT, re.MULTILINE)

    assert set(entries(DAEMON, "EXIT STATUS")) == statuses
    assert "after all but {} and {}.".format(*never[0]) in plain(section(DAEMON, "EXIT STATUS"))


def test_the_page_has_every_signal_that_is_heard() -> None:
    heard = set(re.findall(r"signal\.(SIG\w+)", inspect.getsource(daemon)))

    assert set(", ".join(entries(DAEMON, "SIGNALS")).split(", ")) == heard


def test_the_page_has_every_variable_of_the_environment() -> None:
    ours = "".join(map(inspect.getsource, (command, daemon, journal, systemd)))
    read = re.findall(r'environ\.get\("(\w+)"', ours)
    read += re.findall(r"'(DBUS_\w+)' in os\.environ", inspect.getsource(address))

    assert set(entries(DAEMON, "ENVIRONMENT")) == set(read)


def test_the_page_has_every_field_of_the_log_and_the_bound_of_what_is_audited() -> None:
    told = ", ".join(entries(DAEMON, "LOG")).split(", ")

    assert told == [*FIELDS]
    bound = f"Of one user these are {AUDIT_LINES} in a minute at most"
    assert bound in plain(section(DAEMON, "LOG"))
    assert AUDIT_SECONDS == 60


def test_the_page_has_every_file() -> None:
    kept = re.findall(r'_kept\("(.*?)"\)', inspect.getsource(daemon))
    (runtime,) = re.findall(r"^RuntimeDirectory=(.*)$", UNIT, re.MULTILINE)
    rules = settings_of(shipped_kinds()["rules"])()

    assert set(entries(DAEMON, "FILES")) == {
        *(str(config.FILE), f"{config.FILE}.d/*.conf", config.PLUGIN_DIR),
        str(rules.model_dump()["file"]),
        *(f"/run/{runtime}/{name}" for name in kept),
        *(
            path
            for path in installation.expected()
            if path.endswith(("org.mptcpd1.conf", ".policy"))
        ),
    }
    assert len(set(kept)) == 3


def test_the_page_has_the_user_the_capabilities_and_every_action() -> None:
    text = section(DAEMON, "SECURITY")
    (capabilities,) = re.findall(r"^AmbientCapabilities=(.*)$", UNIT, re.MULTILINE)
    (user,) = re.findall(r"^User=(.*)$", UNIT, re.MULTILINE)

    assert re.findall(r"CAP_\w+", text) == capabilities.split()
    assert f"as the user {user}," in plain(text)
    actions = {method.action for its in interfaces() for method in its.methods if method.action}
    assert set(entries(DAEMON, "SECURITY")) == actions


# The page of its configuration


def _check_default(text: str, default: Any) -> None:
    """See that what is told of a key ends with the default; an empty one is told in words."""
    told = text.rpartition("Default: ")[2].removesuffix(".")
    if default:
        assert told == (",".join(default) if isinstance(default, tuple) else str(default))
    else:
        assert re.match("none|all|both|the plugin's own", told), text


@pytest.mark.parametrize("name", config_file.KEYS)
def test_the_page_has_every_key_of_a_section_with_its_default(name: str) -> None:
    told = entries(CONFIGURATION, f"SECTION [{name}]")

    assert set(told) == set(config_file.KEYS[name])
    for key, text in told.items():
        field = _setting(key)
        _check_default(text, config.PLUGIN_DIR if key == "plugin-dir" else field.default)
        assert [w for w in _words_of(field.rebuild_annotation()) if w not in text] == [], key


def test_the_page_has_every_key_that_each_plugin_takes() -> None:
    title = "SECTIONS [plugin NAME]"
    told = [*entries(CONFIGURATION, title)]

    assert told == ["priority", *(f"match-{name}" for name in Match.model_fields)]


def test_the_page_has_every_setting_of_each_plugin_with_its_default() -> None:
    titles = section(CONFIGURATION, "SECTIONS [plugin NAME]")
    own = {name: settings_of(kind).model_fields for name, kind in shipped_kinds().items()}
    with_settings = {name for name, fields in own.items() if fields}

    assert set(re.findall(r"^\.SS \[plugin (\w+)\]$", titles, re.MULTILINE)) == with_settings
    for name in with_settings:
        told = entries(CONFIGURATION, f"[plugin {name}]")
        assert set(told) == {field.alias for field in own[name].values()}
        for field in own[name].values():
            text = told[str(field.alias)]
            _check_default(text, field.default)
            assert [w for w in _words_of(field.rebuild_annotation()) if w not in text] == []


def test_the_page_has_every_key_of_a_rule() -> None:
    rule = vars(sys.modules[shipped_kinds()["rules"].__module__])["_Rule"].model_fields
    told = entries(CONFIGURATION, "RULES")

    assert set(told) == set(rule)
    assert {key for key in told if "It must be given." in told[key]} == {
        key for key, field in rule.items() if field.is_required()
    }
    assert [key for key in Match.model_fields if key not in told["match"]] == []


@pytest.mark.parametrize("page", [CONFIGURATION, PLUGIN], ids=lambda page: page.name)
def test_the_configurations_of_a_page_are_taken(page: Path, tmp_path: Path) -> None:
    kinds = shipped_kinds()
    kinds["spare"] = load("spare", python_files(PLUGINS)["spare.py"].encode(), Watch())
    assert blocks(page, "ini")

    for block in blocks(page, "ini"):
        file = tmp_path / "mptcpd-dbus.conf"
        file.write_text(block)
        settings = read_settings(["--config", str(file)])
        assert set(settings.load_plugins or ()) <= set(kinds)
        for name, its in settings.plugins.items():
            read_section(kinds[name], its.values)


def test_the_rules_of_the_page_are_taken(tmp_path: Path) -> None:
    (block,) = blocks(CONFIGURATION, "toml")
    kinds = shipped_kinds()
    file = tmp_path / "rules.toml"
    file.write_text(block)
    happens = connect(), connect(port=80)

    played = play(kinds.pop("rules"), *happens, settings={"file": str(file)}, plugins=kinds)

    assert played.problem == ""
    assert [c.owner for c in played.connections] == ["rules_web", "rules_rest"]


# The overview of plugins


def test_the_overview_has_every_handler_with_its_parameters() -> None:
    assert set(entries(PLUGIN, "HANDLERS")) == {
        f"{name}({', '.join(parameters)})" for name, parameters in HANDLERS.items()
    }


def test_the_overview_has_every_view_and_every_command() -> None:
    views = plain(section(PLUGIN, "VIEWS")).partition("present: ")[2].strip(".").split(", ")
    told = set(entries(PLUGIN, "COMMANDS"))
    public = {n: member for n, member in vars(PathManager).items() if not n.startswith("_")}
    awaited = {n for n, member in public.items() if inspect.iscoroutinefunction(member)}

    assert told == awaited | {"listen", "unlisten"}
    assert {*views} == {*public, "addr_flags", "ids"} - told


def test_the_plugin_of_the_overview_is_that_of_the_tutorial() -> None:
    assert blocks(PLUGIN, "python") == [python_files(PLUGINS)["spare.py"]]


def test_pydoc_shows_what_the_overview_says() -> None:
    lines = [words for words in commands(PLUGIN) if "pydoc" in words]
    shown = [
        subprocess.check_output([sys.executable, *words[1:]], cwd=REPOSITORY, text=True)
        for words in lines
    ]

    assert len(shown) == 2
    assert [name for name in HANDLERS if f"async {name}(" not in shown[0]] == []
    assert [name for name in entries(PLUGIN, "COMMANDS") if f" {name}(" not in shown[1]] == []


def test_pkg_config_prints_the_directory_that_the_overview_names() -> None:
    (line,) = re.findall(r"^\.B (pkg\\-config .*)$", PLUGIN.read_text(), re.MULTILINE)
    environment = os.environ | {"PKG_CONFIG_PATH": str(REPOSITORY / "plugins")}
    printed = subprocess.check_output(plain(line).split(), env=environment, text=True).strip()

    assert list(entries(PLUGIN, "FILES")) == [printed]

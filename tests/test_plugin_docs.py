"""The pages for authors of plugins are true: their code runs, and their tables have every name.

What a plugin does in the real daemon is in e2e/test_plugin_from_elsewhere.py.
"""
# SPDX-License-Identifier: BSD-3-Clause

import dataclasses
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from mptcpd_dbus import config, config_file, plugin, testing
from mptcpd_dbus.plugin import Backoff, Match, PathManager, Plugin
from mptcpd_dbus.policy import backoff, door, files, host, hosted, mailbox, watch
from mptcpd_dbus.policy.base import HANDLERS
from mptcpd_dbus.policy.loader import load, settings_of
from mptcpd_dbus.policy.sections import read_section
from mptcpd_dbus.policy.watch import Watch
from tests.documents import PLUGINS, README, SHIP, blocks, python_files, rows
from tests.lab.plugin_files import shipped_kinds
from tests.lab.sandbox import REPOSITORY


def _of_the_page() -> dict[str, type[Plugin]]:
    """Load the plugins of the page."""
    own = {n: text for n, text in python_files(PLUGINS).items() if not n.startswith("test_")}
    names = {Path(file).stem: text for file, text in own.items()}
    return {name: load(name, text.encode(), Watch()) for name, text in names.items()}


# The code


def _run_tests(directory: Path, sources: dict[str, str]) -> subprocess.CompletedProcess[str]:
    for name, text in sources.items():
        (directory / name).write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
        capture_output=True,
        text=True,
    )


def test_the_code_of_the_page_does_what_its_tests_say(tmp_path: Path) -> None:
    sources = python_files(PLUGINS)
    tests = sum(text.count("def test_") for text in sources.values())

    ran = _run_tests(tmp_path, sources)

    assert tests >= 4
    assert f"{tests} passed" in ran.stdout, ran.stdout


def test_a_mistake_in_the_code_of_the_page_would_show(tmp_path: Path) -> None:
    """The control."""
    sources = python_files(PLUGINS)
    sources["spare.py"] = sources["spare.py"].replace(", backup=True", "")
    sources["again.py"] = sources["again.py"].replace("and self.may_join(connection)", "and False")

    assert "3 failed" in _run_tests(tmp_path, sources).stdout


def test_the_plugins_of_the_page_are_plugins_and_the_policy_is_short() -> None:
    text = python_files(PLUGINS)["spare.py"]

    assert list(_of_the_page()) == ["foo", "spare", "again"]
    assert len([line for line in text.splitlines() if line.strip()]) <= 20


def test_the_plugin_of_the_readme_is_one() -> None:
    (block,) = blocks(README, "python")
    links = testing.link("eth0", "10.0.1.1"), testing.link("wwan0", "10.0.2.1")

    played = testing.play(load("spare", block.encode(), Watch()), *links, testing.connect())

    assert played.commands == ["create 10.0.2.1 id 1 backup dev wwan0 -> 10.0.9.1:443"]


# Names and numbers


def _names(heading: str) -> list[str]:
    """Give what stands in the first column, without its backquotes."""
    return [row[0].strip("` |") for row in rows(PLUGINS, heading)]


def _call(name: str, function: Any) -> str:
    """Give a function as the page writes it: names and defaults, no types."""
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    bare = signature.replace(parameters=parameters, return_annotation=signature.empty)
    return f"{name}{bare}".replace("'", '"')


def _public(kind: type) -> dict[str, Any]:
    return {name: member for name, member in vars(kind).items() if not name.startswith("_")}


def _members(kind: type, prefix: str = "") -> set[str]:
    """Give the public members of a class, functions with their parameters."""
    return {
        _call(prefix + name, member) if inspect.isfunction(member) else prefix + name
        for name, member in _public(kind).items()
    }


def test_the_page_has_every_handler_with_its_parameters() -> None:
    assert set(_names("## Handlers")) == {
        f"{name}({', '.join(parameters)})" for name, parameters in HANDLERS.items()
    }


def test_the_page_has_every_view_and_every_command_with_its_parameters() -> None:
    told = _names("## Views") + _names("## Commands")

    own = _members(PathManager) | {"addr_flags", "ids"} | _members(door.AddressIds, "ids.")
    assert sorted(told) == sorted(own)
    assert {"addr_flags", "ids"} <= set(re.findall(r"self\.(\w+)", inspect.getsource(PathManager)))


def test_the_page_has_every_member_of_the_class() -> None:
    members = {name for name in _members(Plugin) if name.partition("(")[0] not in HANDLERS}

    assert set(_names("## The class")) == members | {"settings", "pm", "log"}


def test_the_page_has_every_member_of_the_mender() -> None:
    members = {name for name in _members(plugin.Mender) if name.partition("(")[0] not in HANDLERS}

    assert set(_names("## Mender")) == members


@pytest.mark.parametrize(
    "kind",
    [
        plugin.Connection,
        plugin.Subflow,
        plugin.Address,
        plugin.Interface,
        plugin.Endpoint,
        plugin.Listener,
        plugin.Limits,
    ],
)
def test_the_page_has_every_field_of_a_picture(kind: Any) -> None:
    fields = [field.name for field in dataclasses.fields(kind)]
    more = {
        name
        for name, member in _public(kind).items()
        if isinstance(member, property) or inspect.isfunction(member)
    }

    told = [name.partition("(")[0] for name in _names(f"### {kind.__name__}")]
    assert told[: len(fields)] == fields
    assert set(told[len(fields) :]) == more


def test_the_page_has_every_name_that_authors_import() -> None:
    text = PLUGINS.read_text()
    helpers = {name.partition("(")[0] for name in _names("## Testing")}

    errors = {n for n in plugin.__all__ if issubclass(_kind(n), plugin.MptcpdError)}
    assert set(_names("## Errors")) == errors - {"MptcpdError"}
    assert helpers == set(testing.__all__)
    assert [name for name in plugin.__all__ if not re.search(rf"\b{name}s?\b", text)] == []
    assert [
        name for name in _public(Backoff) if f"`{_call(name, getattr(Backoff, name))}`" not in text
    ] == []


def _kind(name: str) -> type:
    found = getattr(plugin, name)
    return found if isinstance(found, type) else object


def test_the_page_calls_the_helpers_for_tests_as_they_are() -> None:
    told = {name for name in _names("## Testing") if "(" in name}

    functions = {n: getattr(testing, n) for n in testing.__all__}
    assert told == {_call(n, f) for n, f in functions.items() if inspect.isfunction(f)}


def test_the_page_has_every_key_of_the_configuration() -> None:
    told = [tuple(row[:2]) for row in rows(PLUGINS, "## Configuration")]

    keys = {(f"`[{section}]`", f"`{k}`") for section, ks in config_file.KEYS.items() for k in ks}
    own = {("`[plugin NAME]`", f"`match-{name}`") for name in Match.model_fields}
    own |= {("`[plugin NAME]`", "`priority`"), ("`[plugin NAME]`", "any other")}
    assert set(told) == keys | own
    text = PLUGINS.read_text()
    flags = (*get_args(config.AddrFlag), *get_args(config.NotifyFlag))
    assert [flag for flag in flags if f"`{flag}`" not in text] == []


def test_the_page_tells_of_every_plugin_that_comes_with_it_and_its_settings() -> None:
    section = PLUGINS.read_text().partition("\n## The plugins that come with it\n")[2]
    paragraphs = section.partition("\n## ")[0].strip().split("\n\n")
    told = {
        found[1]: (found[2], set(re.findall(r"`([\w-]+)`: ", text)))
        for text in paragraphs
        if (found := re.match(r"\*\*(\w+)\*\* \((\w+)\): ", text))
    }

    kinds = shipped_kinds()
    assert told == {
        name: (kind.steers, {str(f.alias) for f in settings_of(kind).model_fields.values()})
        for name, kind in kinds.items()
    }


def test_the_page_has_the_bounds_as_they_are() -> None:
    values = [row[1] for row in rows(PLUGINS, "## Bounds")]

    assert values == [
        f"{mailbox.HANDLER_SECONDS:g} s",
        f"{mailbox.GRACE_SECONDS:g} s",
        f"{watch.BLOCKED_SECONDS:g} s",
        str(mailbox.QUEUE),
        str(hosted.FAILURES),
        f"{host.START_SECONDS:g} s",
        f"{files.MAX_SIZE} bytes",
        f"{backoff.FIRST:g} s, {backoff.MOST:g} s",
    ]
    assert host.START_SECONDS == host.STOP_SECONDS


def test_what_mptcpds_functions_became_exists() -> None:
    table = rows(PLUGINS, "## From mptcpd's C interface")
    ours = " ".join(row[1] for row in table)

    assert len(table) > 40
    assert set(re.findall(r"pm\.(\w+)", PLUGINS.read_text())) <= {
        *_public(PathManager),
        *("ids", "addr_flags"),
    }
    callbacks = [row for row in table if row[0].strip("`") in HANDLERS]
    assert len(callbacks) == 15  # of struct mptcpd_plugin_ops
    assert [row for row in callbacks if row[0] != row[1]] == []
    assert [name for name in HANDLERS if f"`{name}`" not in ours] == []


# Configuration


def test_the_configurations_of_the_pages_are_taken(tmp_path: Path) -> None:
    kinds = shipped_kinds() | _of_the_page()
    configurations = [*blocks(PLUGINS, "ini"), *blocks(SHIP, "ini")]
    assert len(configurations) == 3

    for block in configurations:
        file = tmp_path / "mptcpd-dbus.conf"
        file.write_text(block)
        settings = config.read_settings(["--config", str(file)])
        assert settings.plugins
        assert set(settings.load_plugins or ()) <= set(kinds)
        for name, section in settings.plugins.items():
            read_section(kinds[name], section.values)


def test_the_rules_of_the_page_are_taken(tmp_path: Path) -> None:
    (block,) = blocks(PLUGINS, "toml")
    kinds = shipped_kinds() | _of_the_page()
    file = tmp_path / "rules.toml"

    def play(text: str) -> testing.Played:
        file.write_text(text)
        strategies = {name: kind for name, kind in kinds.items() if name != "rules"}
        return testing.play(
            kinds["rules"],
            testing.connect(),
            testing.connect(port=80),
            settings={"file": str(file)},
            plugins=strategies,
        )

    played = play(block)
    assert played.problem == ""
    assert [c.owner for c in played.connections] == ["rules_web", "rules_rest"]
    assert "max-subflow" in play(block.replace("max-subflows", "max-subflow")).problem

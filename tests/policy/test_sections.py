"""A plugin's section: the host's keys, and its own."""
# SPDX-License-Identifier: BSD-3-Clause

from typing import Any

import pytest
from pydantic import model_validator

from mptcpd_dbus.plugin import Match, Plugin, PluginSettings
from mptcpd_dbus.policy.files import PluginProblem
from mptcpd_dbus.policy.sections import WrongKey, read_section


class Own(PluginSettings):
    """What Demanding wants."""

    max_paths: int
    names: tuple[str, ...] = ("a",)


class Demanding(Plugin):
    """Has a key that must be given."""

    priority = 5
    match = Match(port=(80,))
    settings: Own


def test_the_keys_of_the_host_and_its_own_are_told_apart() -> None:
    priority, match, settings = read_section(
        Demanding, {"priority": "-3", "match-port": "443, 8443", "max-paths": "2", "names": "x, y"}
    )

    assert (priority, match) == (-3, Match(port=(443, 8443)))
    assert settings == Own(max_paths=2, names=("x", "y"))


def test_what_is_not_said_is_the_classs_own() -> None:
    priority, match, settings = read_section(Demanding, {"max-paths": "2"})
    assert (priority, match, settings) == (5, Match(port=(80,)), Own(max_paths=2))
    assert read_section(Plugin, {}) == (0, Match(), PluginSettings())


@pytest.mark.parametrize(
    ("values", "key", "words"),
    [
        ({}, "max-paths", "must be given"),
        ({"max-paths": "many"}, "max-paths", "'many'"),
        ({"max-paths": "1", "paths": "1"}, "paths", "unknown key; known: max-paths, names"),
        ({"max-paths": "1", "priority": "20"}, "priority", "'20' is not a number from -20 to 19"),
        ({"max-paths": "1", "priority": "high"}, "priority", "'high' is not a number"),
        ({"max-paths": "1", "match-port": "0"}, "match-port", "0"),
        (
            {"max-paths": "1", "match-color": "red"},
            "match-color",
            "known: match-port, match-prefix",
        ),
    ],
)
def test_a_wrong_key_is_named_with_what_would_do(
    values: dict[str, Any], key: str, words: str
) -> None:
    with pytest.raises(WrongKey) as caught:
        read_section(Demanding, values)

    assert caught.value.key == key
    assert words in caught.value.text
    assert "\n" not in str(caught.value)


def test_a_validator_that_fails_is_the_plugins_fault() -> None:
    class Broken(PluginSettings):
        @model_validator(mode="before")
        @classmethod
        def _look(cls, given: dict[str, Any]) -> Any:
            return given["missing"]

    class Its(Plugin):
        settings: Broken

    with pytest.raises(PluginProblem, match="its settings cannot be read: KeyError: 'missing'"):
        read_section(Its, {})

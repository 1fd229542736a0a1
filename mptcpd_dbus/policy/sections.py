"""What is said to one plugin: its priority, its match, and its own settings.

Must not know where that stands: who does adds it to the key of a `WrongKey`.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mptcpd_dbus.core.errors import ConfigurationError
from mptcpd_dbus.policy.base import Plugin, PluginSettings
from mptcpd_dbus.policy.fault import one_line
from mptcpd_dbus.policy.files import PluginProblem
from mptcpd_dbus.policy.loader import settings_of
from mptcpd_dbus.policy.match import Match

_PRIORITY, _MATCH = "priority", "match-"
_PRIORITIES = range(-20, 20)

ModelT = TypeVar("ModelT", bound=BaseModel)


class WrongKey(ConfigurationError):
    """A *key* or its value cannot be meant; nothing here says where it stands."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(f"{key}: {text}")
        self.key, self.text = key, text


def read_section(
    kind: type[Plugin], values: Mapping[str, Any]
) -> tuple[int, Match, PluginSettings]:
    """Check *values*, those of a section of the configuration; raise WrongKey."""
    own = dict(values)
    priority = kind.priority
    if _PRIORITY in own:
        given = own.pop(_PRIORITY)
        try:
            priority = _PRIORITIES[_PRIORITIES.index(int(given))]
        except ValueError:
            raise WrongKey(_PRIORITY, f"{given!r} is not a number from -20 to 19") from None
    matching = {key: own.pop(key) for key in list(own) if key.startswith(_MATCH)}
    match = kind.match
    if matching:
        asked = {key.removeprefix(_MATCH): value for key, value in matching.items()}
        match = validated(Match, asked, _MATCH)
    return priority, match, read_settings(kind, own)


def read_settings(kind: type[Plugin], values: Mapping[str, Any]) -> PluginSettings:
    """Check *values*, the plugin's own; raise WrongKey."""
    return validated(settings_of(kind), values)


def validated(model: type[ModelT], values: Mapping[str, Any], prefix: str = "") -> ModelT:
    """Read *values*, whose keys are told with *prefix*; raise WrongKey."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = prefix + str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            known = ", ".join(prefix + (f.alias or name) for name, f in model.model_fields.items())
            raise WrongKey(key, f"unknown key; known: {known or 'none'}") from None
        if first["type"] == "missing":
            raise WrongKey(key, "it must be given") from None
        words = first["msg"].removeprefix("Value error, ")
        raise WrongKey(key, f"{first['input']!r:.64}: {words}") from None
    except Exception as error:  # a validator of its author's
        raise PluginProblem(f"its settings cannot be read: {one_line(error)}") from error

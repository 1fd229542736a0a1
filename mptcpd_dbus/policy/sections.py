"""What the configuration says of one plugin: its priority, its match, and its own settings."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mptcpd_dbus.core.errors import ConfigurationError
from mptcpd_dbus.plugin import Plugin, PluginSettings
from mptcpd_dbus.policy.loader import settings_of
from mptcpd_dbus.policy.match import Match

_PRIORITY, _MATCH = "priority", "match-"
_PRIORITIES = range(-20, 20)

ModelT = TypeVar("ModelT", bound=BaseModel)


def read_section(
    kind: type[Plugin], values: Mapping[str, Any], where: Callable[[str], str]
) -> tuple[int, Match, PluginSettings]:
    """Check *values*; raise ConfigurationError with *where* its wrong key stands."""
    own = dict(values)
    priority = kind.priority
    if _PRIORITY in own:
        given = own.pop(_PRIORITY)
        try:
            priority = _PRIORITIES[_PRIORITIES.index(int(given))]
        except ValueError:
            raise ConfigurationError(
                f"{where(_PRIORITY)}: {given!r} is not a number from -20 to 19"
            ) from None
    matching = {key: own.pop(key) for key in list(own) if key.startswith(_MATCH)}
    match = kind.match
    if matching:
        asked = {key.removeprefix(_MATCH): value for key, value in matching.items()}
        match = _validated(Match, asked, lambda key: where(_MATCH + key))
    return priority, match, _validated(settings_of(kind), own, where)


def _validated(
    model: type[ModelT], values: Mapping[str, Any], where: Callable[[str], str]
) -> ModelT:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            known = ", ".join(f.alias or name for name, f in model.model_fields.items()) or "none"
            raise ConfigurationError(f"{where(key)}: unknown key {key!r}; known: {known}") from None
        words = first["msg"].removeprefix("Value error, ")
        value = str(first["input"])[:64]
        raise ConfigurationError(f"{where(key)}: {key} = {value!r}: {words}") from None

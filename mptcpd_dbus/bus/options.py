"""Options: the `a{sv}` at the end of a method, checked."""
# SPDX-License-Identifier: BSD-3-Clause

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mptcpd_dbus.core.endpoints import flag_bits
from mptcpd_dbus.core.errors import InvalidArgument


class Options(BaseModel):
    """The base of all option models: unknown keys and wrong types are refused by name."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


OptionsT = TypeVar("OptionsT", bound=Options)


class NoOptions(Options):
    """A method that has none yet, and room for some."""


class ForceOptions(Options):
    """The options of methods that spare what is NetworkManager's."""

    Force: bool = False


class FlushOptions(ForceOptions):
    """The options of FlushEndpoints."""

    Own: bool = False


def read_options(model: type[OptionsT], given: dict[str, Any]) -> OptionsT:
    """Check *given* against *model*; raise InvalidArgument naming the first wrong option."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields) or "none"
            raise InvalidArgument(f"options: unknown option {name!r}; known: {known}") from None
        value = str(first["input"])[:64]
        raise InvalidArgument(
            f"options: {name} = {value!r}: {first['msg'].removeprefix('Value error, ').lower()}"
        ) from None


def read_flags(words: list[str]) -> int:
    """Read the argument *flags*; raise InvalidArgument naming the wrong word."""
    try:
        return flag_bits(words)
    except ValueError as error:
        raise InvalidArgument(f"flags: {error}") from None

"""Options: the `a{sv}` at the end of a method, checked; and addresses as people type them."""
# SPDX-License-Identifier: BSD-3-Clause

from ipaddress import IPv4Address, IPv6Address, ip_address
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


def read_address(argument: str, text: str) -> str:
    """Give the address *text* in its usual form; raise InvalidArgument naming *argument*."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        raise InvalidArgument(
            f"{argument}: {text[:64]!r} is not an IP address (192.0.2.1 or 2001:db8::1)"
        ) from None
    if isinstance(address, IPv6Address):
        if address.scope_id:
            raise InvalidArgument(f"{argument}: {text[:64]!r}: a scope has no meaning here")
        if address.ipv4_mapped:
            address = address.ipv4_mapped
    if address.is_unspecified or address.is_multicast or address.is_link_local:
        raise InvalidArgument(f"{argument}: {text[:64]!r} is not the address of one host")
    return str(address)


def read_flags(words: list[str]) -> int:
    """Read the argument *flags*; raise InvalidArgument naming the wrong word."""
    try:
        return flag_bits(words)
    except ValueError as error:
        raise InvalidArgument(f"flags: {error}") from None

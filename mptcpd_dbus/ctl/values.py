"""Reads the words of a command line as what they stand for; Misuse names a word that is wrong."""
# SPDX-License-Identifier: BSD-3-Clause

import re
from collections.abc import Callable, Iterable
from typing import Any

from mptcpd_dbus.ctl.failure import Misuse
from mptcpd_dbus.ctl.grammar import CHOICES, Kind


def read(kind: Kind, text: str) -> Any:
    """Give the value of *text*."""
    if kind in CHOICES:
        text = choose("choice", text, CHOICES[kind])
    reader = _READERS.get(kind)
    return reader(text) if reader else text


def choose(what: str, typed: str, known: Iterable[str]) -> str:
    """Give the one of *known* that *typed* is, or begins and nothing else does."""
    known = list(known)
    found = [word for word in known if word.startswith(typed)] if typed else []
    if typed in known:
        return typed
    if len(found) == 1:
        return found[0]
    if found:
        raise Misuse(f"{typed!r} may be {' or '.join(found)}")
    raise Misuse(f"there is no {what} {typed!r}; there are {', '.join(known)}")


def _address(text: str) -> str:
    from mptcpd_dbus.core.addresses import read_address  # noqa: PLC0415  slow; not for the help
    from mptcpd_dbus.core.errors import InvalidArgument  # noqa: PLC0415

    try:
        return read_address("address", text)
    except InvalidArgument as error:
        raise Misuse(str(error)) from None


def _number(what: str, most: int, least: int = 0) -> Callable[[str], int]:
    def read_number(text: str) -> int:
        digits = text.isascii() and text.isdigit() and len(text) <= 10
        if not (digits and least <= int(text) <= most):
            raise Misuse(f"{text!r} is no {what}: give a number from {least} to {most}")
        return int(text)

    return read_number


def _interval(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text) or not 0.1 <= float(text) <= 3600:
        raise Misuse(f"{text!r} is no interval: give seconds from 0.1 to 3600")
    return float(text)


def _user(text: str) -> int:
    if text.isascii() and text.isdigit():
        return _number("user", 0xFFFFFFFE)(text)
    import pwd  # noqa: PLC0415  seldom needed

    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise Misuse(f"there is no user {text!r}") from None


def _bus(text: str) -> str:
    if text not in ("system", "session") and ":" not in text:
        raise Misuse("--bus: give system, session, or a D-Bus address as unix:path=/run/bus")
    return text


_READERS: dict[Kind, Callable[[str], Any]] = {
    Kind.ADDRESS: _address,
    Kind.PORT: _number("port", 65535),
    Kind.ID: _number("ID", 255),
    Kind.NUMBER: _number("limit", 0xFFFFFFFF),
    Kind.SECONDS: _number("time", 20),
    Kind.INTERVAL: _interval,
    Kind.COUNT: _number("count", 0xFFFFFFFF, least=1),
    Kind.SWITCH: lambda text: text == "on",
    Kind.USER: _user,
    Kind.BUS: _bus,
}

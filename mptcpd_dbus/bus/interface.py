"""How an interface of the contract is declared: names, signatures, documentation and handlers.

Nothing here knows of messages or objects; `introspection.py` prints it and `objects.py` serves it.
"""
# SPDX-License-Identifier: BSD-3-Clause

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from mptcpd_dbus.bus.signatures import complete_types

_MEMBER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_INTERFACE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+")


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: its name and one complete type."""

    name: str
    signature: str

    def __post_init__(self) -> None:
        if len(complete_types(self.signature)) != 1:
            raise ValueError(f"argument {self.name} needs one complete type: {self.signature!r}")


def args(*arguments: str) -> tuple[Argument, ...]:
    """Write arguments as one says them: `args("s remote_address", "q remote_port")`."""
    pairs = (argument.split() for argument in arguments)
    return tuple(Argument(name, signature) for signature, name in pairs)


@dataclass(frozen=True, slots=True)
class Call:
    """Who calls, as the bus knows them, whether a dialogue is welcome, and for what.

    The *arguments* are of the types that the contract says; nobody has checked them otherwise.
    """

    sender: str
    uid: int
    interactive: bool
    member: str
    arguments: tuple[Any, ...] = ()


Handler = Callable[..., Awaitable[tuple[Any, ...] | None]]


@dataclass(frozen=True, slots=True)
class Method:
    """A method: `handler(target, call, *arguments)` runs once *action*, if any, is authorised.

    What polkit's rules get to see are the arguments that are texts or numbers, by their names.  The
    handler borrows a descriptor (h), which is closed when it is done.
    """

    name: str
    arguments: tuple[Argument, ...]
    results: tuple[Argument, ...]
    handler: Handler
    doc: str
    action: str | None = None

    @property
    def signature(self) -> str:
        """The signature of the arguments."""
        return "".join(argument.signature for argument in self.arguments)

    @property
    def result_signature(self) -> str:
        """The signature of the results."""
        return "".join(result.signature for result in self.results)


@dataclass(frozen=True, slots=True)
class Property:
    """A read-only property: `getter(target)`; *changes* is its EmitsChangedSignal annotation."""

    name: str
    signature: str
    getter: Callable[[Any], Any]
    doc: str
    changes: Literal["true", "const", "false"] = "true"

    def __post_init__(self) -> None:
        if len(complete_types(self.signature)) != 1:
            raise ValueError(f"property {self.name} needs one complete type: {self.signature!r}")


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal; it is always sent from the root object."""

    name: str
    arguments: tuple[Argument, ...]
    doc: str

    @property
    def signature(self) -> str:
        """The signature of the arguments."""
        return "".join(argument.signature for argument in self.arguments)


@dataclass(frozen=True, slots=True, eq=False)
class Interface:
    """An interface: a name, a page of documentation and its members.

    It is equal to itself only: it is a key on the hot path, and to hash all of it would cost more
    than to send a signal.
    """

    name: str
    doc: str
    properties: tuple[Property, ...] = ()
    methods: tuple[Method, ...] = ()
    signals: tuple[Signal, ...] = ()

    def __post_init__(self) -> None:
        if not _INTERFACE.fullmatch(self.name):
            raise ValueError(f"not an interface name: {self.name!r}")
        if not self.doc.strip():
            raise ValueError(f"{self.name} is not documented")
        for kind in (self.properties, self.methods, self.signals):
            self._check(kind)

    def _check(self, members: Iterable[Method | Property | Signal]) -> None:
        seen: set[str] = set()
        for member in members:
            if not _MEMBER.fullmatch(member.name) or member.name in seen:
                raise ValueError(f"{self.name}: not a new member name: {member.name!r}")
            if not member.doc.strip():
                raise ValueError(f"{self.name}.{member.name} is not documented")
            seen.add(member.name)

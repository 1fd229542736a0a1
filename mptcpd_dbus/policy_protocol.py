"""What the bus and the policy host ask of each other: the one door for the real ones and tests'."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mptcpd_dbus.core.connections import Connection


@dataclass(frozen=True, slots=True)
class Registration:
    """How a program on the bus wants to decide for connections.

    `match` has the keys and values of `policy/match.py`, of which it is not known that they fit.
    """

    name: str
    priority: int = 0
    steers: str = "userspace"
    description: str = ""
    version: str = ""
    claims: bool = True
    match: Mapping[str, Any] = field(default_factory=dict)


class Program(Protocol):
    """A program on the bus that decides for connections; `name` is its unique name."""

    name: str

    def call(self, handler: str, arguments: tuple[Any, ...]) -> None:
        """Have a handler called with the pictures that a plugin's would get; never wait."""

    async def room(self) -> None:
        """Wait until it has read most of what it was told, or is let go."""

    def release(self, why: str) -> None:
        """Tell it that it decides no more, and `unregister` it."""


class Policies(Protocol):
    """Each command returns when it is done; all may raise InvalidArgument and NotReady."""

    async def register(self, wanted: Registration, program: Program) -> None:
        """Let *program* decide like a plugin; raise AlreadyRegistered."""

    async def unregister(self, program: Program) -> None:
        """Let *program* go, if it decides, which was told of it or has gone already."""

    async def enable(self, name: str) -> None:
        """Let the policy *name* run; it gets new connections and those that nobody owns."""

    async def disable(self, name: str) -> None:
        """Stop the policy *name*; its connections pass to the next in line."""

    async def reload(self, name: str) -> None:
        """Load the file of *name* anew; its settings stay."""

    async def set_owner(self, connection: Connection, name: str) -> None:
        """Let the policy *name*, or nobody if it is "", decide for *connection* from now on."""

    async def reload_configuration(self) -> None:
        """Read the configuration again and follow it."""

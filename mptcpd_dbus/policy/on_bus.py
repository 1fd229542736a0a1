"""A policy that is a program on the bus: hosted like a plugin, but each handler is a call to it.

It has no queue of its own: what is told leaves in the order of events, and the program's line knows
whether anybody reads.  Must not know how a program is called.
"""
# SPDX-License-Identifier: BSD-3-Clause

import sys
from typing import Any

from mptcpd_dbus.core.errors import InvalidArgument
from mptcpd_dbus.policy.base import HANDLERS, Plugin
from mptcpd_dbus.policy.hosted import Hosted
from mptcpd_dbus.policy.match import Match
from mptcpd_dbus.policy.sections import WrongKey, validated
from mptcpd_dbus.policy_protocol import Program, Registration

HEARD = frozenset(HANDLERS) - {"start", "stop", "reload"}
"""The handlers that a program has; its own start and end are its own business."""


class OnBus(Hosted):
    """The policy that *program* is; *place* orders those of one priority, plugins come first."""

    def __init__(self, wanted: Registration, program: Program, place: int) -> None:
        super().__init__(wanted.name, (wanted.priority, sys.maxsize, place))
        self.on_bus = program.name
        self.program = program
        about = {
            "__doc__": wanted.description,
            "version": wanted.version,
            "steers": wanted.steers,
            "claims": wanted.claims,
        }
        self.kind = type(wanted.name, (Plugin,), about)
        try:
            self.match = validated(Match, wanted.match)
        except WrongKey as wrong:
            raise InvalidArgument(f"options: {wrong.key.capitalize()}: {wrong.text}") from None

    def let_go(self, why: str) -> None:
        """Have it leave; whoever let it in does the rest."""
        self.program.release(why)

    def hears(self, handler: str) -> bool:
        """Whether that handler would be called now."""
        return self.running and handler in HEARD

    def post(self, key: int, handler: str, *arguments: Any) -> None:
        """Call the program's handler."""
        del key
        if self.hears(handler):
            self.program.call(handler, arguments)

    def finish(self, key: int, handler: str, *arguments: Any) -> None:
        """Call the program's handler."""
        self.post(key, handler, *arguments)

    async def room(self) -> None:
        """Wait until the program has read most of what it was told."""
        await self.program.room()

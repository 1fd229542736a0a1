"""Who decides for which connection: exactly one policy, or nobody.

The policy that `path-manager` names is asked first, then the others by their rank; the first that
runs, works with the connection's path manager and whose match fits gets it, and keeps it.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable

from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.errors import MptcpdError
from mptcpd_dbus.core.readings import OwnerRead
from mptcpd_dbus.core.types import ConnectionState
from mptcpd_dbus.engine import Engine
from mptcpd_dbus.log_fields import about
from mptcpd_dbus.policy import snapshots
from mptcpd_dbus.policy.cgroups import ControlGroups
from mptcpd_dbus.policy.hosted import Hosted

_AT_ONCE = 50  # connections
_RELEASED = "connection_released"
_HURRIED = ("new_connection", "connection_established")

_log = logging.getLogger(__name__)


class Owners:
    """The line of policies that are asked, and what they got."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._state = engine.state
        self._groups = ControlGroups()
        self.line: list[Hosted] = []
        """Those that may decide, in the order in which they are asked."""
        self._asking = False
        self._untold: set[int] = set()
        self._guessed: set[int] = set()
        self._running: dict[str, Hosted] = {}
        self.in_a_hurry = False
        """Whether a policy waits for connections, to act on them at once."""

    @property
    def running(self) -> list[Hosted]:
        """All policies whose handlers are called, in the order of their ranks."""
        return list(self._running.values())

    def line_up(self, policies: Iterable[Hosted], default: str) -> None:
        """Ask *policies* from now on, first the *default* one or those of its rules."""
        ranked = sorted((p for p in policies if p.running), key=lambda p: p.rank)
        self._running = {policy.name: policy for policy in ranked}
        claiming = (p for p in ranked if p.kind.claims)
        self.line = sorted(claiming, key=lambda p: default not in (p.name, p.parent or p.name))
        if not self.line:  # then it hears of connections no more
            self._guessed.clear()
            self._untold.clear()
        self.in_a_hurry = any(
            policy.paused or policy.hears(handler) for policy in self.line for handler in _HURRIED
        )

    def owner(self, connection: Connection) -> Hosted | None:
        """Give the running policy that decides for *connection* and has been told of it."""
        if connection.number in self._untold:
            return None
        return self._running.get(connection.owner)

    def welcome(self, connection: Connection) -> None:
        """Find an owner for a new connection."""
        policy = self._choose(connection)
        if policy is not None:
            self._engine.step(OwnerRead(connection.token, policy.name))

    def forget(self, connection: Connection) -> None:
        """Hear that a connection has closed."""
        self._guessed.discard(connection.number)
        self._untold.discard(connection.number)

    async def open(self) -> None:
        """Ask from now on: all policies have had the time to start."""
        self._asking = True
        await self.claim()

    async def claim(self) -> None:
        """Find owners for the connections that have none."""
        async for connection in self._each():
            if self.owner(connection) is None:
                await self._hand(connection)

    def check(self, connection: Connection) -> None:
        """Choose again if the path manager had to be guessed, and another was found."""
        if connection.number not in self._guessed:
            return
        self._guessed.discard(connection.number)
        policy = self.owner(connection)
        if policy is None or not policy.steers(connection.path_manager):
            chosen = self._choose(connection)
            if chosen is not policy:
                self.move(connection, chosen)

    async def pass_on(self, policy: Hosted) -> None:
        """Have the next in line decide for each connection of one that runs no more."""
        async for connection in self._each(policy):
            await self._hand(connection)

    async def _hand(self, connection: Connection) -> None:
        """Have the first that wants it decide for *connection*, one of many."""
        policy = self._choose(connection)
        self.move(connection, policy)
        if policy is not None:
            await policy.room()

    def give_up(self, number: int, policy: Hosted) -> None:
        """Take one connection away from a policy that cannot follow its events."""
        for connection in self.owned_by(policy):
            if connection.number == number:
                self.move(connection, self._choose(connection, without=policy))

    def move(self, connection: Connection, to: Hosted | None) -> None:
        """Have *to* decide for *connection* from now on; both are told."""
        before = self.owner(connection)
        left = before.mailbox.release(connection.number) if before is not None else []
        self._own(connection, to.name if to else "")
        picture = snapshots.connection(connection)
        # One that has not heard of it yet need not hear that it is gone.
        if before is not None and ("new_connection" not in left or _RELEASED in left):
            before.finish(connection.number, _RELEASED, picture)
        if to is not None:
            self.introduce(connection, to)

    def introduce(self, connection: Connection, policy: Hosted) -> None:
        """Tell *policy* of a connection that is there already."""
        picture = snapshots.connection(connection)
        policy.post(connection.number, "new_connection", picture)
        if connection.state is not ConnectionState.CREATED:
            policy.post(connection.number, "connection_established", picture)

    async def introduce_again(self, policy: Hosted) -> None:
        """Tell *policy*, which begins anew, of its connections; pass on what it does not want."""
        self._untold.update(connection.number for connection in self.owned_by(policy))
        async for connection in self._each(policy):
            self._untold.discard(connection.number)
            if self._wants(policy, connection):
                self.introduce(connection, policy)
            else:
                self._own(connection, "")  # it has not heard of this one since it began
                await self._hand(connection)

    async def _each(self, policy: Hosted | None = None) -> AsyncIterator[Connection]:
        """Give all connections, or those of *policy*, and let the loop go round now and then."""
        for place, connection in enumerate(list(self._state.connections.values()), 1):
            there = self._state.connections.get(connection.token) is connection
            if there and (policy is None or connection.owner == policy.name):
                yield connection
            if not place % _AT_ONCE:
                await asyncio.sleep(0)  # whoever loops need not await anything

    def owned_by(self, policy: Hosted) -> list[Connection]:
        """Give the connections of *policy* in the order of their numbers."""
        return [c for c in self._state.connections.values() if c.owner == policy.name]

    def _own(self, connection: Connection, name: str) -> None:
        if connection.owner != name:
            self._engine.take(OwnerRead(connection.token, name))

    def _choose(self, connection: Connection, without: Hosted | None = None) -> Hosted | None:
        if not connection.path_manager:
            self._guessed.add(connection.number)
        line = self.line if self._asking else ()
        others = (policy for policy in line if policy is not without)
        return next((policy for policy in others if self._wants(policy, connection)), None)

    def _wants(self, policy: Hosted, connection: Connection) -> bool:
        # A new connection is under the path manager that was set last, as far as is known; it is
        # read after the owner's first command, which is in a hurry, and `check` corrects this.
        if not policy.steers(connection.path_manager or self._state.settings.path_manager):
            return False
        if policy.match.needs_user and connection.uid is None:
            self._read_user(connection)
        return policy.match.fits(connection, self._groups.path)

    def _read_user(self, connection: Connection) -> None:
        try:
            row = self._engine.kernel.connection(connection.token)
        except (MptcpdError, OSError) as error:
            token = connection.token
            words = "the user of connection %08x is not known: %s"
            _log.warning(words, token, error, extra=about(token=token))
            return
        if row is not None:
            self._engine.step(row)

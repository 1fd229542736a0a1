"""The programs on the bus that decide for connections: who registers, who leaves, who is let go.

A program is the name that registered it, which the bus gives nobody else; who has left the bus is
asked nothing.  Knows nothing of events: `program.py` has the line of calls to each.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
import math
import re
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from pydantic import Field

from mptcpd_dbus.bus.interface import Call
from mptcpd_dbus.bus.names import BANNED_SECONDS, POLICIES, UID_POLICIES
from mptcpd_dbus.bus.options import Options, read_options
from mptcpd_dbus.bus.peers import Peers
from mptcpd_dbus.bus.policy import handlers
from mptcpd_dbus.bus.program import Program
from mptcpd_dbus.bus.transport import Transport
from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.errors import AlreadyRegistered, InvalidArgument, LimitReached, NotReady
from mptcpd_dbus.log_fields import about
from mptcpd_dbus.policy_protocol import Policies, Registration

_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")

_log = logging.getLogger(__name__)


class RegistrationOptions(Options):
    """The options of RegisterPolicy; the policy host knows which values of a match fit."""

    Priority: Annotated[int, Field(ge=-20, le=19)] = 0
    Steers: Annotated[str, Field(pattern="^(kernel|userspace|both)$")] = "userspace"
    Description: Annotated[str, Field(max_length=1000)] = ""
    Version: Annotated[str, Field(max_length=100)] = ""
    Claims: bool = True
    Port: list[int] | None = None
    Prefix: list[str] | None = None
    Uid: list[int] | None = None
    Unit: list[str] | None = None
    Side: str | None = None

    def registration(self, name: str) -> Registration:
        """Give what the policy host wants to know."""
        match = {
            key.lower(): value
            for key in ("Port", "Prefix", "Uid", "Unit", "Side")
            if (value := getattr(self, key)) is not None
        }
        about = (self.Priority, self.Steers, self.Description, self.Version, self.Claims)
        return Registration(name, *about, match)


class _Member:
    """A program, the name of its policy, who brought it, and the way to hear that it has left."""

    def __init__(self, name: str, program: Program, uid: int, gone: Callable[[], None]) -> None:
        self.name = name
        self.program = program
        self.uid = uid
        self.gone = gone
        self.is_let_in = False


class Programs:
    """All that are registered, by the names of their policies."""

    def __init__(
        self,
        transport: Transport,
        peers: Peers,
        policies: Policies,
        index_of: Callable[[str], int],
        queued: Callable[[tuple[Any, ...]], None],
    ) -> None:
        self._transport = transport
        self._peers = peers
        self._policies = policies
        self._handlers = handlers(index_of)
        self._queued = queued
        self._members: dict[str, _Member] = {}
        self._owing: list[_Member] = []  # former ones, which the bus waits for on our account
        self._banned: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def register(self, call: Call, path: str, name: str, given: dict[str, Any]) -> None:
        """Let the caller decide for connections under *name*."""
        wanted = read_options(RegistrationOptions, given).registration(name)
        self._check(call, name)
        program = Program(
            self._transport,
            call.sender,
            path,
            self._handlers,
            queued=self._queued,
            end=lambda why, deaf: self._let_go(member, why, deaf=deaf),
        )
        self._members[name] = member = _Member(
            name, program, call.uid, lambda: self._let_go(member, "it has left the bus")
        )
        try:
            await self._peers.watch(call.sender, member.gone)
        except BaseException:
            if self._is(member):
                del self._members[name]
            raise
        if not self._is(member):
            raise NotReady("the caller left the bus")
        self._peers.trust(call.sender)
        member.is_let_in = True  # or refused before anybody else is heard
        try:
            await self._policies.register(wanted, program)
        except BaseException:
            if self._is(member):
                await self._leave(member, "it could not register")
            raise

    async def unregister(self, call: Call, name: str) -> None:
        """Let the caller decide no more; what is on its way to it still comes."""
        member = self._members.get(name)
        if member is None or member.program.name != call.sender:
            raise NotReady(f"you have not registered a policy {name[:64]!r}")
        await self._leave(member, "it has unregistered")

    def decides(self, sender: str, connection: Connection) -> bool:
        """Whether *sender* registered the policy that decides for *connection*."""
        member = self._members.get(connection.owner)
        return member is not None and member.is_let_in and member.program.name == sender

    def flush(self) -> None:
        """Send what all of them are to be told."""
        for member in list(self._members.values()):
            member.program.flush()

    def stop(self) -> None:
        """Let all go: the bus has gone, and they know it."""
        for member in list(self._members.values()):
            self._let_go(member, "the bus has gone")

    def _check(self, call: Call, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise InvalidArgument(
                f"name: {name[:64]!r} is not 1 to 64 letters, digits and underscores"
            )
        if name in self._members:
            raise AlreadyRegistered(f"there is a policy {name} already: choose another name")
        now = asyncio.get_running_loop().time()
        self._banned = {banned: until for banned, until in self._banned.items() if until > now}
        if name in self._banned:
            wait = math.ceil(self._banned[name] - now)
            raise NotReady(f"policy {name} did not read its calls: register again in {wait} s")
        self._owing = [member for member in self._owing if member.program.is_asking]
        taken = [*self._members.values(), *self._owing]
        owed = "or owes answers to calls of former ones"
        if len(taken) >= POLICIES:
            raise LimitReached(f"the bus has registered {POLICIES} policies already, {owed}")
        if sum(member.uid == call.uid for member in taken) >= UID_POLICIES:
            raise LimitReached(
                f"user {call.uid} has registered {UID_POLICIES} policies already, {owed}"
            )

    def _is(self, member: _Member) -> bool:
        return self._members.get(member.name) is member

    def _let_go(self, member: _Member, why: str, *, deaf: bool = False) -> None:
        if not self._is(member):  # it has gone, and another may have its name
            return
        if deaf:
            self._banned[member.name] = asyncio.get_running_loop().time() + BANNED_SECONDS
        self._spawn(self._leave(member, why, deaf=deaf))

    def _leave(self, member: _Member, why: str, *, deaf: bool = False) -> Coroutine[Any, Any, None]:
        """Forget it at once; give what has its connections pass on."""
        level, end = (logging.WARNING, "is cut off") if deaf else (logging.INFO, "decides no more")
        fields = about(plugin=member.name, sender=member.program.name, uid=member.uid)
        _log.log(level, "policy %s on the bus %s: %s", member.name, end, why, extra=fields)
        del self._members[member.name]
        program = member.program
        program.stop()
        self._owing.append(member)
        if all(other.program.name != program.name for other in self._members.values()):
            self._peers.distrust(program.name)
        self._spawn(self._peers.unwatch(program.name, member.gone))
        return self._policies.unregister(program)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

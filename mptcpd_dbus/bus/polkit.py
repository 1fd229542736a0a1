"""Whether a caller may: asked of polkit, within bounds, and never answered yes by default.

The subject is the caller's unique name, never a process ID, which could be somebody else's by the
time it is looked at.  Source: polkit(8), org.freedesktop.PolicyKit1.Authority.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import itertools
import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mptcpd_dbus.bus.error_names import (
    ACCESS_DENIED,
    INTERACTIVE_AUTHORIZATION_REQUIRED,
    LIMITS_EXCEEDED,
    BusError,
)
from mptcpd_dbus.bus.interface import Call
from mptcpd_dbus.bus.message import NO_REPLY
from mptcpd_dbus.bus.names import (
    CHECK_SECONDS,
    CHECKS,
    DIALOGUE_SECONDS,
    DIALOGUES,
    UID_CHECKS,
    UID_DIALOGUES,
)
from mptcpd_dbus.bus.peers import Peers
from mptcpd_dbus.bus.transport import NobodyThere, Transport
from mptcpd_dbus.bus.wire import Variant

_log = logging.getLogger(__name__)

_NAME = "org.freedesktop.PolicyKit1"
_PATH = "/org/freedesktop/PolicyKit1/Authority"
_INTERFACE = "org.freedesktop.PolicyKit1.Authority"
_ALLOW_USER_INTERACTION = 1


class Polkit:
    """The authority on this bus; uid 0 and the daemon's own uid need not be asked about."""

    def __init__(self, transport: Transport, peers: Peers) -> None:
        self._transport = transport
        self._peers = peers
        self._free = frozenset((0, os.geteuid()))
        self._numbers = itertools.count(1)
        self._checks: Counter[int] = Counter()  # by uid
        self._dialogues: Counter[int] = Counter()
        self._reachable = True

    async def check(
        self, call: Call, action: str, details: dict[str, str], *, without: bool = False
    ) -> None:
        """Return if the caller may do *action*; raise BusError in every other case.

        *without* is whether it may where there is no polkit at all on this bus.
        """
        if call.uid in self._free:
            return
        try:
            with self._counted(call):
                authorised, challenge = await self._ask(call, action, details)
        except NobodyThere as error:
            if without:
                return
            raise BusError(ACCESS_DENIED, f"polkit cannot be asked about {action}") from error
        except TimeoutError:
            raise BusError(ACCESS_DENIED, "the bus did not answer in time") from None
        if authorised:
            return
        if challenge and not call.interactive:
            raise BusError(
                INTERACTIVE_AUTHORIZATION_REQUIRED, f"{action} needs authentication by a dialogue"
            )
        raise BusError(ACCESS_DENIED, f"not authorised for {action}")

    @contextmanager
    def _counted(self, call: Call) -> Iterator[None]:
        """Count a check while it is on its way, if there is room for it."""
        counters = [(self._checks, UID_CHECKS, CHECKS)]
        if call.interactive:
            counters.append((self._dialogues, UID_DIALOGUES, DIALOGUES))
        for counter, per_uid, in_all in counters:
            if counter[call.uid] >= per_uid or counter.total() >= in_all:
                raise BusError(LIMITS_EXCEEDED, "too many authorisations wait for an answer")
        for counter, _, _ in counters:
            counter[call.uid] += 1
        try:
            yield
        finally:
            for counter, _, _ in counters:
                counter[call.uid] -= 1
                if not counter[call.uid]:
                    del counter[call.uid]

    async def _ask(self, call: Call, action: str, details: dict[str, str]) -> tuple[bool, bool]:
        """Ask for as long as the caller is on the bus: whether it may, whether a dialogue helps."""
        question: asyncio.Future[tuple[bool, bool]] | None = None
        left = False

        def caller_left() -> None:
            nonlocal left
            left = True
            if question is not None:
                question.cancel()

        await self._peers.watch(call.sender, caller_left)
        try:
            if not left:
                question = asyncio.ensure_future(self._question(call, action, details))
                return await question
        except asyncio.CancelledError:
            if not left:
                raise
        finally:
            await self._peers.unwatch(call.sender, caller_left)
        raise BusError(ACCESS_DENIED, "the caller left the bus")

    async def _question(
        self, call: Call, action: str, details: dict[str, str]
    ) -> tuple[bool, bool]:
        cancellation = f"mptcpd-dbus-{next(self._numbers)}"
        try:
            ((authorised, challenge, _),) = await self._transport.call(
                _NAME,
                _PATH,
                _INTERFACE,
                "CheckAuthorization",
                "(sa{sv})sa{ss}us",
                ("system-bus-name", {"name": Variant("s", call.sender)}),
                action,
                details,
                _ALLOW_USER_INTERACTION if call.interactive else 0,
                cancellation,
                timeout=DIALOGUE_SECONDS if call.interactive else CHECK_SECONDS,
            )
        except asyncio.CancelledError:
            await self._cancel(cancellation)
            raise
        except TimeoutError:
            await self._cancel(cancellation)
            raise BusError(ACCESS_DENIED, f"nobody answered for {action} in time") from None
        except NobodyThere as error:
            self._unreachable(error)
            raise
        except (BusError, ValueError, TypeError) as error:
            self._unreachable(error)
            raise BusError(ACCESS_DENIED, f"polkit cannot be asked about {action}") from error
        self._reachable = True
        return authorised is True, challenge is True

    async def _cancel(self, cancellation: str) -> None:
        with suppress(BusError):  # without a bus there is nothing left to take back
            await self._transport.call(
                _NAME,
                _PATH,
                _INTERFACE,
                "CancelCheckAuthorization",
                "s",
                cancellation,
                flags=NO_REPLY,
            )

    def _unreachable(self, error: Exception) -> None:
        if self._reachable:
            self._reachable = False
            _log.warning(
                "polkit cannot be asked; so only uid 0 and we may command, and who shows the socket"
                " of a connection: %s",
                error,
            )

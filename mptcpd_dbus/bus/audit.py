"""A line in the log for each command that came over the bus: who, what, on what, how it went.

What somebody does to connections of their own is their daily work: those lines are for debugging.
Of all others each user has some lines in a while, and then one that says how many are missing.
Decides nothing.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
import reprlib

from mptcpd_dbus.bus.interface import Call
from mptcpd_dbus.bus.names import AUDIT_LINES, AUDIT_SECONDS, AUDIT_USERS
from mptcpd_dbus.bus.published import CompiledMethod, Published
from mptcpd_dbus.core.connections import Address, Connection, Subflow
from mptcpd_dbus.log_fields import about

_OTHERS = -1  # stands for the users that are too many to be told apart

_log = logging.getLogger(__name__)

_short = reprlib.Repr()  # on one line, and not too much of it
_short.maxstring = _short.maxother = 120
_short.maxdict = _short.maxlist = 8


class Audit:
    """Writes the lines, within bounds."""

    def __init__(self) -> None:
        self._users: dict[int, int] = {}  # lines of each since its first

    def note(
        self,
        call: Call,
        published: Published,
        found: CompiledMethod,
        result: str,
        *,
        why: str = "",
        own: bool = False,
    ) -> None:
        """Tell of a command that ended with *result*; *own* is whether it was its owner's."""
        level = logging.DEBUG if own else logging.INFO
        if not _log.isEnabledFor(level) or not (own or self._counted(call.uid)):
            return
        target = published.target
        connection = target.connection if isinstance(target, Subflow | Address) else target
        token = connection.token if isinstance(connection, Connection) else None
        method = f"{found.interface}.{found.method.name}"
        _log.log(
            level,
            "user %d (%s): %s(%s) on %s%s: %s%s",
            call.uid,
            call.sender,
            method,
            ", ".join(map(_short.repr, call.arguments)),
            published.path,
            "" if token is None else f" ({token:08x})",
            result,
            f" {_short.repr(why)}" if why else "",
            extra=about(
                token=token,
                path=published.path,
                sender=call.sender,
                uid=call.uid,
                method=method,
                result=result,
            ),
        )

    def stop(self) -> None:
        """Say what is missing."""
        for user in list(self._users):
            self._close(user)

    def _counted(self, uid: int) -> bool:
        """Count a line; give whether it may be written."""
        user = uid
        if user and user not in self._users and len(self._users) >= AUDIT_USERS:
            user = _OTHERS  # one person may have many uids: subuid(5)
        if user not in self._users:
            asyncio.get_running_loop().call_later(AUDIT_SECONDS, self._close, user)
        self._users[user] = lines = self._users.get(user, 0) + 1
        return lines <= AUDIT_LINES

    def _close(self, user: int) -> None:
        missing = self._users.pop(user, 0) - AUDIT_LINES
        if missing > 0:
            who = "other users" if user == _OTHERS else f"user {user}"
            fields = about(uid=None if user == _OTHERS else user)
            _log.warning("%s: %d more commands are not in the log", who, missing, extra=fields)

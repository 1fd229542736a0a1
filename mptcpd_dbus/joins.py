"""Joins on their way: from SUBFLOW_CREATE to the subflow or the reason why there is none.

Nothing in the kernel ties an event to the request that caused it: the acknowledgement lacks the
source port.  Hence requests for the same ends take turns, and whoever has the turn owns the next
event between these ends whose source port is new.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from os import strerror
from typing import NamedTuple
from weakref import WeakValueDictionary

from mptcpd_dbus.core import events
from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.errors import SubflowFailed
from mptcpd_dbus.core.types import FourTuple

# RFC 8684, section 3.6
RESET_REASONS = (
    "unspecified error",
    "MPTCP-specific error",
    "lack of resources",
    "administratively prohibited",
    "too much outstanding data",
    "unacceptable performance",
    "middlebox interference",
)

_REFUSED, _TIMED_OUT, _UNREACHABLE = 111, 110, 113


class JoinKey(NamedTuple):
    """What an event and a request have in common."""

    token: int
    local_address: str
    remote_address: str
    remote_port: int


class Join:
    """One join on its way; its events arrive in `outcome`, None for the connection's end.

    `before` holds the source ports that older subflows and joins between its addresses have,
    `made` the 4-tuple under which it was seen.
    """

    def __init__(self, connection: Connection, key: JoinKey, local_port: int) -> None:
        self._local_port = local_port
        self.made: FourTuple | None = None
        self.before = {
            t.local_port
            for t in connection.subflows
            if (t.local_address, t.remote_address, t.remote_port) == key[1:]
        }
        self.outcome: asyncio.Queue[events.NewSubflow | events.SubflowClosed | None] = (
            asyncio.Queue()
        )

    def concerns(self, event: events.NewSubflow | events.SubflowClosed) -> bool:
        """Whether *event* is of this join and not of an older subflow between its addresses."""
        return self.may_be(event.four_tuple.local_port)

    def may_be(self, local_port: int) -> bool:
        """Whether a subflow between its addresses with this port may be the one."""
        if self._local_port:
            return local_port == self._local_port
        return local_port not in self.before


class Joins:
    """All joins on their way; `notice` hears every event."""

    def __init__(self) -> None:
        self._joins: dict[int, dict[JoinKey, Join]] = {}
        self._turns: WeakValueDictionary[JoinKey, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def begin(
        self, connection: Connection, key: JoinKey, local_port: int
    ) -> AsyncIterator[Join]:
        """Wait for *key*'s turn, then hold it."""
        # The lock lives as long as somebody holds it or waits for it.
        turn = self._turns.setdefault(key, asyncio.Lock())
        async with turn:
            join = Join(connection, key, local_port)
            self._joins.setdefault(key.token, {})[key] = join
            try:
                yield join
            finally:
                joins = self._joins[key.token]
                del joins[key]
                if not joins:
                    del self._joins[key.token]

    def notice(self, event: events.Event) -> None:
        """Hand *event* to the join that it is about, if any."""
        if not self._joins:
            return
        if isinstance(event, events.NewSubflow | events.SubflowClosed):
            t = event.four_tuple
            key = JoinKey(event.token, t.local_address, t.remote_address, t.remote_port)
            join = self._joins.get(event.token, {}).get(key)
            if join is not None and join.concerns(event):
                join.outcome.put_nowait(event)
        elif isinstance(event, events.ConnectionClosed):
            for join in self._joins.get(event.token, {}).values():
                join.outcome.put_nowait(None)


def failure(event: events.SubflowClosed, *, accepted: bool) -> SubflowFailed:
    """Say why a join failed; *accepted* after SUB_ESTABLISHED, which promises nothing."""
    if event.error == _REFUSED:
        why = "refused: nothing listens on that port, or it takes no join there"
    elif event.error == _TIMED_OUT:
        why = "timed out: no answer to the SYN"
    elif event.error == _UNREACHABLE:
        why = "unreachable: no way to that address over this path"
    elif event.reset_reason is not None:
        name = (
            RESET_REASONS[event.reset_reason]
            if event.reset_reason < len(RESET_REASONS)
            else f"reason {event.reset_reason}"
        )
        why = f"reset by the peer: {name} (RFC 8684, section 3.6)"
    elif accepted:
        why = "refused by the peer: its limit of subflows is reached or its path manager said no"
    elif event.error:
        why = strerror(event.error).lower()
    else:
        why = "the peer answered without MPTCP: a plain TCP listener"
    return SubflowFailed(f"the subflow {event.four_tuple} was not made: {why}")

"""Joins on their way: from SUBFLOW_CREATE to the subflow or the reason why there is none.

Nothing in the kernel ties an event to the request that caused it: the acknowledgement lacks the
source port.  Hence requests for the same ends take turns, and whoever has the turn owns the next
event between these ends whose source port is new.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterator
from errno import ECANCELED
from os import strerror
from typing import NamedTuple

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

GIVEN_UP = ECANCELED
"""The error of a join that we ended ourselves; the kernel uses another one for that."""


class JoinKey(NamedTuple):
    """What an event and a request have in common."""

    token: int
    local_address: str
    remote_address: str
    remote_port: int


def join_key(event: events.NewSubflow | events.SubflowClosed) -> JoinKey:
    """Give what *event* has in common with a request for it."""
    t = event.four_tuple
    return JoinKey(event.token, t.local_address, t.remote_address, t.remote_port)


class Join:
    """One join on its way; its events arrive in `outcome`, None for the connection's end.

    `before` holds the source ports that older subflows and joins between its addresses have,
    `made` the 4-tuple under which it was seen; `unheard` says that it was sent and no event has
    come.
    """

    def __init__(self, connection: Connection, key: JoinKey, local_port: int) -> None:
        self._local_port = local_port
        self.made: FourTuple | None = None
        self.unheard = False
        self.before = {
            t.local_port
            for t in connection.subflows
            if (t.local_address, t.remote_address, t.remote_port) == key[1:]
        }
        self.outcome: asyncio.Queue[events.NewSubflow | events.SubflowClosed | None] = (
            asyncio.Queue()
        )
        self.behind: deque[asyncio.Future[None]] = deque()
        """Those who wait for its turn."""

    def concerns(self, event: events.NewSubflow | events.SubflowClosed) -> bool:
        """Whether *event* is of this join and not of an older subflow between its addresses."""
        return self.may_be(event.four_tuple.local_port)

    def may_be(self, local_port: int) -> bool:
        """Whether a subflow between its addresses with this port may be the one."""
        if self._local_port:
            return local_port == self._local_port
        return local_port not in self.before

    def hear(self, event: events.NewSubflow | events.SubflowClosed | None) -> None:
        """Pass *event* on to whoever waits."""
        self.unheard = False
        self.outcome.put_nowait(event)


class Joins:
    """All joins on their way; `notice` hears every event.

    Those that nobody waits for (any more) are remembered by their ends until the connection closes;
    None stands for any ends, where there may be joins from before our time.  A join that another
    program sends between the same ends at the same time is not told from ours.
    """

    def __init__(self) -> None:
        self._joins: dict[int, dict[JoinKey, Join]] = {}
        self._left: defaultdict[int, set[JoinKey | None]] = defaultdict(set)

    def begin(self, connection: Connection, key: JoinKey, local_port: int) -> Join | None:
        """Take the turn of *key*, to be given back by `end`; None while somebody has it."""
        joins = self._joins.setdefault(key.token, {})
        if key in joins:
            return None
        join = joins[key] = Join(connection, key, local_port)
        return join

    async def in_turn(self, connection: Connection, key: JoinKey, local_port: int) -> Join:
        """Wait for *key*'s turn, which goes to who came first, and take it."""
        join = self.begin(connection, key, local_port)
        if join is not None:
            return join
        before = self._joins[key.token][key]
        turn = asyncio.get_running_loop().create_future()
        before.behind.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it has just become ours
                self.end(key, before)
            raise
        join = self._joins[key.token][key] = Join(connection, key, local_port)
        join.behind = before.behind
        return join

    def end(self, key: JoinKey, join: Join) -> None:
        """Give the turn back."""
        if join.unheard:
            self.leave(key)
        while join.behind:
            turn = join.behind.popleft()
            if not turn.done():
                turn.set_result(None)  # and the key stays taken until that one comes
                return
        joins = self._joins[key.token]
        del joins[key]
        if not joins:
            del self._joins[key.token]

    def leave(self, key: JoinKey) -> None:
        """Remember that nobody waits for a join between these ends."""
        self._left[key.token].add(key)

    def inherit(self, token: int) -> None:
        """Remember that the connection is older than we are."""
        self._left[token].add(None)

    def left(self, key: JoinKey) -> bool:
        """Whether there may be a join between these ends that nobody waits for."""
        return not {key, None}.isdisjoint(self._left.get(key.token, ()))

    def known(self, token: int) -> Iterator[tuple[JoinKey, Join | None]]:
        """Give the ends between which joins of a connection may be on their way, and who waits."""
        waiting = self._joins.get(token, {})
        for key in {*waiting, *self._left.get(token, ())}:
            if key is not None:
                yield key, waiting.get(key)

    def notice(self, event: events.Event) -> None:
        """Hand *event* to the join that it is about, if any."""
        if isinstance(event, events.ConnectionClosed):
            for waiting in self._joins.get(event.token, {}).values():
                waiting.hear(None)
            self._left.pop(event.token, None)
        elif isinstance(event, (events.NewSubflow, events.SubflowClosed)):
            key = join_key(event)
            join = self._joins.get(event.token, {}).get(key)
            if join is not None and join.concerns(event):
                join.hear(event)


def failure(event: events.SubflowClosed, *, accepted: bool) -> SubflowFailed:
    """Say why a join failed; *accepted* after SUB_ESTABLISHED, which promises nothing."""
    if event.error == _REFUSED:
        why = "refused: nothing listens on that port, or it takes no join there"
    elif event.error == _TIMED_OUT:
        why = "timed out: no answer to the SYN"
    elif event.error == _UNREACHABLE:
        why = "unreachable: no way to that address over this path"
    elif event.error == GIVEN_UP:
        why = "its local address was given up meanwhile"
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

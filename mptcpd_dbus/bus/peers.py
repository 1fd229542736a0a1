"""Who calls us: uid, rate and calls in flight of every unique name, all bounded.

A refused call must cost less than its relay costs the bus (about 25 us): else one flooder
starves all.  Knows nothing of objects and methods.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from mptcpd_dbus.bus.error_names import LIMITS_EXCEEDED, BusError
from mptcpd_dbus.bus.message import NO_REPLY, Incoming
from mptcpd_dbus.bus.names import (
    BACKLOG,
    BYTES_PER_TOKEN,
    LARGE_BURST,
    LARGE_RATE,
    MUTED_SECONDS,
    NAME_BACKLOG,
    NAME_BURST,
    NAME_CALLS,
    NAME_LATE,
    NAME_RATE,
    PEERS,
    REFUSAL_BURST,
    REFUSAL_RATE,
    SECONDS_PER_TOKEN,
    TRUSTED_CALLS,
    TRUSTED_NAME_BURST,
    TRUSTED_NAME_RATE,
    TRUSTED_UID_BURST,
    TRUSTED_UID_RATE,
    UID_BURST,
    UID_CALLS,
    UID_LATE,
    UID_RATE,
)
from mptcpd_dbus.bus.transport import DBUS, DBUS_PATH, Transport

_log = logging.getLogger(__name__)


class _Bucket:
    """A token bucket."""

    __slots__ = ("burst", "rate", "stamp", "tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.tokens = burst
        self.stamp = now

    def take(self, now: float, wanted: float = 1) -> bool:
        tokens = self.tokens + (now - self.stamp) * self.rate
        self.stamp = now
        self.tokens = tokens = min(tokens, self.burst)
        if tokens < wanted:
            return False
        self.tokens = tokens - wanted
        return True

    def narrow(self, rate: float, burst: float) -> None:
        """Fill more slowly from now on, and less."""
        self.rate, self.burst = rate, burst

    def pause(self) -> float:
        """Seconds until there is a token again."""
        return max(1 - self.tokens, 0) / self.rate


class _User:
    """What all connections of one uid have together."""

    __slots__ = ("bucket", "calls", "in_flight", "large", "late", "uid")

    def __init__(self, uid: int, now: float) -> None:
        self.uid = uid
        self.in_flight = 0
        self.late = 0
        self.bucket = _Bucket(UID_RATE, UID_BURST, now)
        self.large = _Bucket(LARGE_RATE, LARGE_BURST, now)
        self.calls = UID_CALLS


class Peer:
    """A unique name that called us; *user* is None until the bus has told its uid."""

    __slots__ = (*("bucket", "calls", "in_flight", "late", "name", "refusals", "user", "waiting"),)

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.user: _User | None = None
        self.bucket = _Bucket(NAME_RATE, NAME_BURST, now)
        self.refusals = _Bucket(REFUSAL_RATE, REFUSAL_BURST, now)
        self.calls = NAME_CALLS
        self.in_flight = 0
        self.waiting: list[Incoming] = []
        self.late: deque[Incoming] = deque()

    @property
    def uid(self) -> int:
        """The uid, known of every peer whose calls were let in."""
        if self.user is None:
            raise LookupError(f"the uid of {self.name} is not known yet")
        return self.user.uid


def _widen(peer: Peer, user: _User, now: float) -> None:
    peer.calls = TRUSTED_CALLS
    peer.bucket = _Bucket(TRUSTED_NAME_RATE, TRUSTED_NAME_BURST, now)
    if user.calls != TRUSTED_CALLS:
        user.calls = TRUSTED_CALLS
        user.bucket = _Bucket(TRUSTED_UID_RATE, TRUSTED_UID_BURST, now)


def _has_token(peer: Peer, user: _User) -> bool:
    now = time.monotonic()
    return peer.bucket.take(now) and user.bucket.take(now)


class Peers:
    """The doorkeeper: lets calls in, in their order, or answers LimitsExceeded."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.on_call: Callable[[Incoming, Peer], None] | None = None
        self._peers: dict[str, Peer] = {}
        self._users: dict[int, _User] = {}
        self._trusted: set[str] = set()
        self._backlog = 0
        self._lookups: set[asyncio.Task[None]] = set()
        self._watchers: dict[str, list[Callable[[], None]]] = {}
        self._refused = 0
        self._stopped = False
        transport.on_call = self.receive
        transport.on_signal(DBUS, "NameOwnerChanged", self._on_owner_changed)

    def receive(self, call: Incoming) -> None:
        """Let *call* in, keep it until its caller's uid is known, or refuse it."""
        now = time.monotonic()
        peer = self._peers.pop(call.sender, None) or self._new_peer(call.sender, now)
        self._peers[call.sender] = peer  # the most recent is last
        if peer.user is not None:
            self._admit(call, peer, peer.user)
        elif peer.bucket.take(now):
            self._keep(call, peer)
        else:
            self._refuse(call, peer)

    def _admit(self, call: Incoming, peer: Peer, user: _User) -> None:
        """Let *call* in now or in its turn; refuse it where too many wait already."""
        if not peer.late and _has_token(peer, user):
            self._let_in(call, peer)
        elif len(peer.late) < NAME_LATE and user.late < UID_LATE:
            peer.late.append(call)
            user.late += 1
            if len(peer.late) == 1:
                self._let_in_later(peer, user)
        else:
            self._refuse(call, peer)

    def _let_in_later(self, peer: Peer, user: _User) -> None:
        pause = max(peer.bucket.pause(), user.bucket.pause())
        asyncio.get_running_loop().call_later(pause, self._let_late_in, peer, user)

    def _let_late_in(self, peer: Peer, user: _User) -> None:
        while peer.late and not self._stopped:
            if not _has_token(peer, user):
                self._let_in_later(peer, user)
                return
            user.late -= 1
            self._let_in(peer.late.popleft(), peer)

    def _let_in(self, call: Incoming, peer: Peer) -> None:
        if self.on_call is not None:
            self.on_call(call, peer)

    @property
    def refused(self) -> int:
        """How many calls were refused."""
        return self._refused + self._transport.ignored

    def begin(self, peer: Peer) -> bool:
        """Count a call whose handler starts; False when there are too many of this caller."""
        user = peer.user
        if user is None or peer.in_flight >= peer.calls or user.in_flight >= user.calls:
            self._refused += 1
            return False
        peer.in_flight += 1
        user.in_flight += 1
        return True

    def end(self, peer: Peer) -> None:
        """Count a call whose handler has ended."""
        peer.in_flight -= 1
        if peer.user is not None:
            peer.user.in_flight -= 1

    def charge(self, peer: Peer, size: int, seconds: float = 0.0) -> None:
        """Let a large answer cost its caller as much as the many small ones it could have had."""
        tokens = max(size // BYTES_PER_TOKEN, int(seconds / SECONDS_PER_TOKEN))
        peer.bucket.tokens -= tokens
        if peer.user is not None:
            peer.user.bucket.tokens -= tokens

    def affords(self, peer: Peer, size: int) -> bool:
        """Whether *peer*'s user may have another large answer of *size* bytes."""
        user = peer.user
        if user is None or not user.large.take(time.monotonic(), min(size, LARGE_BURST)):
            self._refused += 1
            return user is not None and user.uid == 0
        return True

    def trust(self, name: str) -> None:
        """Give *name* and its user the bounds of uid 0, until `distrust`."""
        self._trusted.add(name)
        peer = self._peers.get(name)
        if peer is not None and peer.user is not None:
            _widen(peer, peer.user, time.monotonic())

    def distrust(self, name: str) -> None:
        """Take *name* for one like all again, and its user if it has no other."""
        self._trusted.discard(name)
        peer = self._peers.get(name)
        user = peer.user if peer is not None else None
        if peer is None or user is None or user.uid == 0:
            return
        peer.calls = NAME_CALLS
        peer.bucket.narrow(NAME_RATE, NAME_BURST)
        if not any(p.user is user for p in map(self._peers.get, self._trusted) if p is not None):
            user.calls = UID_CALLS
            user.bucket.narrow(UID_RATE, UID_BURST)

    def stop(self) -> None:
        """End what is under way."""
        self._stopped = True
        for lookup in self._lookups:
            lookup.cancel()
        for peer in self._peers.values():
            for call in (*peer.waiting, *peer.late):
                self._transport.close_descriptors(call)

    def _new_peer(self, name: str, now: float) -> Peer:
        if len(self._peers) >= PEERS:
            idle = (p for p in self._peers.values() if not (p.in_flight or p.waiting or p.late))
            oldest = next(idle, None)
            if oldest is not None:
                del self._peers[oldest.name]
        return Peer(name, now)

    def _refuse(self, call: Incoming, peer: Peer) -> None:
        self._refused += 1
        self._transport.close_descriptors(call)
        silent = bool(call.flags & NO_REPLY)
        answered = not silent and peer.refusals.take(time.monotonic())
        if answered:
            self._transport.reply_error(call, LIMITS_EXCEEDED, "too many calls; slow down")
        muted = self._transport.muted
        name = call.sender.encode()
        if name not in muted:
            asyncio.get_running_loop().call_later(MUTED_SECONDS, muted.pop, name)
        muted[name] = muted.get(name, False) or not (silent or answered)

    # Calls of a caller whose uid the bus has still to tell

    def _keep(self, call: Incoming, peer: Peer) -> None:
        if len(peer.waiting) >= NAME_BACKLOG or self._backlog >= BACKLOG:
            self._refuse(call, peer)
            return
        peer.waiting.append(call)
        self._backlog += 1
        if len(peer.waiting) == 1:
            lookup = asyncio.ensure_future(self._look_up(peer))
            self._lookups.add(lookup)
            lookup.add_done_callback(self._lookups.discard)

    async def _look_up(self, peer: Peer) -> None:
        try:
            (uid,) = await self._transport.call(
                DBUS, DBUS_PATH, DBUS, "GetConnectionUnixUser", "s", peer.name
            )
        except (BusError, TimeoutError, ValueError) as error:
            _log.debug("the uid of %s is not known: %s", peer.name, error)
            self._backlog -= len(peer.waiting)
            for call in peer.waiting:
                self._transport.close_descriptors(call)
            peer.waiting.clear()
            self._peers.pop(peer.name, None)
            return
        now = time.monotonic()
        peer.user = self._user(uid, now)
        if uid == 0 or peer.name in self._trusted:
            _widen(peer, peer.user, now)
        waiting, peer.waiting = peer.waiting, []
        self._backlog -= len(waiting)
        for call in waiting:
            self._admit(call, peer, peer.user)

    def _user(self, uid: int, now: float) -> _User:
        user = self._users.pop(uid, None) or _User(uid, now)
        self._users[uid] = user
        if len(self._users) > PEERS:
            known = {id(peer.user) for peer in self._peers.values()}
            for other in [u for u in self._users.values() if id(u) not in known and u is not user]:
                del self._users[other.uid]
        return user

    # Who leaves the bus

    async def watch(self, name: str, gone: Callable[[], None]) -> None:
        """Call *gone* once *name* leaves the bus, or now if it has; `unwatch` must follow.

        Every watch adds its own match rule, and the bus counts equal ones.
        """
        self._watchers.setdefault(name, []).append(gone)
        try:
            await self._match("AddMatch", name)
            is_there = await self._transport.name_has_owner(name)
        except BaseException:
            await self.unwatch(name, gone)
            raise
        if not is_there:
            gone()

    async def unwatch(self, name: str, gone: Callable[[], None]) -> None:
        """Stop watching, if it is still watched; this needs no answer of the bus."""
        watchers = self._watchers.get(name, [])
        if gone not in watchers:
            return
        watchers.remove(gone)
        if not watchers:
            del self._watchers[name]
        with suppress(BusError):  # not connected: the bus has forgotten it
            await self._match("RemoveMatch", name, NO_REPLY)

    async def _match(self, member: str, name: str, flags: int = 0) -> None:
        rule = (
            f"type='signal',sender='{DBUS}',path='{DBUS_PATH}',interface='{DBUS}',"
            f"member='NameOwnerChanged',arg0='{name}'"
        )
        await self._transport.call(DBUS, DBUS_PATH, DBUS, member, "s", rule, flags=flags)

    def _on_owner_changed(self, message: Incoming) -> None:
        if message.sender != DBUS:
            return
        name, _, new_owner = message.values()
        if not new_owner:
            for gone in list(self._watchers.get(name, ())):
                gone()

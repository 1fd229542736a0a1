"""The line of calls to one program that decides for connections, and whether anybody reads it.

The bus swallows 127 MiB before it tells that nobody does, so some calls ask for an answer.  Knows
nothing of who may register, nor of what a call says.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from mptcpd_dbus.bus import error_names as names
from mptcpd_dbus.bus.error_names import BusError
from mptcpd_dbus.bus.interface import Method
from mptcpd_dbus.bus.message import (
    CALL,
    DESTINATION,
    INTERFACE,
    MEMBER,
    NO_AUTO_START,
    NO_REPLY,
    PATH,
    SIGNATURE,
    finish,
    header,
)
from mptcpd_dbus.bus.names import (
    ANSWER_SECONDS,
    ASK_SECONDS,
    CALLS_CROWDED,
    CALLS_HELD,
    CALLS_PER_ANSWER,
    CALLS_UNANSWERED,
    DEAF_SECONDS,
)
from mptcpd_dbus.bus.policy import POLICY, RELEASED, Values
from mptcpd_dbus.bus.signatures import WireError
from mptcpd_dbus.bus.transport import SaidByTheBus, Transport
from mptcpd_dbus.bus.wire import encode

_DEAF = f"it does not read: {CALLS_UNANSWERED} calls were unanswered for {DEAF_SECONDS:g} s"
_MUTE = f"it does not answer: a call had no answer for {ANSWER_SECONDS:g} s"
_FULL = f"it does not read: {CALLS_HELD} calls were held back"
_NOT_THERE = {names.DISCONNECTED, names.UNKNOWN_INTERFACE, names.UNKNOWN_OBJECT}
_FLAGS_AT = 2  # of a message's header

_log = logging.getLogger(__name__)


class Program:
    """The program *name* that exports Policy at *path*.

    *queued* is called when there is something to `flush`, with its pictures; *end* hears why it
    decides no more, and whether that is because nobody reads.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        path: str,
        handlers: dict[str, tuple[Method, Callable[..., Values]]],
        *,
        queued: Callable[[tuple[Any, ...]], None],
        end: Callable[[str, bool], None],
    ) -> None:
        self.name = name
        self.path = path
        self._transport = transport
        self._handlers = handlers
        self._queued = queued
        self._end = end
        self._heads: dict[str, bytes] = {}
        self._untold: list[tuple[bytearray, int]] = []
        self._held: deque[tuple[bytearray, int]] = deque()
        self._loop = asyncio.get_running_loop()
        self._sent = 0
        self._answered = 0  # calls that were sent up to the last one that was answered
        self._asked = 0  # calls that were sent up to the last one that asks for an answer
        self._asked_at = float("-inf")
        self.is_asking = False
        """Whether an answer is to come, be it one that nobody wants any more."""
        self._deaf: asyncio.TimerHandle | None = None
        self._mute: asyncio.TimerHandle | None = None
        self._over = False
        self._room: asyncio.Future[None] | None = None

    def call(self, handler: str, arguments: tuple[Any, ...]) -> None:
        """Queue a call of a handler with the pictures that a plugin's would get."""
        if self._over:
            return
        method, values = self._handlers[handler]
        data = bytearray(self._head(method))
        body_at = len(data)
        try:
            encode(method.signature)(data, values(*arguments))
        except WireError:
            _log.exception("policy %s on the bus cannot be told %s", self.name, method.name)
            return
        self._untold.append((data, body_at))
        self._queued(arguments)

    async def room(self) -> None:
        """Wait until few calls are held back, or none will be sent any more."""
        while not self._over and len(self._held) + len(self._untold) > CALLS_CROWDED:
            if self._room is None:
                self._room = self._loop.create_future()
            await asyncio.shield(self._room)

    def release(self, why: str, *, deaf: bool = False) -> None:
        """Tell it that it decides no more, and let it go."""
        if self._over:
            return
        data = bytearray(self._head(RELEASED))
        body_at = len(data)
        encode(RELEASED.signature)(data, (why,))
        self._dispatch(data, body_at)
        self._end(why, deaf)

    def stop(self) -> None:
        """Send nothing any more."""
        self._over = True
        self._untold.clear()
        self._held.clear()
        self._unwatch()
        self._tell_room()

    def flush(self) -> None:
        """Send what is queued, as far as it is read."""
        untold, self._untold = self._untold, []
        if len(self._held) + len(untold) > CALLS_HELD:
            self._cut_off(_FULL)
            return
        self._held.extend(untold)
        self._go_on()

    def _go_on(self) -> None:
        while self._held and self._sent - self._answered < CALLS_UNANSWERED:
            self._send(*self._held.popleft())
        self._tell_room()
        if self._held and self._deaf is None:
            self._deaf = self._loop.call_later(DEAF_SECONDS, self._cut_off, _DEAF)

    def _tell_room(self) -> None:
        if self._room is not None and (self._over or len(self._held) <= CALLS_CROWDED):
            self._room.set_result(None)
            self._room = None

    def _send(self, data: bytearray, body_at: int) -> None:
        now = self._loop.time()
        self._sent += 1
        due = self._sent - self._asked >= CALLS_PER_ANSWER or now - self._asked_at > ASK_SECONDS
        if self.is_asking or not due:
            self._dispatch(data, body_at)
            return
        data[_FLAGS_AT] &= ~NO_REPLY
        self.is_asking = True
        self._asked, self._asked_at = self._sent, now
        self._mute = self._loop.call_later(ANSWER_SECONDS, self._cut_off, _MUTE)
        self._transport.send_call(data, body_at).add_done_callback(self._on_answer)

    def _on_answer(self, answer: "asyncio.Future[list[Any]]") -> None:
        error = None if answer.cancelled() else answer.exception()
        self.is_asking = False
        if self._over:
            return
        not_there = isinstance(error, BusError) and error.name in _NOT_THERE
        if not_there or isinstance(error, SaidByTheBus):
            self._cut_off(f"it cannot be called: {error}")
            return
        self._answered = self._asked
        self._unwatch()
        self._go_on()

    def _cut_off(self, why: str) -> None:
        self.release(why, deaf=True)

    def _dispatch(self, data: bytearray, body_at: int) -> None:
        finish(data, body_at, self._transport.next_serial())
        self._transport.send(data)

    def _unwatch(self) -> None:
        for timer in (self._deaf, self._mute):
            if timer is not None:
                timer.cancel()
        self._deaf = self._mute = None

    def _head(self, method: Method) -> bytes:
        """Give everything before the body, flagged as a call that wants no answer."""
        head = self._heads.get(method.name)
        if head is None:
            fields: list[tuple[bytes, str | int]] = [
                (PATH, self.path),
                (DESTINATION, self.name),
                (INTERFACE, POLICY.name),
                (MEMBER, method.name),
            ]
            if method.signature:
                fields.append((SIGNATURE, method.signature))
            head = bytes(header(CALL, fields, NO_REPLY | NO_AUTO_START))
            self._heads[method.name] = head
        return head

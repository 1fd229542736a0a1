"""One connection to a bus: its own reader and writer on a socket that dbus-next has authenticated.

dbus-next's reader and writer must not face a system bus: one legal header field disconnects
them, a 31 MiB message freezes them, EAGAIN kills them.  So dbus-next finds the bus, connects and
authenticates, and everything after is here, bounded.  Knows nothing of objects, callers or
authorisation.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import importlib.metadata
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from dbus_next import BusType
from dbus_next.aio import MessageBus

from mptcpd_dbus.bus import message as wire_message
from mptcpd_dbus.bus.error_names import DISCONNECTED, FAILED, LIMITS_EXCEEDED, BusError
from mptcpd_dbus.bus.message import (
    CALL,
    DESTINATION,
    ERROR,
    ERROR_NAME,
    HEAD_BYTES,
    INTERFACE,
    MEMBER,
    NO_REPLY,
    PATH,
    REPLY_SERIAL,
    RETURN,
    SIGNATURE,
    Head,
    Incoming,
)
from mptcpd_dbus.bus.names import (
    CALL_BYTES,
    MESSAGE_BYTES,
    OTHER_BYTES,
    QUEUE_BYTES,
    SLICE_SECONDS,
    STALL_SECONDS,
)
from mptcpd_dbus.bus.wire import WireError, encode

_log = logging.getLogger(__name__)

DBUS = "org.freedesktop.DBus"
DBUS_PATH = "/org/freedesktop/DBus"

_DBUS_NEXT = "0.2.3"
_CHUNK = 64 << 10  # one recv; the kernel's socket buffer is not much larger
_JOIN = 256 << 10  # what is joined into one send
_DO_NOT_QUEUE = 4
_PRIMARY_OWNER, _ALREADY_OWNER = 1, 4
_pack_text = encode("s")


def check_dbus_next() -> None:
    """Refuse to start on a dbus-next whose private parts we have not read."""
    version = importlib.metadata.version("dbus-next")
    if version != _DBUS_NEXT or not hasattr(MessageBus, "_authenticate"):
        raise RuntimeError(
            f"dbus-next {version} is installed; install dbus-next=={_DBUS_NEXT}, the only release "
            "whose private names mptcpd-dbus knows"
        )


class Transport:
    """A connection to the bus at *address*: "system", "session" or a D-Bus address."""

    def __init__(self, address: str) -> None:
        check_dbus_next()
        match address:
            case "system":
                bus = MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=False)
            case "session":
                bus = MessageBus(bus_type=BusType.SESSION, negotiate_unix_fd=False)
            case _:
                bus = MessageBus(bus_address=address, negotiate_unix_fd=False)
        self._bus = bus
        self._sock = bus._sock  # noqa: SLF001  the socket is private in dbus-next
        self._loop = asyncio.get_running_loop()
        self._serial = 0
        self._answers: dict[int, asyncio.Future[list[Any]]] = {}
        self._listeners: dict[tuple[str, str], list[Callable[[Incoming], None]]] = {}
        self._inbox = bytearray()
        self._skip = 0
        self._reading = False
        self._behind = False  # whole messages may be left in the inbox
        self._slicing: asyncio.Handle | None = None
        self._outbox: deque[bytes | bytearray | memoryview] = deque()
        self._queued = 0
        self._flushing = False
        self._dropping = False
        self._stalled: asyncio.TimerHandle | None = None
        self.unique_name = ""
        self.signals_dropped = 0
        self.disconnected: asyncio.Future[str] = self._loop.create_future()
        self.on_call: Callable[[Incoming], None] | None = None
        self.on_drained: Callable[[], None] | None = None
        self.on_name_lost: Callable[[str], None] | None = None

    # Connection and names

    async def connect(self) -> None:
        """Authenticate and say Hello; calls may come in from now on."""
        try:
            await self._bus._authenticate()  # noqa: SLF001  dbus-next offers no public way
        except BaseException:
            self._close("authentication failed")
            raise
        self.on_signal(DBUS, "NameLost", self._on_name_lost)
        self._resume_reading()
        (self.unique_name,) = await self.call(DBUS, DBUS_PATH, DBUS, "Hello")

    def disconnect(self) -> None:
        """Leave the bus after what is queued has been offered to the socket once."""
        if not self.disconnected.done():
            self._flush()
            self._close("closed")

    async def request_name(self, name: str) -> bool:
        """Own *name* now, or not at all: there is no waiting in a queue for it."""
        (answer,) = await self.call(DBUS, DBUS_PATH, DBUS, "RequestName", "su", name, _DO_NOT_QUEUE)
        return answer in (_PRIMARY_OWNER, _ALREADY_OWNER)

    def _on_name_lost(self, message: Incoming) -> None:
        if message.sender == DBUS and self.on_name_lost is not None:
            self.on_name_lost(message.values()[0])

    def _close(self, reason: str) -> None:
        if self.disconnected.done():
            return
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._unstall()
        if self._slicing is not None:
            self._slicing.cancel()
        self._bus._stream.close()  # noqa: SLF001  dbus-next opens it and never closes it
        self._sock.close()
        self._outbox.clear()
        self._queued = 0
        self.disconnected.set_result(reason)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(BusError(DISCONNECTED, reason))

    # What we send

    def next_serial(self) -> int:
        """Return the serial of the next message: never 0, and 32 bits wide."""
        self._serial = self._serial % 0xFFFFFFFF + 1
        return self._serial

    def send_bytes(self, data: bytes | bytearray, *, droppable: bool) -> None:
        """Queue a message; a signal that does not fit is dropped, and so is all up to the drain.

        One gap is better than many: who is told of it looks again once.
        """
        if droppable and (self._dropping or self._queued + len(data) > QUEUE_BYTES):
            self.signals_dropped += 1
            self._dropping = True
            return
        if self.disconnected.done():
            return
        self._outbox.append(data)
        self._queued += len(data)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self.disconnected.done():
            return
        try:
            while self._outbox:
                data = self._next_to_send()
                sent = self._sock.send(data)
                self._queued -= sent
                self._unstall()
                if sent < len(data):
                    self._outbox.appendleft(memoryview(data)[sent:])
        except (BlockingIOError, InterruptedError):
            self._outbox.appendleft(data)
            self._loop.add_writer(self._sock, self._flush)
            if self._stalled is None:
                reason = f"the bus has taken nothing for {STALL_SECONDS:g} s"
                self._stalled = self._loop.call_later(STALL_SECONDS, self._close, reason)
            return
        except OSError as error:
            self._close(f"the bus is gone: {error}")
            return
        self._loop.remove_writer(self._sock)
        self._flushing = False
        self._resume_reading()
        if self._dropping:
            self._dropping = False
            if self.on_drained is not None:
                self.on_drained()

    def _unstall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _next_to_send(self) -> bytes | bytearray | memoryview:
        """Take the messages that go into one send; a large one goes as it is."""
        first = self._outbox.popleft()
        if len(first) >= _JOIN or not self._outbox:
            return first
        parts = [first]
        size = len(first)
        while self._outbox and size + len(self._outbox[0]) <= _JOIN:
            parts.append(self._outbox.popleft())
            size += len(parts[-1])
        return b"".join(parts)

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        *body: Any,
        timeout: float = 25,  # noqa: ASYNC109  the caller's words; D-Bus' own default
        flags: int = 0,
    ) -> list[Any]:
        """Call a method and return the values of its answer; with NO_REPLY, nothing at once.

        Raises BusError with the name of the remote error, TimeoutError, or BusError(Disconnected).
        """
        if self.disconnected.done():
            raise BusError(DISCONNECTED, "not connected to the bus")
        fields: list[tuple[bytes, str | int]] = [
            (PATH, path),
            (DESTINATION, destination),
            (INTERFACE, interface),
            (MEMBER, member),
        ]
        if signature:
            fields.append((SIGNATURE, signature))
        data = wire_message.header(CALL, fields, flags)
        body_at = len(data)
        encode(signature)(data, body)
        serial = self.next_serial()
        wire_message.finish(data, body_at, serial)
        if flags & NO_REPLY:
            self.send_bytes(data, droppable=False)
            return []
        answer: asyncio.Future[list[Any]] = self._loop.create_future()
        self._answers[serial] = answer
        try:
            self.send_bytes(data, droppable=False)
            async with asyncio.timeout(timeout):
                return await answer
        finally:
            del self._answers[serial]

    def reply(self, call: Incoming, signature: str, body: bytes | bytearray) -> int:
        """Answer *call* with a packed body; returns the size of what was sent."""
        if call.flags & NO_REPLY:
            return 0
        fields: list[tuple[bytes, str | int]] = [
            (REPLY_SERIAL, call.serial),
            (DESTINATION, call.sender),
        ]
        if signature:
            fields.append((SIGNATURE, signature))
        data = wire_message.header(RETURN, fields)
        if len(data) + len(body) > MESSAGE_BYTES:
            return self.reply_error(call, LIMITS_EXCEEDED, "the answer is too large for the bus")
        body_at = len(data)
        data += body
        self.send_bytes(wire_message.finish(data, body_at, self.next_serial()), droppable=False)
        return len(data)

    def reply_error(self, call: Incoming, name: str, text: str) -> int:
        """Answer *call* with an error; the text becomes one line that the bus accepts."""
        if call.flags & NO_REPLY:
            return 0
        line = " ".join(text.replace("\0", " ").split())[:1000]
        data = wire_message.header(
            ERROR,
            [
                (REPLY_SERIAL, call.serial),
                (DESTINATION, call.sender),
                (ERROR_NAME, name),
                (SIGNATURE, "s"),
            ],
        )
        body_at = len(data)
        _pack_text(data, (line.encode(errors="replace").decode(),))
        self.send_bytes(wire_message.finish(data, body_at, self.next_serial()), droppable=False)
        return len(data)

    # What we receive

    def on_signal(self, interface: str, member: str, handler: Callable[[Incoming], None]) -> None:
        """Hand signals of this name to *handler*, which looks at the sender: anybody may send one.

        The match rule is the caller's to add, for only the caller knows how narrow it can be.
        """
        self._listeners.setdefault((interface, member), []).append(handler)

    def _resume_reading(self) -> None:
        """Go on where we stopped, first in the buffer, unless our own answers pile up."""
        if self._slicing is not None or self._queued > QUEUE_BYTES:
            return
        if self._behind:
            self._slicing = self._loop.call_soon(self._take_messages)
        elif not self._reading:
            self._reading = True
            self._loop.add_reader(self._sock, self._receive)

    def _receive(self) -> None:
        """Read once, and look at it; asyncio calls again when the others have had their turn."""
        try:
            data = self._sock.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._close(f"the bus is gone: {error}")
            return
        if not data:
            self._close("the bus closed the connection")
            return
        self._inbox += data
        self._take_messages()

    def _take_messages(self) -> None:
        """Handle whole messages for one slice of time; the rest waits for the next turn."""
        self._slicing = None
        until = time.monotonic() + SLICE_SECONDS
        at = 0
        try:
            while (stop := self._take_one(at)) is not None:
                at = stop
                if time.monotonic() > until or self._queued > QUEUE_BYTES:
                    break
        except WireError as error:
            self._close(f"the bus sent what is no message: {error}")
            return
        if self.disconnected.done():
            return
        del self._inbox[:at]
        self._behind = stop is not None
        if self._behind and self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock)
        self._resume_reading()

    def _take_one(self, at: int) -> int | None:
        """Handle the message that begins at *at*; returns its end, None where it is not whole."""
        available = len(self._inbox) - at
        if self._skip:
            step = min(self._skip, available)
            self._skip -= step
            return at + step if step else None
        if available < HEAD_BYTES:
            return None
        head = wire_message.read_head(self._inbox, at)
        limit = CALL_BYTES if head.kind == CALL else OTHER_BYTES
        if head.body_at > limit:  # not even its sender can be read
            self._skip = head.total
            return at
        if head.total > limit:
            if available < head.body_at:
                return None
            self._skip = head.total - head.body_at
            self._refuse(head, bytes(self._inbox[at : at + head.body_at]))
            return at + head.body_at
        if available < head.total:
            return None
        self._handle(head, bytes(self._inbox[at : at + head.total]))
        return at + head.total

    def _refuse(self, head: Head, data: bytes) -> None:
        try:
            message = wire_message.parse(head, data)
        except WireError:
            return
        if head.kind == CALL:
            self.reply_error(message, LIMITS_EXCEEDED, f"a call may have {CALL_BYTES} bytes")
        else:
            self._answer(message, BusError(LIMITS_EXCEEDED, f"more than {OTHER_BYTES} bytes"))

    def _handle(self, head: Head, data: bytes) -> None:
        try:
            message = wire_message.parse(head, data)
        except WireError as error:
            _log.debug("a malformed message was ignored: %s", error)
            return
        match message.kind:
            case wire_message.CALL:
                if self.on_call is not None and message.sender:
                    self.on_call(message)
            case wire_message.SIGNAL:
                for handler in self._listeners.get((message.interface, message.member), ()):
                    try:
                        handler(message)
                    except WireError as error:
                        _log.debug("a malformed signal was ignored: %s", error)
            case wire_message.RETURN:
                self._answer(message, None)
            case wire_message.ERROR:
                self._answer(message, _remote_error(message))
            case _:
                pass  # other kinds must be ignored, says the specification

    def _answer(self, message: Incoming, error: BusError | None) -> None:
        answer = self._answers.get(message.reply_serial)
        if answer is None or answer.done():
            return
        if error is not None:
            answer.set_exception(error)
            return
        try:
            answer.set_result(message.values())
        except WireError as malformed:
            answer.set_exception(BusError(FAILED, str(malformed)))


def _remote_error(message: Incoming) -> BusError:
    try:
        values = message.values()
    except WireError:
        values = []
    text = values[0] if values and isinstance(values[0], str) else ""
    return BusError(message.error_name, text)

"""The byte stream to the bus: whole messages in, slice by slice of time; messages out, bounded.

Knows heads of messages and how long they are, not what they say.  What it survives and dbus-next
does not: EAGAIN, a message of 31 MiB, a flood, a bus that takes nothing any more.

Descriptors come with the first byte of their message, and one recv ends with the piece of a message
that brought some (unix(7), "ancillary data forms a barrier").  So those of a recv belong to the
message that its last byte is of, whatever that one or those before it say of themselves.
"""
# SPDX-License-Identifier: BSD-3-Clause

import array
import asyncio
import errno
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from mptcpd_dbus.bus.budget import Budget
from mptcpd_dbus.bus.descriptors import Descriptors
from mptcpd_dbus.bus.message import CALL, HEAD_BYTES, Head, read_head
from mptcpd_dbus.bus.names import (
    CALL_BYTES,
    CLOSING_SECONDS,
    OTHER_BYTES,
    QUEUE_BYTES,
    SLICE_SECONDS,
    STALL_SECONDS,
)
from mptcpd_dbus.bus.signatures import WireError

_CHUNK = 64 << 10  # one recv; a socket buffer does not hold much more
_ANCILLARY = socket.CMSG_SPACE(253 * 4)  # SCM_MAX_FD, unix(7): what one recv can bring
_JOIN = 256 << 10  # what is joined into one send
# No room, or no memory: neither says that the bus is gone.  EINTR is Python's to try again.
_FOR_NOW = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)


class Stream:
    """Reads and writes *sock*, which is connected, authenticated and does not block.

    *on_message* gets every message and the descriptors that it brought, which are its to close;
    *on_oversize* gets the head and header of one that is too large; *on_dropped* is called when
    signals were dropped and can be sent again, so that it can be told.
    """

    def __init__(
        self,
        sock: socket.socket,
        descriptors: Descriptors,
        on_message: Callable[[Head, bytes, list[int]], None],
        on_oversize: Callable[[Head, bytes], None],
        on_dropped: Callable[[], None],
        *,
        other_bytes: int = OTHER_BYTES,
        signal_budget: int = 0,
    ) -> None:
        self._sock = sock
        self._other_bytes = other_bytes
        self._descriptors = descriptors
        self._on_message = on_message
        self._on_oversize = on_oversize
        self._on_dropped = on_dropped
        self._budget = Budget(signal_budget, self._tell_dropped)
        self._loop = asyncio.get_running_loop()
        self._inbox = bytearray()
        self._taken = 0  # bytes that went through the inbox
        self._came: deque[tuple[int, int]] = deque()  # descriptors, and where their recv ended
        self._skip = 0  # what is left of a message that is too large
        self._reading = False
        self._behind = False  # whole messages may be left in the inbox
        self._slicing: asyncio.Handle | None = None
        self._room: asyncio.Future[None] | None = None
        self._outbox: deque[bytes | bytearray | memoryview] = deque()
        self._flushing = False
        self._dropping = False
        self._stalled: asyncio.TimerHandle | None = None
        self.queued = 0
        self.signals_dropped = 0
        self.closed: asyncio.Future[str] = self._loop.create_future()

    def close(self, reason: str) -> None:
        """Offer what is queued to the socket once, and close it."""
        if not self.closed.done():
            self._flush()
            self._close(reason)

    def _close(self, reason: str) -> None:
        if self.closed.done():
            return
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._unstall()
        self._budget.stop()
        if self._slicing is not None:
            self._slicing.cancel()
        with suppress(OSError):  # the bus may be gone
            self._sock.shutdown(socket.SHUT_RDWR)
        self._came.append((0, self._sock.detach()))  # in its queue there may be others
        self._descriptors.took(1)
        self._descriptors.close(descriptor for _, descriptor in self._came)
        self._descriptors.work()  # the loop may end
        self._came.clear()
        self._outbox.clear()
        self.queued = 0
        self._tell_room()
        self.closed.set_result(reason)

    # Out

    def send(self, *parts: bytes | bytearray) -> None:
        """Queue a message, which is never dropped: an answer, or a call."""
        if self.closed.done():
            return
        self._outbox.extend(parts)
        self.queued += sum(map(len, parts))
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def send_signals(self, signals: Sequence[bytes | bytearray]) -> None:
        """Queue signals, or drop them: over the budget, or from a full queue on until it is empty.

        One gap is better than many: who is told of it looks again once.
        """
        covered = self._budget.covers(len(signals))
        data = b"".join(signals)
        if not covered or self._dropping or self.queued + len(data) > QUEUE_BYTES:
            self.signals_dropped += len(signals)
            self._dropping |= covered
            return
        self.send(data)

    def _tell_dropped(self) -> None:
        if not self._dropping:  # else it is told when the queue is empty
            self._on_dropped()

    async def taken(self) -> None:
        """Wait until no more is queued than goes into one send."""
        while self.queued > _JOIN:
            if self._room is None:
                self._room = self._loop.create_future()
            await asyncio.shield(self._room)

    def _tell_room(self) -> None:
        if self._room is not None and self.queued <= _JOIN:
            self._room.set_result(None)
            self._room = None

    def _flush(self) -> None:
        if self.closed.done():
            return
        until = time.monotonic() + SLICE_SECONDS
        try:
            while self._outbox:
                data = self._next_to_send()
                # A bus that reads as fast as we write would keep us here for a whole large answer.
                sent = self._sock.send(memoryview(data)[:_JOIN])
                self.queued -= sent
                self._tell_room()
                self._unstall()
                if sent < len(data):
                    self._outbox.appendleft(memoryview(data)[sent:])
                if self._outbox and time.monotonic() > until:
                    self._loop.add_writer(self._sock, self._flush)
                    return
        except OSError as error:
            if error.errno not in _FOR_NOW:
                self._close(f"the bus is gone: {error}")
                return
            self._outbox.appendleft(data)
            self._wait_for_room()
            return
        self._loop.remove_writer(self._sock)
        self._flushing = False
        self.resume_reading()
        if self._dropping:
            self._dropping = False
            self._on_dropped()

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

    def _wait_for_room(self) -> None:
        self._loop.add_writer(self._sock, self._flush)
        if self._stalled is None:
            reason = f"the bus has taken nothing for {STALL_SECONDS:g} s"
            self._stalled = self._loop.call_later(STALL_SECONDS, self._close, reason)

    def _unstall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    # In

    def resume_reading(self) -> None:
        """Go on where we stopped, first in the buffer, unless our own answers pile up."""
        if self.closed.done() or self._slicing is not None or self.queued > QUEUE_BYTES:
            return
        if self._behind:
            self._slicing = self._loop.call_soon(self._take_messages)
        elif not self._reading:
            self._reading = True
            self._loop.add_reader(self._sock, self._receive)

    def _receive(self) -> None:
        """Read once, and look at it; asyncio calls again when the others have had their turn."""
        if self._descriptors.crowded:
            self._reading = False
            self._loop.remove_reader(self._sock)
            self._loop.call_later(CLOSING_SECONDS, self.resume_reading)
            return
        try:
            # Room for all: what finds none the kernel would close here, and we would wait.
            data, ancillary, _, _ = self._sock.recvmsg(_CHUNK, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            if error.errno not in _FOR_NOW:
                self._close(f"the bus is gone: {error}")
            return
        self._inbox += data
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._keep(content)
        if not data:
            self._close("the bus closed the connection")
            return
        self._take_messages()

    def _keep(self, content: bytes) -> None:
        """Keep descriptors for their message."""
        descriptors = array.array("i")
        descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
        self._descriptors.took(len(descriptors))
        end = self._taken + len(self._inbox)
        self._came.extend((end, descriptor) for descriptor in descriptors)

    def _brought(self, end: int) -> list[int]:
        """Give the descriptors of the message that ends at *end* of the inbox."""
        brought = []
        while self._came and self._came[0][0] <= self._taken + end:
            brought.append(self._came.popleft()[1])
        return brought

    def _take_messages(self) -> None:
        """Handle whole messages for one slice of time; the rest waits for the next turn."""
        self._slicing = None
        until = time.monotonic() + SLICE_SECONDS
        at = 0
        try:
            while (stop := self._take_one(at)) is not None:
                at = stop
                if time.monotonic() > until or self.queued > QUEUE_BYTES:
                    break
        except WireError as error:
            self._close(f"the bus sent what is no message: {error}")
        if self.closed.done():
            return
        del self._inbox[:at]
        self._taken += at
        self._behind = stop is not None
        if self._behind and self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock)
        self.resume_reading()

    def _take_one(self, at: int) -> int | None:
        """Handle the message that begins at *at*; returns its end, None where it is not whole."""
        available = len(self._inbox) - at
        if self._skip:
            step = min(self._skip, available)
            self._skip -= step
            self._descriptors.close(self._brought(at + step))
            return at + step if step else None
        if available < HEAD_BYTES:
            return None
        head = read_head(self._inbox, at)
        limit = CALL_BYTES if head.kind == CALL else self._other_bytes
        if head.body_at > limit:  # not even its sender can be read
            self._skip = head.total
            return at
        if head.total > limit:
            if available < head.body_at:
                return None
            self._skip = head.total - head.body_at
            self._on_oversize(head, bytes(self._inbox[at : at + head.body_at]))
            return at + head.body_at
        if available < head.total:
            return None
        end = at + head.total
        self._on_message(head, bytes(self._inbox[at:end]), self._brought(end))
        return end

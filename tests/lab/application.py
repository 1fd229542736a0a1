"""An application that uses Multipath TCP: a process that does what it is told on its socket.

A line of JSON comes in on descriptor 0, {"op": name, ...arguments}; one goes back on the same
descriptor, {"ok": result} or {"error": text}.  Sockets go by small numbers.  Only the standard
library, and nothing of ours: a stranger to the daemon.  Sources: socket(7), <linux/mptcp.h>.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import contextlib
import errno
import json
import os
import resource
import socket
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

IPPROTO_MPTCP = 262
SOL_MPTCP, MPTCP_INFO = 284, 1
TOKEN = struct.Struct("=12xI")  # struct mptcp_info: eight bytes, u32 flags, u32 token
NOT_MPTCP = (errno.EOPNOTSUPP, errno.ENOPROTOOPT)
LIMIT = 10.0  # seconds for each operation
PORTION = bytes(65536)
TICK = 0.002  # seconds between two looks of a process at whether it runs at all
SHORTEST = 0.001  # seconds of silence that are worth remembering
REMEMBERED = 100_000  # silences


def _memory() -> deque[tuple[float, float]]:
    return deque(maxlen=REMEMBERED)


@dataclass
class Conversation:
    """A connected socket and what runs on it in the background."""

    socket: socket.socket
    sent: int = 0
    received: int = 0
    pause: float = 0.0
    last: float = 0.0
    silences: deque[tuple[float, float]] = field(default_factory=_memory)
    sender: asyncio.Task[None] | None = None
    reader: asyncio.Task[None] | None = None

    def arrived(self, count: int) -> None:
        """Note that bytes have come just now, and how long none had."""
        now = time.monotonic()
        self.pause = max(self.pause, now - self.last)
        if now - self.last >= SHORTEST:
            self.silences.append((self.last, now))
        self.last = now
        self.received += count

    def quiet(self) -> None:
        """Stop what runs in the background."""
        for task in (self.sender, self.reader):
            if task:
                task.cancel()
        self.sender = self.reader = None


@dataclass
class Application:
    """The operations, each a coroutine by the name that a request gives."""

    loop: asyncio.AbstractEventLoop
    sockets: dict[int, socket.socket] = field(default_factory=dict)
    talks: dict[int, Conversation] = field(default_factory=dict)
    number: int = 0
    late: deque[tuple[float, float]] = field(default_factory=_memory)
    ticker: asyncio.Task[None] | None = None

    async def listen(self, address: str, port: int = 0, *, mptcp: bool = True) -> tuple[int, int]:
        """Listen, and return the listener and its port."""
        listener = _socket(address, mptcp=mptcp)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address != "::")
        listener.bind((address, port))
        listener.listen(16384)
        self.number += 1
        self.sockets[self.number] = listener
        return self.number, listener.getsockname()[1]

    async def connect(
        self,
        address: str,
        port: int,
        *,
        source: str | None = None,
        device: str | None = None,
        mptcp: bool = True,
    ) -> tuple[int, int]:
        """Connect, and return the conversation and its local port."""
        talker = _socket(address, mptcp=mptcp)
        if device:
            talker.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        if source:
            talker.bind((source, 0))
        if talker.connect_ex((address, port)) == errno.EINPROGRESS:
            connected = asyncio.Event()
            self.loop.add_writer(talker, connected.set)
            try:
                await connected.wait()
            finally:
                self.loop.remove_writer(talker)
        failure = talker.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            talker.close()
            raise OSError(failure, os.strerror(failure))
        return self._adopt(talker), talker.getsockname()[1]

    async def connect_many(self, count: int, address: str, port: int) -> list[int]:
        """Connect count times, one after the other."""
        return [(await self.connect(address, port))[0] for _ in range(count)]

    async def accept(self, listener: int) -> int:
        """Accept one connection."""
        talker, _ = await self.loop.sock_accept(self.sockets[listener])
        return self._adopt(talker)

    async def accept_many(self, listener: int, count: int) -> list[int]:
        """Accept count connections."""
        return [await self.accept(listener) for _ in range(count)]

    async def send(self, talk: int, count: int = 1) -> None:
        """Send that many bytes."""
        conversation = self.talks[talk]
        await self.loop.sock_sendall(conversation.socket, bytes(count))
        conversation.sent += count

    async def recv(self, talk: int, count: int = 1) -> int:
        """Receive that many bytes, or fewer when the other side has finished."""
        conversation, received = self.talks[talk], 0
        while received < count:
            data = await self.loop.sock_recv(conversation.socket, min(count - received, 65536))
            if not data:
                break
            received += len(data)
        conversation.received += received
        return received

    async def send_each(self, talks: list[int]) -> None:
        """Send one byte on each conversation."""
        for talk in talks:
            await self.send(talk)

    async def recv_each(self, talks: list[int]) -> None:
        """Receive one byte on each conversation."""
        for talk in talks:
            await self.recv(talk)

    async def stream(self, talk: int) -> None:
        """Send without end in the background."""
        self.talks[talk].sender = self.loop.create_task(self._stream(self.talks[talk]))

    async def drain(self, talk: int) -> None:
        """Read without end in the background."""
        self.talks[talk].last = time.monotonic()
        self.talks[talk].reader = self.loop.create_task(self._drain(self.talks[talk]))

    async def push(self, talk: int, size: int, every: float) -> None:
        """Send a message of that size every so many seconds in the background."""
        self.talks[talk].sender = self.loop.create_task(self._push(self.talks[talk], size, every))

    async def ping(self, talk: int, size: int) -> None:
        """Send a message and read one of that size, back to back in the background."""
        self.talks[talk].last = time.monotonic()
        self.talks[talk].reader = self.loop.create_task(self._ping(self.talks[talk], size))

    async def pong(self, talk: int) -> None:
        """Send back what comes, in the background."""
        self.talks[talk].reader = self.loop.create_task(self._pong(self.talks[talk]))

    async def silent(self, talk: int) -> None:
        """Neither read nor send any more, but keep the socket."""
        self.talks[talk].quiet()

    async def progress(self, talk: int) -> dict[str, float]:
        """Return the bytes sent and received, and the longest pause in receiving since last asked.

        The pause, in seconds, counts the one that still goes on.
        """
        conversation = self.talks[talk]
        pause = max(conversation.pause, time.monotonic() - conversation.last)
        conversation.pause = 0.0
        return {"sent": conversation.sent, "received": conversation.received, "pause": pause}

    async def silence(
        self, talk: int, since: float, until: float | None = None
    ) -> tuple[float, float]:
        """Return when the longest time without an arrival since a moment began and ended.

        Moments are those of the monotonic clock, which all processes of the machine share.  What
        began before the moment begins with it, what still goes on ends now, and what begins after
        *until* does not count.
        """
        conversation, now = self.talks[talk], time.monotonic()
        begins_by = now if until is None else until
        found = [
            (max(begun, since), ended)
            for begun, ended in (*conversation.silences, (conversation.last, now))
            if ended > since and begun <= begins_by
        ]
        # None is found between arrivals that came in close succession.
        return max(found, key=lambda silence: silence[1] - silence[0], default=(since, since))

    async def tick(self) -> None:
        """Remember from now on when this process was kept from running."""
        if self.ticker is None:
            self.ticker = self.loop.create_task(self._tick())

    async def kept(self, since: float, until: float) -> float:
        """Return for how many seconds between two moments this process was kept from running."""
        overlaps = (min(ended, until) - max(begun, since) for begun, ended in self.late)
        return sum(overlap for overlap in overlaps if overlap > 0)

    async def token(self, talk: int) -> int | None:
        """Return the token of a Multipath TCP connection; None if it fell back to TCP."""
        try:
            data = self.talks[talk].socket.getsockopt(SOL_MPTCP, MPTCP_INFO, TOKEN.size)
        except OSError as error:
            if error.errno in NOT_MPTCP:
                return None
            raise
        return int(TOKEN.unpack(data)[0])

    async def shutdown(self, talk: int) -> None:
        """Say that nothing more will be sent."""
        self.talks[talk].socket.shutdown(socket.SHUT_WR)

    async def close(self, number: int) -> None:
        """Close a conversation or a listener."""
        talk = self.talks.pop(number, None)
        if talk:
            talk.quiet()
        (talk.socket if talk else self.sockets.pop(number)).close()

    async def close_all(self) -> None:
        """Close every conversation and every listener."""
        for number in [*self.talks, *self.sockets]:
            await self.close(number)

    async def abort(self, talk: int) -> None:
        """Close a conversation with a reset; Multipath TCP sends MP_FASTCLOSE."""
        lingering = struct.pack("ii", 1, 0)
        self.talks[talk].socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingering)
        await self.close(talk)

    async def echo(self, listener: int) -> None:
        """Accept in the background and send back what comes, until the other side closes."""

        async def serve() -> None:
            while True:
                talk = await self.accept(listener)
                tasks.add(task := self.loop.create_task(answer(talk)))
                task.add_done_callback(tasks.discard)

        async def answer(talk: int) -> None:
            with contextlib.suppress(OSError):
                while await self.recv(talk):
                    await self.send(talk)
            await self.close(talk)

        tasks: set[asyncio.Task[None]] = set()
        tasks.add(self.loop.create_task(serve()))

    async def churn(self, count: int, address: str, port: int, rate: float = 0) -> None:
        """Open a connection to an echo, exchange a byte and close it, count times in a row.

        With a rate, so many times a second if it can.
        """
        began = self.loop.time()
        for number in range(count):
            if rate:
                await asyncio.sleep(began + number / rate - self.loop.time())
            talk, _port = await self.connect(address, port)
            await self.send(talk)
            await self.recv(talk)
            await self.close(talk)

    async def meet(self, count: int, address: str, port: int, rate: float) -> list[int]:
        """Open connections to an echo, so many a second, and exchange a byte on each."""
        began, talks = self.loop.time(), []
        for number in range(count):
            await asyncio.sleep(began + number / rate - self.loop.time())
            talk, _port = await self.connect(address, port)
            await self.send(talk)
            await self.recv(talk)
            talks.append(talk)
        return talks

    def _adopt(self, talker: socket.socket) -> int:
        talker.setblocking(False)
        self.number += 1
        self.talks[self.number] = Conversation(talker)
        return self.number

    async def _stream(self, conversation: Conversation) -> None:
        with contextlib.suppress(OSError):  # the other side has gone: progress tells
            while True:
                await self.loop.sock_sendall(conversation.socket, PORTION)
                conversation.sent += len(PORTION)

    async def _drain(self, conversation: Conversation) -> None:
        with contextlib.suppress(OSError):
            while data := await self.loop.sock_recv(conversation.socket, len(PORTION)):
                conversation.arrived(len(data))

    async def _push(self, conversation: Conversation, size: int, every: float) -> None:
        message, due = bytes(size), self.loop.time()
        with contextlib.suppress(OSError):
            while True:
                await self.loop.sock_sendall(conversation.socket, message)
                conversation.sent += size
                due += every
                await asyncio.sleep(due - self.loop.time())

    async def _ping(self, conversation: Conversation, size: int) -> None:
        message = bytes(size)
        with contextlib.suppress(OSError):
            while True:
                await self.loop.sock_sendall(conversation.socket, message)
                conversation.sent += size
                missing = size
                while missing:
                    data = await self.loop.sock_recv(conversation.socket, missing)
                    if not data:
                        return
                    conversation.arrived(len(data))
                    missing -= len(data)

    async def _pong(self, conversation: Conversation) -> None:
        with contextlib.suppress(OSError):
            while data := await self.loop.sock_recv(conversation.socket, len(PORTION)):
                conversation.received += len(data)
                await self.loop.sock_sendall(conversation.socket, data)
                conversation.sent += len(data)

    async def _tick(self) -> None:
        """Look whether a sleep of TICK takes TICK; the rest this process was kept from running.

        Others had the processor, or the machine itself stood still.
        """
        while True:
            due = time.monotonic() + TICK
            await asyncio.sleep(TICK)
            now = time.monotonic()
            if now - due >= SHORTEST:
                self.late.append((due, now))


def _socket(address: str, *, mptcp: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM, IPPROTO_MPTCP if mptcp else 0)
    made.setblocking(False)
    return made


async def main(kind: type[Application] = Application) -> None:
    """Obey until the other end of descriptor 0 is closed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    loop = asyncio.get_running_loop()
    control = socket.socket(fileno=0)
    control.setblocking(False)
    application = kind(loop)
    buffer = bytearray()
    while data := await loop.sock_recv(control, len(PORTION)):
        buffer += data
        while b"\n" in buffer:
            line, _, rest = bytes(buffer).partition(b"\n")
            buffer[:] = rest
            answer = await _obey(application, json.loads(line))
            await loop.sock_sendall(control, json.dumps(answer).encode() + b"\n")


async def _obey(application: Application, request: dict[str, Any]) -> dict[str, Any]:
    operation: Callable[..., Awaitable[Any]] = getattr(application, request.pop("op"))
    limit = request.pop("limit", LIMIT)
    try:
        async with asyncio.timeout(limit):
            return {"ok": await operation(**request)}
    except (OSError, KeyError, TypeError) as error:  # TimeoutError is an OSError
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    asyncio.run(main())

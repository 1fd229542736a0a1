"""System calls of the stream to the bus fail: nothing is lost or said twice, or it is closed."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from mptcpd_dbus.bus import message
from mptcpd_dbus.bus.descriptors import Descriptors
from mptcpd_dbus.bus.message import Head
from mptcpd_dbus.bus.stream import Stream
from tests.lab.wait import eventually

PASSING = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)
FINAL = (errno.EPIPE, errno.ECONNRESET, errno.EBADF, errno.EPERM)
COUNT = 20


class Failing(socket.socket):
    """A socket whose calls fail in turn, or are short: an errno, a number of bytes, or None."""

    def plan(self, call: str, *outcomes: int | None) -> None:
        """Have *call* fail so, each time and then no more."""
        self.call, self.outcomes = call, deque(outcomes)

    def _fail(self, call: str) -> None:
        if call == self.call and self.outcomes:
            code = self.outcomes.popleft()
            if code:
                raise OSError(code, os.strerror(code))

    def send(self, data: Any, flags: int = 0) -> int:
        """Send some, or fail."""
        self._fail("send")
        return super().send(data[:7] if self.call == "short" else data, flags)

    def recvmsg(self, size: int, ancillary: int = 0, flags: int = 0) -> Any:
        """Read some, or fail."""
        self._fail("recvmsg")
        return super().recvmsg(7 if self.call == "short" else size, ancillary, flags)


class Talk:
    """A stream, what it has read, and the other end."""

    def __init__(self) -> None:
        ours, self.bus = socket.socketpair()
        self.bus.setblocking(False)
        self.sock = Failing(fileno=ours.detach())
        self.sock.setblocking(False)
        self.sock.plan("none")
        self.read: list[bytes] = []
        self.stream = Stream(self.sock, Descriptors(), self._take, self._refuse, lambda: None)
        self.stream.resume_reading()

    def _take(self, _: Head, data: bytes, descriptors: list[int]) -> None:
        assert not descriptors
        self.read.append(data)

    def _refuse(self, _: Head, data: bytes) -> None:
        raise AssertionError(data)

    async def both_ways(self) -> None:
        """Send and read messages, each once and in order."""
        messages = [_message(number) for number in range(1, COUNT)]
        heard = bytearray()
        for data in messages:
            self.stream.send(data)
            self.bus.send(data)
            await asyncio.sleep(0)

        def arrived() -> bool:
            assert not self.stream.closed.done(), self.stream.closed.result()
            with suppress(BlockingIOError):
                heard.extend(self.bus.recv(1 << 16))
            return bytes(heard) == b"".join(messages) and self.read == messages

        await eventually(arrived)


def _message(serial: int) -> bytes:
    data = message.header(message.SIGNAL, [(message.PATH, "/a"), (message.SENDER, ":1.7")])
    return bytes(message.finish(data, len(data), serial))


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    made = Talk()
    yield made
    made.stream.close("the end")
    made.bus.close()


@pytest.mark.parametrize("code", PASSING, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["send", "recvmsg"])
async def test_what_fails_for_now_is_tried_again(call: str, code: int, talk: Talk) -> None:
    talk.sock.plan(call, *(code, None) * 3, code, code)

    await talk.both_ways()

    assert not talk.sock.outcomes


async def test_what_is_done_in_part_is_gone_on_with(talk: Talk) -> None:
    talk.sock.plan("short")

    await talk.both_ways()


@pytest.mark.parametrize("code", FINAL, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["send", "recvmsg"])
async def test_what_fails_for_good_closes_the_stream_and_says_why(
    call: str, code: int, talk: Talk
) -> None:
    talk.sock.plan(call, None, code)

    with pytest.raises((AssertionError, OSError)):
        await talk.both_ways()

    assert os.strerror(code) in await talk.stream.closed
    assert talk.sock.fileno() == -1

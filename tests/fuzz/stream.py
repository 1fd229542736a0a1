"""Fuzz target: bytes from the bus in pieces, some with a descriptor, beside a reader of the whole.

The first byte says how long a piece is, the second which of them bring a descriptor.
"""
# SPDX-License-Identifier: BSD-3-Clause

import array
import asyncio
import os
import socket
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from mptcpd_dbus.bus import message
from mptcpd_dbus.bus.descriptors import Descriptors
from mptcpd_dbus.bus.message import HEAD_BYTES, Head, read_head
from mptcpd_dbus.bus.names import CALL_BYTES
from mptcpd_dbus.bus.signatures import WireError
from mptcpd_dbus.bus.stream import Stream

LENGTH = 2048

OTHER_BYTES = 512  # with the real bound no input would be beyond it


class Got(NamedTuple):
    """A message, or the head and header of one that is too large."""

    data: bytes
    descriptors: int = 0
    oversize: bool = False


class _Closed(Descriptors):
    """Closes at once; that others take their time over it is tested elsewhere."""

    def close(self, descriptors: Iterable[int]) -> None:
        for descriptor in descriptors:
            os.close(descriptor)
            self.held -= 1

    def work(self) -> None:
        pass


def seeds() -> Iterator[bytes]:
    """Give small and large messages, a large claim, and what is none, in pieces of all sizes."""
    small = _message(message.SIGNAL, 3)
    large = _message(message.RETURN, 600)
    claim = bytearray(_message(message.CALL, 0))
    claim[4:8] = (CALL_BYTES + 1).to_bytes(4, "little")
    for size in (0, 16, 100, 255):
        for parts in ((small, small), (small, large, small), (small, bytes(claim)), (small, b"x")):
            yield bytes([size, 0b101]) + b"".join(parts)


def _message(kind: int, body: int) -> bytes:
    data = message.header(kind, [(message.PATH, "/a"), (message.SENDER, ":1.7")])
    body_at = len(data)
    data += bytes(body)
    return bytes(message.finish(data, body_at, 5))


def check(data: bytes) -> None:
    """Compare what a stream makes of the pieces with what is in the whole."""
    if len(data) < 2:
        return
    size, mask, whole = data[0] + 1, data[1], data[2:]
    pieces = [
        (whole[at : at + size], bool(mask >> (number % 8) & 1))
        for number, at in enumerate(range(0, len(whole), size))
    ]
    ends = [
        min((number + 1) * size, len(whole)) for number, (_, brings) in enumerate(pieces) if brings
    ]
    got, reason = _loop().run_until_complete(_stream(pieces))
    wanted, good = _reader(whole, ends)
    assert got == wanted
    assert reason.startswith("the bus closed" if good else "the bus sent what is no message")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


async def _stream(pieces: list[tuple[bytes, bool]]) -> tuple[list[Got], str]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    got: list[Got] = []
    descriptors = _Closed()

    def take(_: Head, data: bytes, brought: list[int]) -> None:
        descriptors.close(brought)
        got.append(Got(data, len(brought)))

    def refuse(_: Head, data: bytes) -> None:
        got.append(Got(data, oversize=True))

    stream = Stream(ours, descriptors, take, refuse, lambda: None, other_bytes=OTHER_BYTES)
    stream.resume_reading()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [ours.fileno()]))]
    with theirs:
        for data, brings in pieces:
            if stream.closed.done():
                break
            theirs.sendmsg([data], rights if brings else [])
            for _ in range(2):  # the stream has read it then
                await asyncio.sleep(0)
    reason = await stream.closed
    assert descriptors.held == 0
    return got, reason


def _reader(data: bytes, ends: list[int]) -> tuple[list[Got], bool]:
    """Give what is in *data*, whose pieces with a descriptor end at *ends*, and whether it is good.

    A descriptor is of the message that the last byte of its piece is of.
    """
    got: list[Got] = []
    at = 0
    while len(data) - at >= HEAD_BYTES:
        try:
            head = read_head(data, at)
        except WireError:
            return got, False
        stop = at + head.total
        limit = CALL_BYTES if head.kind == message.CALL else OTHER_BYTES
        if head.total <= limit:
            if stop > len(data):
                break
            got.append(Got(data[at:stop], sum(at < end <= stop for end in ends)))
        elif head.body_at <= limit:
            if at + head.body_at > len(data):
                break
            got.append(Got(data[at : at + head.body_at], oversize=True))
        at = stop
    return got, True

"""The stream to a bus that reads as fast as it is written to."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import socket
from contextlib import closing
from math import inf
from typing import Any

import pytest

from mptcpd_dbus.bus import stream
from mptcpd_dbus.bus.descriptors import Descriptors
from mptcpd_dbus.bus.stream import Stream

LARGE = 11 << 20  # all objects of ten thousand connections
PIECE = 256 << 10


class Greedy(socket.socket):
    """A socket that takes everything at once."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.took: list[bytes] = []

    def send(self, data: Any, _: int = 0) -> int:
        """Take it."""
        self.took.append(bytes(data))
        return len(data)


@pytest.mark.parametrize("slice_seconds", [0, inf])
async def test_a_large_answer_leaves_the_loop_its_turns(
    monkeypatch: pytest.MonkeyPatch, slice_seconds: float
) -> None:
    """One slice without an end is the control."""
    monkeypatch.setattr(stream, "SLICE_SECONDS", slice_seconds)
    ours, bus = socket.socketpair()
    sock = Greedy(fileno=ours.detach())
    sock.setblocking(False)
    out = Stream(sock, Descriptors(), lambda *_: None, lambda *_: None, lambda: None)
    data = bytes(range(256)) * (LARGE // 256)

    with closing(bus):
        out.send(data)
        turns = 0
        while out.queued:
            await asyncio.sleep(0)
            turns += 1
        out.close("done")

    assert b"".join(sock.took) == data
    assert max(map(len, sock.took)) == PIECE
    assert turns == 1 if slice_seconds else turns >= LARGE // PIECE

"""Passing sockets to the daemon, and what is none, right and wrong, ten thousand times.

Only the standard library and nothing of ours: a role of `hostile_client.py`.
"""
# SPDX-License-Identifier: BSD-3-Clause

import itertools
import os
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from tests.e2e.hostile_wire import NAME, NO_REPLY, ROOT, RawBus, message

MANAGER = f"{NAME}.Manager"
IPPROTO_MPTCP = 262
TRIES = 10_000
NAMES = 8
MOST = 16  # descriptors of a message that the buses let through
TOO_LARGE = 100_000


def _call(
    signature: str = "h",
    body: bytes = struct.pack("<I", 0),
    member: str = "GetConnectionBySocket",
    *,
    count: int = 1,
    flags: int = 0,
) -> bytes:
    return message(ROOT, MANAGER, member, signature, body, flags=flags, descriptors=count)


def _bytes(length: int) -> bytes:
    return struct.pack("<II", 0, length) + bytes(length)


def _connected(stack: ExitStack, protocol: int) -> int:
    """Connect to ourselves; give one end."""
    listener, client = (
        stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol))
        for _ in range(2)
    )
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    client.connect(listener.getsockname())
    server = stack.enter_context(listener.accept()[0])
    for one, other in ((client, server), (server, client)):
        one.sendall(b".")
        other.recv(1)
    return client.fileno()


def sockets() -> Iterator[dict[str, Any]]:
    """Pass them in turn; then as often as told, without waiting; then leave with all unanswered."""
    with ExitStack() as stack:
        mine, plain = _connected(stack, IPPROTO_MPTCP), _connected(stack, 0)
        idle = stack.enter_context(socket.socket(proto=IPPROTO_MPTCP)).fileno()
        reader, writer = os.pipe()
        file = os.open("/etc/passwd", os.O_RDONLY)
        for descriptor in (reader, writer, file):
            stack.callback(os.close, descriptor)
        tries = {
            "own": (_call(), [mine]),
            "plain": (_call(), [plain]),
            "unconnected": (_call(), [idle]),
            "pipe": (_call(), [reader]),
            "file": (_call(), [file]),
            "index": (_call(body=struct.pack("<I", 1)), [mine]),
            "none": (_call(count=0), []),
            "several": (_call(count=MOST), [mine, plain, reader, file] * (MOST // 4)),
            "arguments": (_call("hs", struct.pack("<IIB", 0, 0, 0)), [mine]),
            "method": (_call(member="Nothing"), [mine]),
            "reader": (_call(member="GetStatistics"), [mine]),
            "large": (_call("hay", _bytes(TOO_LARGE)), [mine]),
        }
        answers: dict[str, Counter[str]] = {kind: Counter() for kind in tries}
        buses = [RawBus(descriptors=True) for _ in range(NAMES)]
        turns = itertools.cycle(tries)
        for _ in range(TRIES // NAMES):
            sent = [(bus, kind := next(turns), bus.send(*tries[kind])) for bus in buses]
            for bus, kind, serial in sent:
                answers[kind][next(a for a in bus.answers() if a.serial == serial).error] += 1
        yield {"tries": TRIES, "answers": answers}

        silent, each = _call(flags=NO_REPLY), int(sys.argv[2])
        for bus in buses:
            for _ in range(each):
                bus.send(silent, [mine])
        hasty = RawBus(descriptors=True)
        for call, descriptors in tries.values():
            hasty.send(call, descriptors)
        hasty.socket.close()
        yield {"flood": each * NAMES, "hasty": len(tries)}

"""Descriptors that come with messages: each reaches its own call, and all are closed in the end."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from dbus_next import Message
from dbus_next.aio import MessageBus

from mptcpd_dbus.bus import message
from mptcpd_dbus.bus import transport as transport_module
from mptcpd_dbus.bus.descriptors import Descriptors
from mptcpd_dbus.bus.error_names import (
    ACCESS_DENIED,
    FAILED,
    INVALID_ARGS,
    LIMITS_EXCEEDED,
    UNKNOWN_METHOD,
    UNKNOWN_OBJECT,
    BusError,
)
from mptcpd_dbus.bus.interface import Call, Interface, Method, args
from mptcpd_dbus.bus.names import BUS_NAME, CALL_BYTES, CLOSERS, CLOSING_SECONDS, ROOT
from mptcpd_dbus.bus.objects import ObjectTree
from mptcpd_dbus.bus.peers import Peers
from mptcpd_dbus.bus.stream import Stream
from mptcpd_dbus.bus.transport import Transport
from tests.bus.conftest import until

LINGER = 1  # seconds
MANAGER = "org.mptcpd1.Manager"


def _open_now() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - there is nothing to know of each


def _inode(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino


@pytest.fixture(name="pipe")
def _pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    yield reader
    os.close(reader)
    os.close(writer)


# The stream


class Ends:
    """A stream, and the end that a bus would have."""

    def __init__(self) -> None:
        ours, self.bus = socket.socketpair()
        ours.setblocking(False)
        self.descriptors = Descriptors()
        self.came: list[tuple[int, list[int]]] = []
        self.stream = Stream(ours, self.descriptors, self._take, lambda *_: None, lambda: None)

    def _take(self, head: message.Head, _: bytes, descriptors: list[int]) -> None:
        self.came.append((head.serial, [_inode(descriptor) for descriptor in descriptors]))
        self.descriptors.close(descriptors)

    def close(self) -> None:
        """Close both ends."""
        self.stream.close("done")
        self.bus.close()


@pytest.fixture(name="ends")
async def _ends() -> Any:
    before = _open_now()
    with closing(Ends()) as ends:
        yield ends
    await until(lambda: _open_now() == before)


def _message(serial: int, body: int = 0) -> bytes:
    data = message.header(message.SIGNAL, [(message.PATH, "/"), (message.MEMBER, "Came")])
    body_at = len(data)
    data += bytes(body)
    return bytes(message.finish(data, body_at, serial))


async def test_descriptors_come_with_the_message_that_brought_them(ends: Ends, pipe: int) -> None:
    """Also where several messages are read at once."""
    for serial, count in enumerate((0, 1, 0, 2, 0)):
        socket.send_fds(ends.bus, [_message(serial)], [pipe] * count)

    ends.stream.resume_reading()
    await until(lambda: len(ends.came) == 5)

    its = _inode(pipe)
    assert ends.came == [(0, []), (1, [its]), (2, []), (3, [its, its]), (4, [])]


async def test_descriptors_of_a_message_in_pieces_come_with_it(ends: Ends, pipe: int) -> None:
    ends.stream.resume_reading()
    data = _message(1, body=300_000)
    socket.send_fds(ends.bus, [_message(0) + data[:20]], [pipe])  # the last byte is of the second
    sending = asyncio.ensure_future(asyncio.to_thread(ends.bus.sendall, data[20:] + _message(2)))

    await until(lambda: len(ends.came) == 3)
    await sending

    assert ends.came == [(0, []), (1, [_inode(pipe)]), (2, [])]


@pytest.mark.parametrize("sent", [1.0, 0.5])
async def test_descriptors_of_a_message_that_is_too_large_are_closed(
    ends: Ends, pipe: int, sent: float
) -> None:
    """Its end need not come: the stream's end will do, which the fixture sees to."""
    before = _open_now()
    data = message.header(message.CALL, [(message.PATH, "/"), (message.MEMBER, "Came")])
    body_at = len(data)
    data += bytes(2 * CALL_BYTES)
    whole = bytes(message.finish(data, body_at, 1))
    ends.stream.resume_reading()

    socket.send_fds(ends.bus, [whole[:10]], [pipe])
    await until(lambda: _open_now() == before + 1)  # the control
    rest = whole[10 : int(len(whole) * sent)]
    await asyncio.get_running_loop().run_in_executor(None, ends.bus.sendall, rest)

    if sent == 1:
        await until(lambda: _open_now() == before)
    assert not ends.came


async def test_nothing_is_read_while_too_many_wait_to_be_closed(
    ends: Ends, pipe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowded, looks = True, 0

    def look(_: Descriptors) -> bool:
        nonlocal looks
        looks += 1
        return crowded

    monkeypatch.setattr(Descriptors, "crowded", property(look))
    ends.stream.resume_reading()

    socket.send_fds(ends.bus, [_message(0)], [pipe])
    began = time.monotonic()
    await until(lambda: looks > 3)
    assert time.monotonic() - began > 2 * CLOSING_SECONDS
    assert not ends.came
    crowded = False
    await until(lambda: ends.came == [(0, [_inode(pipe)])])


# Closing


def _lingering(peers: list[socket.socket]) -> int:
    """Give a socket whose close takes LINGER seconds: its peer reads nothing of what is sent."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        sock = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    peers.append(peer)
    sock.setblocking(False)
    try:
        while True:
            sock.send(bytes(1 << 20))
    except BlockingIOError:
        pass
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER))
    sock.setblocking(True)  # else close() does not wait
    return sock.detach()


async def test_closing_what_its_owner_lets_linger_holds_up_nobody() -> None:
    """Nor do more than there are threads; the control is one that is closed here."""
    before = _open_now()
    peers: list[socket.socket] = []
    alone = _lingering(peers)
    began = time.monotonic()
    os.close(alone)
    assert time.monotonic() - began >= 0.9 * LINGER
    lingering = [_lingering(peers) for _ in range(3 * CLOSERS)]
    descriptors = Descriptors()
    descriptors.took(len(lingering))

    began = time.monotonic()
    for descriptor in lingering:
        descriptors.close([descriptor])
    assert time.monotonic() - began < 0.1 * LINGER
    await until(lambda: descriptors.held <= CLOSERS, LINGER / 2)
    await until(lambda: descriptors.held == 0, 2 * LINGER)

    for peer in peers:
        peer.close()
    assert _open_now() == before


# Calls


class Service:
    """A tree with a method that takes a descriptor, and what it was given."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.peers = Peers(transport)
        self.inodes: list[int] = []
        self.denied = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = 0
        self.tree = ObjectTree(transport, self.peers, self._authorise)
        take = Method("Take", args("h it"), (), self._take, "Takes it.", "org.mptcpd1.x")
        look = Method("Look", (), (), self._look, "Looks.")
        self.tree.add(ROOT, object(), [Interface(MANAGER, "Takes.", (), (take, look))])

    async def _authorise(self, _: Call, __: object, ___: Method, details: dict[str, str]) -> bool:
        assert not details
        self.entered += 1
        await self.gate.wait()
        if self.denied:
            raise BusError(ACCESS_DENIED, "not you")
        return True

    async def _take(self, _: object, __: Call, descriptor: int) -> None:
        self.inodes.append(_inode(descriptor))

    async def _look(self, _: object, __: Call) -> None:
        pass

    def stop(self) -> None:
        """End it as the bus edge does."""
        self.tree.stop()
        self.peers.stop()
        self.transport.disconnect()


@pytest.fixture(name="service")
async def _service(transport: Transport) -> Any:
    service = Service(transport)
    assert await transport.request_name(BUS_NAME)
    service.tree.start()
    yield service
    service.stop()


@pytest.fixture(name="sender")
async def _sender(bus_address: str) -> Any:
    bus = await MessageBus(bus_address=bus_address, negotiate_unix_fd=True).connect()
    yield bus
    bus.disconnect()
    await bus.wait_for_disconnect()
    bus._stream.close()  # noqa: SLF001  dbus-next leaves them open, and warnings are errors here
    bus._sock.close()  # noqa: SLF001  likewise


def _call(member: str, signature: str, body: list[Any], sent: list[int], path: str) -> Message:
    return Message(
        destination=BUS_NAME,
        path=path,
        interface=MANAGER,
        member=member,
        signature=signature,
        body=body,
        unix_fds=sent,
    )


ANSWERS = {
    "its own": ("Take", "h", [0], 1, ROOT, ""),
    "a wrong index": ("Take", "h", [1], 1, ROOT, INVALID_ARGS),
    "none": ("Take", "h", [0], 0, ROOT, INVALID_ARGS),
    "several": ("Take", "h", [0], 3, ROOT, LIMITS_EXCEEDED),
    "another type": ("Take", "hh", [0, 0], 1, ROOT, INVALID_ARGS),
    "another method": ("Look", "h", [0], 1, ROOT, INVALID_ARGS),
    "one that wants none": ("Look", "", [], 2, ROOT, ""),
    "an unknown method": ("Nothing", "h", [0], 1, ROOT, UNKNOWN_METHOD),
    "an unknown object": ("Take", "h", [0], 1, f"{ROOT}/x", UNKNOWN_OBJECT),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_every_answer_leaves_nothing_open(
    service: Service, sender: MessageBus, pipe: int, case: str
) -> None:
    member, signature, body, count, path, error = ANSWERS[case]
    before = _open_now()

    reply = await sender.call(_call(member, signature, body, [pipe] * count, path))

    assert isinstance(reply, Message)
    assert (reply.error_name or "") == error
    assert service.inodes == ([_inode(pipe)] if case == "its own" else [])
    await until(lambda: _open_now() == before)


async def test_what_is_more_than_all_may_hold_is_refused(
    service: Service, sender: MessageBus, pipe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until others are done."""
    before = _open_now()
    monkeypatch.setattr(transport_module, "HELD_DESCRIPTORS", 1)
    service.gate.clear()
    first = asyncio.ensure_future(sender.call(_call("Take", "h", [0], [pipe], ROOT)))
    second = asyncio.ensure_future(sender.call(_call("Take", "h", [0], [pipe], ROOT)))
    await until(lambda: service.entered == 2)
    service.gate.set()

    errors = [reply.error_name or "" for reply in (await first, await second) if reply]
    assert errors == ["", LIMITS_EXCEEDED]
    await until(lambda: _open_now() == before)
    third = await sender.call(_call("Take", "h", [0], [pipe], ROOT))
    assert third
    assert not third.error_name


async def test_a_caller_who_may_not_leaves_nothing_open(
    service: Service, sender: MessageBus, pipe: int
) -> None:
    before, service.denied = _open_now(), True

    reply = await sender.call(_call("Take", "h", [0], [pipe], ROOT))

    assert isinstance(reply, Message)
    assert reply.error_name == ACCESS_DENIED
    assert not service.inodes
    await until(lambda: _open_now() == before)


@pytest.mark.parametrize("end", ["cancelled", "the caller has left", "the bus has gone"])
async def test_a_call_at_work_that_ends_otherwise_leaves_nothing_open(
    service: Service, sender: MessageBus, pipe: int, end: str
) -> None:
    before = _open_now()
    service.gate.clear()
    call = _call("Take", "h", [0], [pipe], ROOT)
    answer = asyncio.ensure_future(sender.call(call))
    await until(lambda: service.entered == 1)
    assert _open_now() == before + 1  # the control

    match end:
        case "cancelled":
            service.tree.stop()
            reply = await answer
            assert isinstance(reply, Message)
            assert reply.error_name == FAILED
        case "the caller has left":
            sender.disconnect()
            service.gate.set()
            await until(lambda: len(service.inodes) == 1)
        case _:
            service.stop()
            before -= 1  # our own connection
    answer.cancel()
    await until(lambda: _open_now() <= before)

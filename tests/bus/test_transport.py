"""The connection to the bus: what it survives, and what it bounds."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import importlib.metadata
import socket
import struct
import time
from pathlib import Path
from unittest.mock import Mock

import dbus_next
import pytest
from dbus_next import Message, MessageType
from dbus_next.aio import MessageBus

from mptcpd_dbus.bus import message
from mptcpd_dbus.bus import stream as stream_module
from mptcpd_dbus.bus.error_names import DISCONNECTED, LIMITS_EXCEEDED, BusError
from mptcpd_dbus.bus.names import CALL_BYTES, MESSAGE_BYTES, OTHER_BYTES, QUEUE_BYTES
from mptcpd_dbus.bus.transport import DBUS, DBUS_PATH, SaidByTheBus, Transport, check_dbus_next
from mptcpd_dbus.bus.wire import encode
from tests.bus.conftest import StandInBus, encoded, raw_call, raw_client, read_message, until


def _signal(transport: Transport, member: str, text: str) -> bytearray:
    data = message.header(
        message.SIGNAL,
        [
            (message.PATH, "/org/mptcpd1"),
            (message.INTERFACE, "org.mptcpd1.Test"),
            (message.MEMBER, member),
            (message.SIGNATURE, "s"),
        ],
    )
    body_at = len(data)
    encode("s")(data, (text,))
    return message.finish(data, body_at, transport.next_serial())


async def test_a_call_returns_plain_values(transport: Transport) -> None:
    (names,) = await transport.call(DBUS, DBUS_PATH, DBUS, "ListNames")
    (uid,) = await transport.call(
        DBUS, DBUS_PATH, DBUS, "GetConnectionUnixUser", "s", transport.unique_name
    )

    assert transport.unique_name in names
    assert uid == 0


async def test_a_remote_error_keeps_its_name_and_text(transport: Transport) -> None:
    with pytest.raises(BusError, match="NoSuchMethod") as caught:
        await transport.call(DBUS, DBUS_PATH, DBUS, "NoSuchMethod")

    assert caught.value.name == "org.freedesktop.DBus.Error.UnknownMethod"


async def test_a_name_is_ours_or_somebody_elses_but_never_queued_for(
    transport: Transport, bus_address: str
) -> None:
    second = Transport(bus_address)
    await second.connect()

    assert await transport.request_name("org.mptcpd1")
    assert not await second.request_name("org.mptcpd1")
    transport.disconnect()
    (queued,) = await second.call(DBUS, DBUS_PATH, DBUS, "NameHasOwner", "s", "org.mptcpd1")
    assert not queued
    second.disconnect()


def _to_bus(member: str, signature: str, body: list[object]) -> Message:
    return Message(
        destination=DBUS,
        path=DBUS_PATH,
        interface=DBUS,
        member=member,
        signature=signature,
        body=body,
    )


async def test_a_call_that_times_out_leaves_nothing_behind(
    transport: Transport, client: MessageBus
) -> None:
    client.add_message_handler(lambda sent: sent.path == "/silent")  # taken, never answered

    with pytest.raises(TimeoutError):
        await transport.call(
            client.unique_name, "/silent", "org.example.Silent", "Wait", timeout=0.05
        )

    assert not transport._answers  # noqa: SLF001  what leaked in the library is what we look at


async def test_calls_fail_at_once_when_the_bus_goes(stand_in: StandInBus) -> None:
    transport = Transport(stand_in.address)
    await transport.connect()
    waiting = asyncio.ensure_future(transport.call(DBUS, DBUS_PATH, DBUS, "ListNames"))
    _, writer = await stand_in.peer

    writer.transport.abort()
    await asyncio.wait_for(transport.disconnected, 5)

    with pytest.raises(BusError) as caught:
        await waiting
    assert caught.value.name == DISCONNECTED
    with pytest.raises(BusError, match="not connected"):
        await transport.call(DBUS, DBUS_PATH, DBUS, "ListNames")


async def test_an_unknown_header_field_does_no_harm(stand_in: StandInBus) -> None:
    calls: list[message.Incoming] = []
    transport = Transport(stand_in.address)
    transport.on_call = calls.append
    await transport.connect()
    _, writer = await stand_in.peer
    fields: list[tuple[bytes, str | int]] = [
        (message.PATH, "/"),
        (b"\x0a\x01s\0", "new"),
        (message.MEMBER, "Ping"),
        (message.SENDER, ":1.9"),
        (b"\xc8\x01u\0", 7),
    ]

    writer.write(message.finish(data := message.header(message.CALL, fields), len(data), 3))
    await until(lambda: bool(calls))

    assert (calls[0].member, calls[0].sender) == ("Ping", ":1.9")
    transport.disconnect()


async def test_what_is_no_message_ends_the_connection(stand_in: StandInBus) -> None:
    transport = Transport(stand_in.address)
    await transport.connect()
    _, writer = await stand_in.peer

    writer.write(b"HTTP/1.1 400 Bad Request\r\n")

    assert "no message" in await asyncio.wait_for(transport.disconnected, 5)


async def test_malformed_signals_and_answers_are_survived(stand_in: StandInBus) -> None:
    transport = Transport(stand_in.address)
    await transport.connect()
    reader, writer = await stand_in.peer
    waiting = asyncio.ensure_future(transport.call(DBUS, DBUS_PATH, DBUS, "ListNames"))
    asked = await read_message(reader)
    bad_signal = message.header(
        message.SIGNAL,
        [
            (message.PATH, "/"),
            (message.INTERFACE, DBUS),
            (message.MEMBER, "NameLost"),
            (message.SENDER, DBUS),
            (message.SIGNATURE, "s"),
        ],
    )
    transport.on_signal(DBUS, "NameLost", lambda bad: pytest.fail(f"understood: {bad.values()}"))
    bad_answer = message.header(
        message.RETURN, [(message.REPLY_SERIAL, asked.serial), (message.SIGNATURE, "as")]
    )
    for head in (bad_signal, bad_answer):
        data = head + struct.pack("<I", 1 << 20)
        writer.write(message.finish(data, len(head), 9))

    with pytest.raises(BusError, match="does not fit"):
        await waiting

    assert not transport.disconnected.done()
    transport.disconnect()


async def test_a_message_of_31_mib_is_refused_without_holding_the_loop(
    transport: Transport, bus_address: str, client: MessageBus
) -> None:
    calls: list[message.Incoming] = []

    def on_call(call: message.Incoming) -> None:
        calls.append(call)
        transport.reply(call, "", b"")

    transport.on_call = on_call
    size = 31 << 20
    body = struct.pack("<I", size) + bytes(size)
    raw = raw_client(bus_address)
    call = raw_call(
        transport.unique_name, "/", "NoSuch", body, interface="org.example.Big", signature="ay"
    )
    gap = 0.0

    async def watch_the_loop() -> None:
        nonlocal gap
        while True:
            before = time.thread_time()  # what the loop itself used, on however busy a machine
            await asyncio.sleep(0)
            gap = max(gap, time.thread_time() - before)

    watcher = asyncio.ensure_future(watch_the_loop())
    raw.settimeout(20)
    await asyncio.to_thread(raw.sendall, call)
    answer = await asyncio.to_thread(_read_until, raw, LIMITS_EXCEEDED.encode())
    watcher.cancel()
    raw.close()
    reply = await client.call(
        Message(destination=transport.unique_name, path="/", interface="a.b", member="Ping")
    )

    assert str(CALL_BYTES).encode() in answer
    assert [call.member for call in calls] == ["Ping"]
    assert reply.message_type is MessageType.METHOD_RETURN
    assert gap < 0.1


async def test_a_large_answer_is_for_those_who_want_it(
    transport: Transport, bus_address: str
) -> None:
    """Mptcpctl does, the daemon does not."""
    body = bytearray()
    encode("s")(body, ("x" * OTHER_BYTES,))

    def answer(call: message.Incoming) -> None:
        transport.reply(call, "s", body)

    transport.on_call = answer
    daemon, client = Transport(bus_address), Transport(bus_address, MESSAGE_BYTES)
    for caller in (daemon, client):
        await caller.connect()
    call = (transport.unique_name, "/", "org.example.Large", "Get")

    (text,) = await client.call(*call)
    assert len(text) == OTHER_BYTES
    with pytest.raises(BusError, match="LimitsExceeded: more than"):
        await daemon.call(*call)
    for caller in (daemon, client):
        caller.disconnect()


def _read_until(raw: object, wanted: bytes) -> bytes:
    data = b""
    while wanted not in data or not data.endswith(b"\0"):
        data += raw.recv(65536)  # type: ignore[attr-defined]  # a socket
    return data


async def test_a_bus_that_does_not_read_costs_signals_which_are_counted_and_told(
    stand_in: StandInBus,
) -> None:
    transport = Transport(stand_in.address)
    await transport.connect()
    drained: list[int] = []
    transport.on_dropped = lambda: drained.append(transport.signals_dropped)
    reader, _ = await stand_in.peer
    reader._transport.pause_reading()  # type: ignore[attr-defined]  # noqa: SLF001  do not read
    text = "x" * 10_000

    sent = 0
    while not transport.signals_dropped:
        transport.send_signals([_signal(transport, "Event", text)])
        sent += 1
        if sent % 50 == 0:
            await asyncio.sleep(0)  # let it write until EAGAIN
    transport.send(_signal(transport, "Reply", ""))
    transport.send_signals([_signal(transport, "Event", "small, but behind a gap")])
    assert not drained
    reader._transport.resume_reading()  # type: ignore[attr-defined]  # noqa: SLF001  read again
    await until(lambda: bool(drained))
    transport.send_signals([_signal(transport, "Event", "after the gap")])
    received = [await read_message(reader) for _ in range(sent + 1)]

    assert sent * 10_000 > QUEUE_BYTES
    assert transport.signals_dropped == 2
    assert drained == [2]
    assert [m.member for m in received] == ["Event"] * (sent - 1) + ["Reply", "Event"]
    assert received[-1].values() == ["after the gap"]
    transport.disconnect()


async def test_calls_are_not_read_while_answers_pile_up(stand_in: StandInBus) -> None:
    transport = Transport(stand_in.address)
    answer = bytes(1 << 20)
    calls: list[message.Incoming] = []

    def on_call(call: message.Incoming) -> None:
        calls.append(call)
        transport.reply(call, "ay", struct.pack("<I", len(answer)) + answer)

    transport.on_call = on_call
    await transport.connect()
    reader, writer = await stand_in.peer
    reader._transport.pause_reading()  # type: ignore[attr-defined]  # noqa: SLF001  do not read
    ask = message.header(
        message.CALL, [(message.PATH, "/"), (message.MEMBER, "Get"), (message.SENDER, ":1.9")]
    )
    for _ in range(40):
        writer.write(message.finish(ask, len(ask), 5))
    await until(lambda: len(calls) > 5)
    for _ in range(200):
        await asyncio.sleep(0)
    served_before = len(calls)
    reader._transport.resume_reading()  # type: ignore[attr-defined]  # noqa: SLF001  read again
    received = [await read_message(reader) for _ in range(40)]

    assert served_before < 12
    assert len(calls) == len(received) == 40
    transport.disconnect()


async def test_a_client_that_never_reads_does_not_stop_the_others(
    transport: Transport, bus_address: str, client: MessageBus
) -> None:
    def on_call(call: message.Incoming) -> None:
        transport.reply(call, "", b"")

    transport.on_call = on_call
    raw = raw_client(bus_address)
    raw.sendall(raw_call(DBUS, DBUS_PATH, "AddMatch", encoded("type='signal'"), signature="s"))
    text = "x" * 50_000
    for _ in range(400):  # 20 MB for somebody who does not read
        transport.send_signals([_signal(transport, "Event", text)])
        await until(lambda: not transport._stream.queued)  # noqa: SLF001  it left us

    reply = await asyncio.wait_for(
        client.call(
            Message(destination=transport.unique_name, path="/", interface="a.b", member="Ping")
        ),
        5,
    )

    assert reply.message_type is MessageType.METHOD_RETURN
    assert transport.signals_dropped == 0
    raw.close()


async def test_a_bus_that_takes_nothing_any_more_is_left(
    transport: Transport, bus_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "STALL_SECONDS", 0.3)
    raw = raw_client(bus_address)  # subscribes, and never reads
    raw.sendall(raw_call(DBUS, DBUS_PATH, "AddMatch", encoded("type='signal'"), signature="s"))
    text = "x" * (1 << 20)
    for _ in range(150):  # MiB; the bus holds 127 of ours
        transport.send(_signal(transport, "Event", text))
    reason = await asyncio.wait_for(transport.disconnected, 20)

    assert "has taken nothing" in reason
    again = Transport(bus_address)
    await again.connect()
    for _ in range(150):
        again.send(_signal(again, "Event", text))
    assert await asyncio.wait_for(again.request_name("org.mptcpd1"), 20)
    again.disconnect()
    raw.close()


async def test_a_bus_that_hangs_up_while_we_authenticate_is_an_error(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()
        ended.set()

    server = await asyncio.start_unix_server(hang_up, tmp_path / "bus")
    transport = Transport(f"unix:path={tmp_path / 'bus'}")

    with pytest.raises(ConnectionError):
        await transport.connect()

    await ended.wait()
    server.close()


async def test_a_bus_that_refuses_us_is_an_error(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n")
        writer.write(b"REJECTED EXTERNAL\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()
        ended.set()

    server = await asyncio.start_unix_server(refuse, tmp_path / "bus")
    transport = Transport(f"unix:path={tmp_path / 'bus'}")

    with pytest.raises(ConnectionError, match="the bus refused us"):
        await transport.connect()

    await ended.wait()
    server.close()


def test_another_dbus_next_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    check_dbus_next()
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.2.4")

    with pytest.raises(RuntimeError, match=r"dbus-next 0\.2\.4 is installed; install dbus-next=="):
        check_dbus_next()


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_bus_with_a_full_queue_is_an_error_at_once(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(tmp_path / "bus"))
        listener.listen(0)
        waiting.connect(str(tmp_path / "bus"))
        before = _descriptors()

        with pytest.raises(BlockingIOError):
            Transport(f"unix:path={tmp_path}/bus")
        assert _descriptors() == before

        listener.accept()[0].close()  # the control: now there is room
        Transport(f"unix:path={tmp_path}/bus").disconnect()


async def test_without_descriptors_there_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dbus_next.message_bus.socket, "socket", Mock(side_effect=OSError(24, "")))

    with pytest.raises(OSError, match="24"):
        Transport("unix:path=/nowhere")


async def test_a_thread_may_have_a_connection_of_its_own(bus_address: str) -> None:
    """That is how a program asks and waits, see remote/daemon.py."""

    async def name() -> str:
        transport = Transport(bus_address)
        await transport.connect()
        transport.disconnect()
        return transport.unique_name

    assert (await asyncio.to_thread(asyncio.run, name())).startswith(":")


async def test_what_the_bus_refused_is_told_from_what_the_callee_did(
    transport: Transport, client: MessageBus
) -> None:
    """The same error; only who said it tells whether anybody is there."""
    refused: list[BusError] = []

    for destination in ("org.freedesktop.DBus", str(client.unique_name)):
        with pytest.raises(BusError) as refusal:
            await transport.call(destination, "/", "org.freedesktop.DBus", "Nothing")
        refused.append(refusal.value)

    assert {error.name for error in refused} == {"org.freedesktop.DBus.Error.UnknownMethod"}
    assert [isinstance(error, SaidByTheBus) for error in refused] == [True, False]

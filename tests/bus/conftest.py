"""A private bus for each test: a real dbus-daemon with a system bus' limits; and a hostile bus."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dbus_next import Message, MessageFlag, MessageType
from dbus_next.aio import MessageBus

from mptcpd_dbus.bus import message
from mptcpd_dbus.bus.names import BUS_NAME, ROOT
from mptcpd_dbus.bus.transport import DBUS, DBUS_PATH, Transport
from mptcpd_dbus.bus.wire import encode

_CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>custom</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="signal"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
  </policy>
  <limit name="max_replies_per_connection">{replies}</limit>
</busconfig>
"""


@pytest.fixture
def bus_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a dbus-daemon; its limits are the defaults of a system bus."""
    directory = tmp_path_factory.mktemp("bus")
    for parent in (directory, *directory.parents):  # other users must get through to the socket
        if parent != directory and not parent.name.startswith("pytest-"):
            break
        parent.chmod(0o755)
    config = directory / "bus.conf"
    config.write_text(_CONFIG.format(socket=directory / "socket", replies=128))
    daemon = subprocess.Popen(
        ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address=1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert daemon.stdout is not None
    try:
        yield daemon.stdout.readline().strip()
    finally:
        daemon.terminate()
        daemon.wait(5)
        daemon.stdout.close()


@pytest.fixture
async def transport(bus_address: str) -> AsyncIterator[Transport]:
    """Connect the transport under test."""
    transport = Transport(bus_address)
    await transport.connect()
    yield transport
    transport.disconnect()


@pytest.fixture
async def client(bus_address: str) -> AsyncIterator[MessageBus]:
    """Connect an independent client: dbus-next's own, low level."""
    bus = await MessageBus(bus_address=bus_address).connect()
    yield bus
    bus.disconnect()
    await bus.wait_for_disconnect()
    bus._stream.close()  # noqa: SLF001  dbus-next leaves them open, and warnings are errors here
    bus._sock.close()  # noqa: SLF001  likewise


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Wait for *condition*, which nobody announces."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  it may be anything
            await asyncio.sleep(0.001)


def raw_client(address: str) -> socket.socket:
    """Connect a client that speaks D-Bus by hand, badly if it wants."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    client.connect(address.partition("path=")[2].partition(",")[0])
    client.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\n")
    while not (data := client.recv(4096)).startswith(b"DATA") and b"OK" not in data:
        pass
    while b"OK" not in data:
        data += client.recv(4096)
    client.sendall(b"BEGIN\r\n")
    client.sendall(raw_call("org.freedesktop.DBus", "/", "Hello"))
    client.recv(4096)
    return client


def raw_call(destination: str, path: str, member: str, body: bytes = b"", **fields: str) -> bytes:
    """Build a method call whose body is whatever one wants."""
    interface = fields.get("interface", "org.freedesktop.DBus")
    signature = fields.get("signature", "")
    names: list[tuple[bytes, str | int]] = [
        (message.PATH, path),
        (message.INTERFACE, interface),
        (message.MEMBER, member),
        (message.DESTINATION, destination),
    ]
    if signature:
        names.append((message.SIGNATURE, signature))
    data = message.header(message.CALL, names, int(fields.get("flags", "0")))
    body_at = len(data)
    data += body
    return bytes(message.finish(data, body_at, 1))


def encoded(text: str) -> bytes:
    """Pack one string."""
    body = bytearray()
    encode("s")(body, (text,))
    return bytes(body)


class StandInBus:
    """A bus that a test plays: what no honest bus would send, and one that does not read."""

    def __init__(self, path: Path) -> None:
        self.address = f"unix:path={path}"
        self._path = path
        self._server: asyncio.Server | None = None
        self.peer: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.get_running_loop().create_future()
        )

    async def start(self) -> None:
        """Listen for the one client."""
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=1 << 26)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n")
        writer.write(b"OK 0123456789abcdef0123456789abcdef\r\n")
        await reader.readuntil(b"\r\n")
        writer.write(b"AGREE_UNIX_FD\r\n")
        await reader.readuntil(b"BEGIN\r\n")
        hello = await read_message(reader)
        data = message.header(
            message.RETURN, [(message.REPLY_SERIAL, hello.serial), (message.SIGNATURE, "s")]
        )
        body_at = len(data)
        encode("s")(data, (":1.1",))
        writer.write(message.finish(data, body_at, 1))
        self.peer.set_result((reader, writer))

    async def stop(self) -> None:
        """Close everything."""
        if self.peer.done():
            self.peer.result()[1].transport.abort()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()


async def read_message(reader: asyncio.StreamReader) -> message.Incoming:
    """Read one whole message."""
    start = await reader.readexactly(16)
    head = message.read_head(start, 0)
    return message.parse(head, start + await reader.readexactly(head.total - 16))


async def ask(
    client: MessageBus,
    path: str,
    interface: str | None,
    member: str,
    signature: str = "",
    *body: Any,
    flags: MessageFlag = MessageFlag.NONE,
) -> Message:
    """Call the service and give its answer, be it an error."""
    reply = await asyncio.wait_for(
        client.call(
            Message(
                destination=BUS_NAME,
                path=path,
                interface=interface,
                member=member,
                signature=signature,
                body=list(body),
                flags=flags,
            )
        ),
        10,
    )
    assert isinstance(reply, Message)
    return reply


def plain(value: Any) -> Any:
    """Take the variants of dbus-next out of *value*."""
    if hasattr(value, "signature"):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


async def subscribe(client: MessageBus) -> list[Message]:
    """Collect every signal of the service."""
    heard: list[Message] = []

    def hear(sent: Message) -> None:
        if sent.message_type is MessageType.SIGNAL and sent.path.startswith(ROOT):
            heard.append(sent)

    client.add_message_handler(hear)
    await client.call(
        Message(
            destination=DBUS,
            path=DBUS_PATH,
            interface=DBUS,
            member="AddMatch",
            signature="s",
            body=[f"type='signal',path_namespace='{ROOT}'"],
        )
    )
    return heard


@pytest.fixture
async def stand_in(tmp_path: Path) -> AsyncIterator[StandInBus]:
    """Play the bus."""
    bus = StandInBus(tmp_path / "stand-in")
    await bus.start()
    yield bus
    await bus.stop()

"""D-Bus by hand, for clients that mean harm or must not wait: messages as bytes, on a bare socket.

Only the standard library and nothing of ours; source: D-Bus specification, "Message Protocol" and
"Authentication Protocol".
"""
# SPDX-License-Identifier: BSD-3-Clause

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

SOCKET = "/run/dbus/system_bus_socket"
BUS = "org.freedesktop.DBus"
NAME, ROOT = "org.mptcpd1", "/org/mptcpd1"

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
NO_REPLY, INTERACTIVE = 1, 4
SERIAL_AT = 8
_ERROR_NAME, _REPLY_SERIAL, _SIGNATURE, _DESCRIPTORS = 4, 5, 8, 9


class Answer(NamedTuple):
    """A message that came: its kind, the call it answers, and its error."""

    kind: int
    serial: int
    error: str


def text(value: str) -> bytes:
    """Pack a string, or a path, on a boundary of four."""
    return struct.pack("<I", len(value)) + value.encode() + b"\0"


def message(
    path: str,
    interface: str,
    member: str,
    signature: str = "",
    body: bytes = b"",
    *,
    kind: int = CALL,
    destination: str = NAME,
    flags: int = 0,
    descriptors: int = 0,
    strange: Sequence[tuple[int, str, bytes]] = (),
) -> bytes:
    """Build a message with serial 1; *strange* are header fields: code, type, packed value."""
    named = ((1, "o", path), (2, "s", interface), (3, "s", member), (6, "s", destination))
    fields = [(code, form, text(value)) for code, form, value in named if value]
    if signature:
        fields.append((_SIGNATURE, "g", bytes([len(signature)]) + signature.encode() + b"\0"))
    if descriptors:
        fields.append((_DESCRIPTORS, "u", struct.pack("<I", descriptors)))
    packed = bytearray()
    for code, form, value in (*fields, *strange):
        packed += bytes(-len(packed) & 7) + bytes([code, 1]) + form.encode() + b"\0" + value
    head = struct.pack("<cBBBIII", b"l", kind, flags, 1, len(body), 1, len(packed))
    return head + bytes(packed) + bytes(-len(packed) & 7) + body


class RawBus:
    """A connection of whoever runs this; it sends what it is given."""

    def __init__(self, *, descriptors: bool = False) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(SOCKET)
        self._buffer = bytearray()
        self._serial = 0
        self._talk(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode())
        if descriptors:
            self._talk(b"NEGOTIATE_UNIX_FD")
        self.socket.sendall(b"BEGIN\r\n")
        self.ask(message("/org/freedesktop/DBus", BUS, "Hello", destination=BUS))

    def ask(self, call: bytes) -> Answer:
        """Send a call and wait for its answer, or its error."""
        serial = self.send(call)
        return next(answer for answer in self.answers() if answer.serial == serial)

    def send(self, data: bytes, descriptors: Sequence[int] = ()) -> int:
        """Send a message under a new serial."""
        self._serial += 1
        head = bytearray(data[:16])
        struct.pack_into("<I", head, SERIAL_AT, self._serial)
        socket.send_fds(self.socket, [bytes(head)], descriptors)
        self.socket.sendall(memoryview(data)[16:])
        return self._serial

    def answers(self) -> Iterator[Answer]:
        """Give what comes, and wait for more as long as it is wanted."""
        while True:
            while (answer := self._take()) is not None:
                yield answer
            data = self.socket.recv(1 << 20)
            if not data:
                raise ConnectionError("the bus has cut this client off")
            self._buffer += data

    def _talk(self, line: bytes) -> None:
        self.socket.sendall(line + b"\r\n")
        answer = self.socket.recv(4096)
        if not answer.startswith((b"OK ", b"AGREE_UNIX_FD")):
            raise ConnectionError(answer.decode())

    def _take(self) -> Answer | None:
        """Take a whole message from the buffer: all the bus sends is little-endian, as we are."""
        if len(self._buffer) < 16:
            return None
        kind, body, _, fields = struct.unpack_from("<xBxxIII", self._buffer)
        end = 16 + fields
        total = end + (-end & 7) + body
        if len(self._buffer) < total:
            return None
        answer = self._read(bytes(self._buffer[:end]), kind)
        del self._buffer[:total]
        return answer

    @staticmethod
    def _read(head: bytes, kind: int) -> Answer:
        at, serial, error = 16, 0, ""
        while at < len(head):
            at += -at & 7
            code, form = head[at], head[at + 2 : at + 3]
            (number,) = struct.unpack_from("<I", head.ljust(len(head) + 4), at + 4)
            if code == _REPLY_SERIAL:
                serial = number
            elif code == _ERROR_NAME:
                error = head[at + 8 : at + 8 + number].decode()
            lengths = {b"u": 8, b"g": 6 + head[at + 4]}
            at += lengths.get(form, 9 + number)
        return Answer(kind, serial, error)

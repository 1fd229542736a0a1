"""D-Bus messages: their header, written and read; the body stays bytes.

Knows neither sockets nor our contract.  Source: D-Bus specification, "Message Format".
"""
# SPDX-License-Identifier: BSD-3-Clause

import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

from mptcpd_dbus.bus.decoding import decode_any, read_any_variant, read_signature
from mptcpd_dbus.bus.signatures import MALFORMED, WireError
from mptcpd_dbus.bus.wire import pack_string

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
NO_REPLY, NO_AUTO_START, INTERACTIVE = 1, 2, 4

_HEAD = {"<": struct.Struct("<BBBBIII"), ">": struct.Struct(">BBBBIII")}
_HEAD_U32 = {order: struct.Struct(order + "I").unpack_from for order in "<>"}
_ORDERS = {ord("l"): "<", ord("B"): ">"}
LENGTH_AND_SERIAL = struct.Struct("<II")
LENGTH_AT = 4
HEAD_BYTES = 16
_FIELDS_BYTES = 64 << 20
_BODY_BYTES = 128 << 20
_U32 = struct.Struct("<I")

# Header fields: code, length of the signature, signature, its end.
PATH = b"\x01\x01o\0"
INTERFACE = b"\x02\x01s\0"
MEMBER = b"\x03\x01s\0"
ERROR_NAME = b"\x04\x01s\0"
REPLY_SERIAL = b"\x05\x01u\0"
DESTINATION = b"\x06\x01s\0"
SENDER = b"\x07\x01s\0"
SIGNATURE = b"\x08\x01g\0"
_UNIX_FDS = b"\x09\x01u\0"
_FIELDS = {
    PATH: "path",
    INTERFACE: "interface",
    MEMBER: "member",
    ERROR_NAME: "error_name",
    REPLY_SERIAL: "reply_serial",
    DESTINATION: "destination",
    SENDER: "sender",
    SIGNATURE: "signature",
    _UNIX_FDS: "unix_fds",
}
_KNOWN_CODES = frozenset(field[0] for field in _FIELDS)


def header(kind: int, fields: Iterable[tuple[bytes, str | int]], flags: int = 0) -> bytearray:
    """Begin a message: everything before its body, with length and serial still to be set."""
    buf = bytearray(_HEAD["<"].pack(ord("l"), kind, flags, 1, 0, 0, 0))
    for field, value in fields:
        buf += bytes(-len(buf) & 7)
        buf += field
        if isinstance(value, int):
            buf += _U32.pack(value)
        elif field is SIGNATURE:
            buf.append(len(value))
            buf += value.encode()
            buf.append(0)
        else:
            pack_string(buf, value)
    _U32.pack_into(buf, 12, len(buf) - HEAD_BYTES)
    buf += bytes(-len(buf) & 7)
    return buf


def finish(buf: bytearray, body_at: int, serial: int) -> bytearray:
    """Set what is known only when the body stands."""
    LENGTH_AND_SERIAL.pack_into(buf, LENGTH_AT, len(buf) - body_at, serial)
    return buf


class Head(NamedTuple):
    """The first 16 bytes of a message: enough to know how long it is."""

    kind: int
    flags: int
    serial: int
    order: str
    fields_end: int
    body_at: int
    total: int


def read_head(data: bytes | bytearray, at: int) -> Head:
    """Read the 16 bytes at *at*; what they say cannot be recovered from when it is wrong."""
    order = _ORDERS.get(data[at])
    if order is None:
        raise WireError("not a D-Bus message")
    _, kind, flags, version, body, serial, fields = _HEAD[order].unpack_from(data, at)
    body_at = HEAD_BYTES + fields + (-fields & 7)
    if version != 1 or body > _BODY_BYTES or fields > _FIELDS_BYTES:
        raise WireError("not a D-Bus message of version 1")
    return Head(kind, flags, serial, order, HEAD_BYTES + fields, body_at, body_at + body)


def quick_sender(head: Head, data: bytes) -> bytes:
    """Find the sender without reading the header with care; b"" where it is not seen so."""
    at = data.find(SENDER, HEAD_BYTES, head.fields_end - 4)
    return data[at + 8 : at + 8 + data[at + 4]] if at > 0 and head.order == "<" else b""


class Incoming:
    """A message that came in; its body stays bytes until somebody wants it."""

    __slots__ = (
        "body",
        "descriptors",
        "destination",
        "error_name",
        "flags",
        "interface",
        "kind",
        "member",
        "order",
        "path",
        "reply_serial",
        "sender",
        "serial",
        "signature",
        "unix_fds",
    )

    def __init__(self, head: Head) -> None:
        self.kind = head.kind
        self.flags = head.flags
        self.serial = head.serial
        self.order = head.order
        self.path = self.interface = self.member = self.error_name = ""
        self.destination = self.sender = self.signature = ""
        self.reply_serial = self.unix_fds = 0
        self.body = b""
        self.descriptors: list[int] = []

    def values(self) -> list[Any]:
        """Decode the body of an answer or a signal."""
        return decode_any(self.signature, self.order)(self.body)


def parse(head: Head, data: bytes) -> Incoming:
    """Read the header fields in *data*, which begins with the message and may lack its body.

    Fields of another code are skipped, as the specification demands.
    """
    message = Incoming(head)
    end = head.fields_end
    number = _HEAD_U32[head.order]
    at = HEAD_BYTES
    try:
        while at < end:
            at += -at & 7
            field = data[at : at + 4]
            name = _FIELDS.get(field)
            value: str | int
            if name is None:
                if field[0] in _KNOWN_CODES:
                    raise WireError(f"header field {field[0]} of a wrong type")
                _, at = read_any_variant(head.order)(data, at + 1)
                continue
            at += 4
            if field[2] == 117:  # u
                value = number(data, at)[0]
                at += 4
            elif field[2] == 103:  # g
                value, at = read_signature(data, at)
            else:
                stop = at + 4 + number(data, at)[0]
                value = data[at + 4 : stop].decode()
                at = stop + 1
            setattr(message, name, value)
    except MALFORMED as error:
        raise WireError(f"malformed header: {error}") from error
    if at != end or not message.serial:
        raise WireError("malformed header")
    message.body = data[head.body_at :]
    return message

"""The framing that all netlink protocols share: messages, attributes, errors with their words.

Pure: bytes in, bytes out.  Knows no family, no command and no socket.  Source: netlink(7),
<linux/netlink.h>.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from mptcpd_dbus.core.errors import DecodeError

NLMSG_ERROR = 2
NLMSG_DONE = 3

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_CAPPED = 0x100  # in an error: the request is not repeated behind its header
NLM_F_ACK_TLVS = 0x200  # in an error: attributes follow

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

NLMSGERR_ATTR_MSG = 1
NLMSGERR_ATTR_MISS_TYPE = 5
NLMSGERR_ATTR_MISS_NEST = 6

HEADER = Struct("=IHHII")  # length, type, flags, sequence, sender
ATTRIBUTE = Struct("=HH")  # length, type
U8 = Struct("=B")
U16 = Struct("=H")
U32 = Struct("=I")
S32 = Struct("=i")


class Message(NamedTuple):
    """One message of a datagram; its payload lies between `start` and `end`."""

    kind: int
    flags: int
    sequence: int
    start: int
    end: int


class ErrorReply(NamedTuple):
    """What an NLMSG_ERROR or an NLMSG_DONE says; `errno` is 0 for success."""

    errno: int
    text: str = ""
    missing_type: int | None = None
    missing_nest: int | None = None


def align(length: int) -> int:
    """Round up to the four bytes on which messages and attributes begin."""
    return (length + 3) & ~3


def pack_message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """Put the header before *payload*."""
    return HEADER.pack(HEADER.size + len(payload), kind, flags, sequence, 0) + payload


def pack_attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    length = ATTRIBUTE.size + len(payload)
    return ATTRIBUTE.pack(length, kind) + payload + bytes(align(length) - length)


def pack_nest(kind: int, payload: bytes) -> bytes:
    """Make an attribute of packed attributes."""
    return pack_attribute(kind | NLA_F_NESTED, payload)


def messages(datagram: bytes) -> Iterator[Message]:
    """Walk the messages of a datagram."""
    position, size = 0, len(datagram)
    while position < size:
        if size - position < HEADER.size:
            raise DecodeError(f"netlink message header cut at byte {size}")
        length, kind, flags, sequence, _ = HEADER.unpack_from(datagram, position)
        if length < HEADER.size or position + length > size:
            raise DecodeError(f"netlink message of {length} bytes at {position} in {size} bytes")
        yield Message(kind, flags, sequence, position + HEADER.size, position + length)
        position += align(length)


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Walk attributes as (type, start, end) of their payload; never beyond *end*."""
    if end > len(data):
        raise DecodeError(f"attributes up to byte {end} in {len(data)} bytes")
    while start < end:
        if end - start < ATTRIBUTE.size:
            raise DecodeError(f"netlink attribute header cut at byte {end}")
        length, kind = ATTRIBUTE.unpack_from(data, start)
        if length < ATTRIBUTE.size or start + length > end:
            raise DecodeError(f"netlink attribute of {length} bytes at {start} in {end} bytes")
        yield kind & NLA_TYPE_MASK, start + ATTRIBUTE.size, start + length
        start += align(length)


def attribute_map(data: bytes, start: int, end: int) -> dict[int, tuple[int, int]]:
    """Give (start, end) of each attribute's payload by type; of repeated ones the last counts."""
    # Not made of attributes(): a dump has thousands of rows with ten attributes each.
    found = {}
    if end > len(data):
        raise DecodeError(f"attributes up to byte {end} in {len(data)} bytes")
    while start < end:
        if end - start < 4:
            raise DecodeError(f"netlink attribute header cut at byte {end}")
        length, kind = ATTRIBUTE.unpack_from(data, start)
        last = start + length
        if length < 4 or last > end:
            raise DecodeError(f"netlink attribute of {length} bytes at {start} in {end} bytes")
        found[kind & NLA_TYPE_MASK] = (start + 4, last)
        start = (last + 3) & ~3
    return found


def number(layout: Struct, data: bytes, start: int, end: int) -> int:
    """Read one number from an attribute, which may have grown but not shrunk."""
    if end - start < layout.size:
        raise DecodeError(f"netlink attribute of {end - start} bytes, at least {layout.size} due")
    value: int = layout.unpack_from(data, start)[0]
    return value


def octets(data: bytes, start: int, end: int, size: int) -> bytes:
    """Read *size* bytes from an attribute, which may have grown but not shrunk."""
    if end - start < size:
        raise DecodeError(f"netlink attribute of {end - start} bytes, at least {size} due")
    return data[start : start + size]


def error_reply(datagram: bytes, message: Message) -> ErrorReply:
    """Read an NLMSG_ERROR, or the NLMSG_DONE with which a dump ends, well or not."""
    _, flags, _, start, end = message
    errno = -number(S32, datagram, start, end)
    if not flags & NLM_F_ACK_TLVS:
        return ErrorReply(errno)
    start += S32.size
    if message.kind == NLMSG_ERROR:
        request_length = number(U32, datagram, start, end)
        start += HEADER.size if flags & NLM_F_CAPPED else align(request_length)
    text, missing_type, missing_nest = "", None, None
    for kind, first, last in attributes(datagram, start, end):
        if kind == NLMSGERR_ATTR_MSG:
            text = datagram[first:last].rstrip(b"\0\n").decode("utf-8", "replace")
        elif kind == NLMSGERR_ATTR_MISS_TYPE:
            missing_type = number(U32, datagram, first, last)
        elif kind == NLMSGERR_ATTR_MISS_NEST:
            missing_nest = number(U32, datagram, first, last)
    return ErrorReply(errno, text, missing_type, missing_nest)

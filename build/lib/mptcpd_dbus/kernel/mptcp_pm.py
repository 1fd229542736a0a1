"""The generic netlink family `mptcp_pm`: tables and codec for its events, commands and replies.

Pure: bytes in, core types out, and back.  Knows no socket, no family number and no state.  The only
place with the kernel's spelling.  Source: <linux/mptcp_pm.h>, <linux/mptcp.h>.
"""
# SPDX-License-Identifier: BSD-3-Clause

import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import IntEnum
from types import MappingProxyType

from mptcpd_dbus.core.commands import (
    AddAddr,
    Announce,
    Command,
    DelAddr,
    FlushAddrs,
    GetAddr,
    GetLimits,
    Remove,
    SetFlags,
    SetLimits,
    SubflowCreate,
    SubflowDestroy,
)
from mptcpd_dbus.core.errors import DecodeError, InvalidArgument
from mptcpd_dbus.core.events import (
    AddressRemoved,
    ConnectionClosed,
    ConnectionEstablished,
    ListenerClosed,
    ListenerCreated,
    MptcpEvent,
    NewAddress,
    NewConnection,
    NewSubflow,
    SubflowClosed,
    SubflowPriority,
)
from mptcpd_dbus.core.readings import LimitsRead
from mptcpd_dbus.core.types import AddressEntry, FourTuple
from mptcpd_dbus.kernel.address_entry import decode_address_nest, encode_address
from mptcpd_dbus.kernel.addresses import ipv4_text, ipv6_text
from mptcpd_dbus.kernel.family import GENL_HEADER
from mptcpd_dbus.kernel.netlink import (
    ATTRIBUTE,
    HEADER,
    S32,
    U8,
    U16,
    U32,
    ErrorReply,
    attributes,
    number,
    pack_attribute,
    pack_nest,
)

FAMILY = "mptcp_pm"
EVENT_GROUP = "mptcp_pm_events"


class CommandNumber(IntEnum):
    """The enum mptcp_pm_cmd; replies carry the number of their request."""

    ADD_ADDR = 1
    DEL_ADDR = 2
    GET_ADDR = 3
    FLUSH_ADDRS = 4
    SET_LIMITS = 5
    GET_LIMITS = 6
    SET_FLAGS = 7
    ANNOUNCE = 8
    REMOVE = 9
    SUBFLOW_CREATE = 10
    SUBFLOW_DESTROY = 11


class EventNumber(IntEnum):
    """The enum mptcp_event_type; it overlaps with the commands, but has a socket of its own."""

    CREATED = 1
    ESTABLISHED = 2
    CLOSED = 3
    ANNOUNCED = 6
    REMOVED = 7
    SUB_ESTABLISHED = 10
    SUB_CLOSED = 11
    SUB_PRIORITY = 13
    LISTENER_CREATED = 15
    LISTENER_CLOSED = 16


# enum mptcp_event_attr (1-18); families, TIMEOUT (14) and RESET_FLAGS (17) teach nothing
TOKEN, LOC_ID, REM_ID = 1, 3, 4
SADDR4, SADDR6, DADDR4, DADDR6 = 5, 6, 7, 8
SPORT, DPORT = 9, 10  # the only ones in network order
BACKUP, ERROR, FLAGS = 11, 12, 13
IF_IDX, RESET_REASON, SERVER_SIDE = 15, 16, 18
FLAG_DENY_JOIN_ID0 = 1
FLAG_SERVER_SIDE = 2

# The least payload of each event attribute, by number.
_SIZES = (0, 4, 2, 1, 1, 4, 16, 4, 16, 2, 2, 1, 1, 2, 4, 4, 4, 4, 1)
_KNOWN = len(_SIZES)
_LEAST = tuple(ATTRIBUTE.size + size for size in _SIZES)
_ATTRIBUTES_AT = HEADER.size + GENL_HEADER.size

_u16 = U16.unpack_from
_u32 = U32.unpack_from
_s32 = S32.unpack_from
_attribute = ATTRIBUTE.unpack_from

# Where the payload of each attribute begins, by number; 0 where it is missing.
_Offsets = list[int]


def decode_event(datagram: bytes) -> MptcpEvent | None:
    """Read one datagram of the event group; None for an event that came after this program.

    Raises DecodeError, and nothing else, for what the headers do not allow.  Attributes not known
    are passed over, those that older kernels lack take their defaults.
    """
    end = len(datagram)
    if end < _ATTRIBUTES_AT or _u32(datagram, 0)[0] != end:
        raise DecodeError(f"{end} bytes are not one generic netlink message")
    build = _BUILDERS.get(datagram[HEADER.size])
    if build is None:
        return None
    at = [0] * _KNOWN
    position = _ATTRIBUTES_AT
    while position < end:
        if end - position < 4:
            raise DecodeError(f"attribute header cut at byte {end}")
        length, kind = _attribute(datagram, position)
        if length < 4 or position + length > end:
            raise DecodeError(f"attribute of {length} bytes at {position} in {end} bytes")
        if kind < _KNOWN:
            if length < _LEAST[kind]:
                raise DecodeError(f"attribute {kind} of only {length} bytes")
            at[kind] = position + 4
        position += (length + 3) & -4
    return build(datagram, at)


def _token(data: bytes, at: _Offsets) -> int:
    if not at[TOKEN]:
        raise DecodeError("an event without a token")
    token: int = _u32(data, at[TOKEN])[0]
    return token


def _octet(data: bytes, offset: int) -> int:
    return data[offset] if offset else 0


def _port(data: bytes, offset: int) -> int:
    return data[offset] << 8 | data[offset + 1] if offset else 0


def _index(data: bytes, offset: int) -> int:
    return _s32(data, offset)[0] if offset else 0


def _remote_id(data: bytes, at: _Offsets) -> int:
    if not at[REM_ID]:
        raise DecodeError("an address event without the address ID")
    return data[at[REM_ID]]


def _address(data: bytes, ipv4_at: int, ipv6_at: int) -> tuple[str, bool]:
    if ipv4_at:
        return ipv4_text(data[ipv4_at : ipv4_at + 4]), False
    if ipv6_at:
        return ipv6_text(data[ipv6_at : ipv6_at + 16])
    raise DecodeError("an event without its address")


def _four_tuple(data: bytes, at: _Offsets) -> tuple[FourTuple, bool]:
    local, mapped = _address(data, at[SADDR4], at[SADDR6])
    remote, remote_mapped = _address(data, at[DADDR4], at[DADDR6])
    if mapped != remote_mapped or (":" in local) != (":" in remote):
        raise DecodeError(f"an event with addresses of two families: {local} and {remote}")
    if not (at[SPORT] and at[DPORT]):
        raise DecodeError("an event without its ports")
    return FourTuple(local, _port(data, at[SPORT]), remote, _port(data, at[DPORT])), mapped


def _connection(
    kind: type[NewConnection] | type[ConnectionEstablished],
) -> Callable[[bytes, _Offsets], MptcpEvent]:
    def build(data: bytes, at: _Offsets) -> MptcpEvent:
        four_tuple, mapped = _four_tuple(data, at)
        flags = _u16(data, at[FLAGS])[0] if at[FLAGS] else 0
        return kind(
            _token(data, at),
            four_tuple,
            _octet(data, at[LOC_ID]),
            _octet(data, at[REM_ID]),
            bool(flags & FLAG_SERVER_SIDE or _octet(data, at[SERVER_SIDE])),
            bool(flags & FLAG_DENY_JOIN_ID0),
            mapped,
        )

    return build


def _connection_closed(data: bytes, at: _Offsets) -> ConnectionClosed:
    return ConnectionClosed(_token(data, at))


def _new_address(data: bytes, at: _Offsets) -> NewAddress:
    address, _ = _address(data, at[DADDR4], at[DADDR6])
    return NewAddress(_token(data, at), _remote_id(data, at), address, _port(data, at[DPORT]))


def _address_removed(data: bytes, at: _Offsets) -> AddressRemoved:
    return AddressRemoved(_token(data, at), _remote_id(data, at))


def _subflow(
    kind: type[NewSubflow] | type[SubflowPriority],
) -> Callable[[bytes, _Offsets], MptcpEvent]:
    def build(data: bytes, at: _Offsets) -> MptcpEvent:
        four_tuple, mapped = _four_tuple(data, at)
        return kind(
            _token(data, at),
            four_tuple,
            _octet(data, at[LOC_ID]),
            _octet(data, at[REM_ID]),
            bool(_octet(data, at[BACKUP])),
            _index(data, at[IF_IDX]),
            mapped,
        )

    return build


def _subflow_closed(data: bytes, at: _Offsets) -> SubflowClosed:
    four_tuple, mapped = _four_tuple(data, at)
    return SubflowClosed(
        _token(data, at),
        four_tuple,
        _octet(data, at[LOC_ID]),
        _octet(data, at[REM_ID]),
        bool(_octet(data, at[BACKUP])),
        _index(data, at[IF_IDX]),
        mapped,
        _octet(data, at[ERROR]),
        _u32(data, at[RESET_REASON])[0] if at[RESET_REASON] else None,
    )


def _listener(
    kind: type[ListenerCreated] | type[ListenerClosed],
) -> Callable[[bytes, _Offsets], MptcpEvent]:
    def build(data: bytes, at: _Offsets) -> MptcpEvent:
        if not at[SPORT]:
            raise DecodeError("a listener event without its port")
        address, _ = _address(data, at[SADDR4], at[SADDR6])
        return kind(address, _port(data, at[SPORT]))

    return build


# By plain int: an IntEnum as key would hash in Python, for every event.
_BUILDERS: Mapping[int, Callable[[bytes, _Offsets], MptcpEvent]] = MappingProxyType(
    {
        int(number): build
        for number, build in (
            (EventNumber.CREATED, _connection(NewConnection)),
            (EventNumber.ESTABLISHED, _connection(ConnectionEstablished)),
            (EventNumber.CLOSED, _connection_closed),
            (EventNumber.ANNOUNCED, _new_address),
            (EventNumber.REMOVED, _address_removed),
            (EventNumber.SUB_ESTABLISHED, _subflow(NewSubflow)),
            (EventNumber.SUB_CLOSED, _subflow_closed),
            (EventNumber.SUB_PRIORITY, _subflow(SubflowPriority)),
            (EventNumber.LISTENER_CREATED, _listener(ListenerCreated)),
            (EventNumber.LISTENER_CLOSED, _listener(ListenerClosed)),
        )
    }
)

# MPTCP_PM_ATTR_*, the attributes of commands and replies; their numbers are a set of its own
ATTR_ADDR, ATTR_RCV_ADD_ADDRS, ATTR_SUBFLOWS = 1, 2, 3
ATTR_TOKEN, ATTR_LOC_ID, ATTR_ADDR_REMOTE = 4, 5, 6
_ATTRIBUTE_NAMES = ("", "ADDR", "RCV_ADD_ADDRS", "SUBFLOWS", "TOKEN", "LOC_ID", "ADDR_REMOTE")
_NESTED_NAMES = ("", "FAMILY", "ID", "ADDR4", "ADDR6", "PORT", "FLAGS", "IF_IDX")


def encode(command: Command) -> tuple[CommandNumber, bytes]:
    """Give the number of a command and its attributes; InvalidArgument for what cannot be sent."""
    try:
        return _encode(command)
    except struct.error as error:
        raise InvalidArgument(f"{command} has a number out of range: {error}") from error


def _encode(command: Command) -> tuple[CommandNumber, bytes]:  # noqa: C901, PLR0912 - one case per command
    match command:
        case AddAddr(endpoint):
            return CommandNumber.ADD_ADDR, _address_attribute(endpoint)
        case DelAddr(id=identity):
            return CommandNumber.DEL_ADDR, pack_nest(
                ATTR_ADDR, encode_address(AddressEntry("", identity))
            )
        case GetAddr(token):
            return CommandNumber.GET_ADDR, b"" if token is None else _token_attribute(token)
        case FlushAddrs():
            return CommandNumber.FLUSH_ADDRS, b""
        case SetLimits(subflows, add_addr_accepted):
            return CommandNumber.SET_LIMITS, b"".join(
                pack_attribute(kind, U32.pack(limit))
                for kind, limit in (
                    (ATTR_RCV_ADD_ADDRS, add_addr_accepted),
                    (ATTR_SUBFLOWS, subflows),
                )
                if limit is not None
            )
        case GetLimits():
            return CommandNumber.GET_LIMITS, b""
        case SetFlags(local, token, remote):
            payload = pack_nest(ATTR_ADDR, encode_address(local, flags_always=True))
            if token is not None:
                payload += _token_attribute(token)
            if remote is not None:
                payload += _address_attribute(remote, ATTR_ADDR_REMOTE)
            return CommandNumber.SET_FLAGS, payload
        case Announce(token, local):
            # A mapped address would go out as an IPv6 one, which is useless to the peer.
            local = replace(local, mapped=False)
            return CommandNumber.ANNOUNCE, _address_attribute(local) + _token_attribute(token)
        case Remove(token, local_id):
            return CommandNumber.REMOVE, _token_attribute(token) + pack_attribute(
                ATTR_LOC_ID, U8.pack(local_id)
            )
        case SubflowCreate(token, local, remote):
            return CommandNumber.SUBFLOW_CREATE, _subflow_attributes(token, local, remote)
        case SubflowDestroy(token, local, remote):
            return CommandNumber.SUBFLOW_DESTROY, _subflow_attributes(token, local, remote)


def _address_attribute(entry: AddressEntry, kind: int = ATTR_ADDR) -> bytes:
    return pack_nest(kind, encode_address(entry))


def _token_attribute(token: int) -> bytes:
    return pack_attribute(ATTR_TOKEN, U32.pack(token))


def _subflow_attributes(token: int, local: AddressEntry, remote: AddressEntry) -> bytes:
    return (
        _address_attribute(local)
        + _address_attribute(remote, ATTR_ADDR_REMOTE)
        + _token_attribute(token)
    )


def decode_address_entry(payload: bytes) -> AddressEntry:
    """Read one reply to GET_ADDR, from its generic netlink header on."""
    for kind, start, end in attributes(payload, GENL_HEADER.size, len(payload)):
        if kind == ATTR_ADDR:
            return decode_address_nest(payload, start, end)
    raise DecodeError("a reply to GET_ADDR without an address")


def decode_limits(payload: bytes) -> LimitsRead:
    """Read the reply to GET_LIMITS, from its generic netlink header on."""
    limits = {
        kind: number(U32, payload, start, end)
        for kind, start, end in attributes(payload, GENL_HEADER.size, len(payload))
        if kind in (ATTR_RCV_ADD_ADDRS, ATTR_SUBFLOWS)
    }
    if len(limits) != 2:
        raise DecodeError("a reply to GET_LIMITS without its limits")
    return LimitsRead(limits[ATTR_SUBFLOWS], limits[ATTR_RCV_ADD_ADDRS])


def refusal_text(reply: ErrorReply) -> str:
    """Give the kernel's words or, where it has none, the name of the attribute that it missed."""
    if reply.text or reply.missing_type is None:
        return reply.text
    names = _ATTRIBUTE_NAMES if reply.missing_nest is None else _NESTED_NAMES
    known = reply.missing_type < len(names)
    return f"missing attribute {names[reply.missing_type] if known else reply.missing_type}"

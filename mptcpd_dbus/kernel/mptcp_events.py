"""The events of the generic netlink family `mptcp_pm`, from bytes to core types.

Pure: knows no socket, no family number and no state.  The kernel lays all events of a kind out
alike, so a layout is walked once and then kept: the next datagram is unpacked in one step, and its
attribute headers need only be the same.  Source: <linux/mptcp_pm.h>, <linux/mptcp.h>.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable, Container, Mapping, Sequence
from enum import IntEnum
from operator import itemgetter
from socket import ntohs
from struct import Struct
from types import MappingProxyType
from typing import Any, NamedTuple

from mptcpd_dbus.core.errors import DecodeError
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
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.kernel.addresses import ipv4_text, ipv6_text
from mptcpd_dbus.kernel.family import GENL_HEADER
from mptcpd_dbus.kernel.netlink import ATTRIBUTE, HEADER, U32, align, attributes

EVENT_GROUP = "mptcp_pm_events"


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


class _Attribute(IntEnum):
    """The enum mptcp_event_attr."""

    TOKEN = 1
    FAMILY = 2
    LOC_ID = 3
    REM_ID = 4
    SADDR4 = 5
    SADDR6 = 6
    DADDR4 = 7
    DADDR6 = 8
    SPORT = 9
    DPORT = 10
    BACKUP = 11
    ERROR = 12
    FLAGS = 13
    TIMEOUT = 14
    IF_IDX = 15
    RESET_REASON = 16
    RESET_FLAGS = 17
    SERVER_SIDE = 18


_A = _Attribute
FLAG_DENY_JOIN_ID0 = 1
FLAG_SERVER_SIDE = 2

# How the payload of each begins; ports are in network order.
_FORMS: Mapping[int, str] = {
    _A.TOKEN: "I",
    _A.FAMILY: "H",
    _A.LOC_ID: "B",
    _A.REM_ID: "B",
    _A.SADDR4: "4s",
    _A.SADDR6: "16s",
    _A.DADDR4: "4s",
    _A.DADDR6: "16s",
    _A.SPORT: "H",
    _A.DPORT: "H",
    _A.BACKUP: "B",
    _A.ERROR: "B",
    _A.FLAGS: "H",
    _A.TIMEOUT: "I",
    _A.IF_IDX: "i",
    _A.RESET_REASON: "I",
    _A.RESET_FLAGS: "I",
    _A.SERVER_SIDE: "B",
}
_HEADERS_SIZE = HEADER.size + GENL_HEADER.size
_MISSING = (0,)  # behind the values of each datagram, for what an older kernel does not tell
_LAYOUTS = 64  # so many are kept; some thirty are in use

_length = U32.unpack_from
_new = tuple.__new__  # half the price of a call of the class

_Values = tuple[Any, ...]
_Build = Callable[[_Values], MptcpEvent]
_Ends = Callable[[bytes, int, bytes, int], tuple[FourTuple, bool]]


class _Layout(NamedTuple):
    """How events of one kind and length look: every other value of `unpack` is of a header."""

    unpack: Callable[[bytes], _Values]
    headers: _Values
    pick: Callable[[_Values], _Values]
    build: _Build


_layouts: dict[tuple[int, int], _Layout] = {}


def decode_event(datagram: bytes) -> MptcpEvent | None:
    """Read one datagram of the event group; None for an event that came after this program.

    Raises DecodeError, and nothing else, for what the headers do not allow.  Attributes not known
    are passed over, those that older kernels lack take their defaults.
    """
    size = len(datagram)
    if size < _HEADERS_SIZE:
        raise DecodeError(f"{size} bytes are not one generic netlink message")
    layout = _layouts.get((datagram[HEADER.size], size))
    if layout is not None:
        values = layout.unpack(datagram)
        if values[::2] == layout.headers:
            return layout.build(layout.pick(values + _MISSING))
    return _decode_slowly(datagram)


def _decode_slowly(datagram: bytes) -> MptcpEvent | None:
    """Walk the attributes, and keep how they lie for the next of the kind."""
    size, number = len(datagram), datagram[HEADER.size]
    if _length(datagram)[0] != size:
        raise DecodeError(f"{size} bytes are not one generic netlink message")
    reader = _READERS.get(number)
    if reader is None:
        return None
    layout = _learn(datagram, reader)
    if len(_layouts) < _LAYOUTS or (number, size) in _layouts:
        _layouts[number, size] = layout
    return layout.build(layout.pick(layout.unpack(datagram) + _MISSING))


def _learn(datagram: bytes, reader: "_Reader") -> _Layout:
    form = f"=I{_HEADERS_SIZE - U32.size}s"
    places: dict[int, int] = {}
    place = 1
    for kind, start, end in attributes(datagram, _HEADERS_SIZE, len(datagram)):
        place += 2
        places[kind] = place  # of repeated ones the last counts
        known = _FORMS.get(kind, f"{end - start}s")
        rest = end - start - Struct("=" + known).size
        if rest < 0:
            raise DecodeError(f"attribute {kind} of only {end - start + ATTRIBUTE.size} bytes")
        form += f"I{known}{min(align(end), len(datagram)) - end + rest}x"
    unpack = Struct(form).unpack
    wanted, build = reader(places.keys())
    pick = itemgetter(*(places.get(kind, place + 1) for kind in wanted))
    return _Layout(unpack, unpack(datagram)[::2], pick, build)


# What is wanted of each kind of event, in the order in which its builder takes it.

_Reader = Callable[[Container[int]], tuple[Sequence[int], _Build]]


def _demand(found: Container[int], *kinds: _Attribute) -> None:
    for kind in kinds:
        if kind not in found:
            raise DecodeError(f"an event without its {kind.name}")


def _end(found: Container[int], ipv4: _Attribute, ipv6: _Attribute) -> _Attribute:
    if ipv4 in found:
        return ipv4
    _demand(found, ipv6)
    return ipv6


def _four_tuple(found: Container[int]) -> tuple[Sequence[_Attribute], _Ends]:
    _demand(found, _A.TOKEN, _A.SPORT, _A.DPORT)
    local, remote = _end(found, _A.SADDR4, _A.SADDR6), _end(found, _A.DADDR4, _A.DADDR6)
    if (local is _A.SADDR4) != (remote is _A.DADDR4):
        raise DecodeError("an event with addresses of two families")
    ends = _ipv4_ends if local is _A.SADDR4 else _ipv6_ends
    return (_A.TOKEN, local, _A.SPORT, remote, _A.DPORT, _A.LOC_ID, _A.REM_ID), ends


def _ipv4_ends(
    local: bytes, local_port: int, remote: bytes, remote_port: int
) -> tuple[FourTuple, bool]:
    ends = (ipv4_text(local), ntohs(local_port), ipv4_text(remote), ntohs(remote_port))
    return _new(FourTuple, ends), False


def _ipv6_ends(
    local: bytes, local_port: int, remote: bytes, remote_port: int
) -> tuple[FourTuple, bool]:
    here, mapped = ipv6_text(local)
    there, remote_mapped = ipv6_text(remote)
    if mapped != remote_mapped:
        raise DecodeError(f"an event with addresses of two families: {here} and {there}")
    return FourTuple(here, ntohs(local_port), there, ntohs(remote_port)), mapped


def _address(packed: bytes) -> str:
    return ipv4_text(packed) if len(packed) == 4 else ipv6_text(packed)[0]


def _connection(make: type[NewConnection] | type[ConnectionEstablished]) -> _Reader:
    def reader(found: Container[int]) -> tuple[Sequence[int], _Build]:
        wanted, ends = _four_tuple(found)

        def build(values: _Values) -> MptcpEvent:
            token, local, local_port, remote, remote_port, local_id, remote_id, flags, side = values
            four_tuple, mapped = ends(local, local_port, remote, remote_port)
            return make(
                token,
                four_tuple,
                local_id,
                remote_id,
                bool(flags & FLAG_SERVER_SIDE or side),
                bool(flags & FLAG_DENY_JOIN_ID0),
                mapped,
            )

        return (*wanted, _A.FLAGS, _A.SERVER_SIDE), build

    return reader


def _connection_closed(found: Container[int]) -> tuple[Sequence[int], _Build]:
    _demand(found, _A.TOKEN)
    return (_A.TOKEN, _A.TOKEN), lambda values: ConnectionClosed(values[0])


def _new_address(found: Container[int]) -> tuple[Sequence[int], _Build]:
    _demand(found, _A.TOKEN, _A.REM_ID)

    def build(values: _Values) -> MptcpEvent:
        token, remote_id, packed, port = values
        return NewAddress(token, remote_id, _address(packed), ntohs(port))

    return (_A.TOKEN, _A.REM_ID, _end(found, _A.DADDR4, _A.DADDR6), _A.DPORT), build


def _address_removed(found: Container[int]) -> tuple[Sequence[int], _Build]:
    _demand(found, _A.TOKEN, _A.REM_ID)
    return (_A.TOKEN, _A.REM_ID), lambda values: AddressRemoved(*values)


def _subflow(make: type[NewSubflow] | type[SubflowPriority]) -> _Reader:
    def reader(found: Container[int]) -> tuple[Sequence[int], _Build]:
        wanted, ends = _four_tuple(found)

        def build(values: _Values) -> MptcpEvent:
            token, local, local_port, remote, remote_port, local_id, remote_id, backup, index = (
                values
            )
            four_tuple, mapped = ends(local, local_port, remote, remote_port)
            return make(token, four_tuple, local_id, remote_id, bool(backup), index, mapped)

        return (*wanted, _A.BACKUP, _A.IF_IDX), build

    return reader


def _subflow_closed(found: Container[int]) -> tuple[Sequence[int], _Build]:
    wanted, ends = _four_tuple(found)
    has_reason = _A.RESET_REASON in found

    def build(values: _Values) -> MptcpEvent:
        token, *four, local_id, remote_id, backup, index, error, reason = values
        four_tuple, mapped = ends(*four)
        return SubflowClosed(
            token,
            four_tuple,
            local_id,
            remote_id,
            bool(backup),
            index,
            mapped,
            error,
            reason if has_reason else None,
        )

    return (*wanted, _A.BACKUP, _A.IF_IDX, _A.ERROR, _A.RESET_REASON), build


def _listener(make: type[ListenerCreated] | type[ListenerClosed]) -> _Reader:
    def reader(found: Container[int]) -> tuple[Sequence[int], _Build]:
        _demand(found, _A.SPORT)

        def build(values: _Values) -> MptcpEvent:
            packed, port = values
            return make(_address(packed), ntohs(port))

        return (_end(found, _A.SADDR4, _A.SADDR6), _A.SPORT), build

    return reader


# By plain int: an IntEnum as key would hash in Python.
_READERS: Mapping[int, _Reader] = MappingProxyType(
    {
        int(number): reader
        for number, reader in (
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

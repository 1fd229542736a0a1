"""The generic netlink family `mptcp_pm`: tables and codec for its commands and replies.

Pure: bytes in, core types out, and back.  Knows no socket, no family number and no state.
`mptcp_events.py` reads its events.  Source: <linux/mptcp_pm.h>, <linux/mptcp.h>.
"""
# SPDX-License-Identifier: BSD-3-Clause

import struct
from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from typing import Any

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
from mptcpd_dbus.core.readings import LimitsRead
from mptcpd_dbus.core.types import AddressEntry
from mptcpd_dbus.kernel.address_entry import decode_address_nest, encode_address
from mptcpd_dbus.kernel.family import GENL_HEADER
from mptcpd_dbus.kernel.netlink import (
    U8,
    U32,
    ErrorReply,
    attributes,
    number,
    pack_attribute,
    pack_nest,
)

FAMILY = "mptcp_pm"


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


# MPTCP_PM_ATTR_*, the attributes of commands and replies; their numbers are a set of its own
ATTR_ADDR, ATTR_RCV_ADD_ADDRS, ATTR_SUBFLOWS = 1, 2, 3
ATTR_TOKEN, ATTR_LOC_ID, ATTR_ADDR_REMOTE = 4, 5, 6
_ATTRIBUTE_NAMES = ("", "ADDR", "RCV_ADD_ADDRS", "SUBFLOWS", "TOKEN", "LOC_ID", "ADDR_REMOTE")
_NESTED_NAMES = ("", "FAMILY", "ID", "ADDR4", "ADDR6", "PORT", "FLAGS", "IF_IDX")


def encode(command: Command) -> tuple[CommandNumber, bytes]:
    """Give the number of a command and its attributes; InvalidArgument for what cannot be sent."""
    number, attributes_of = _COMMANDS[type(command)]
    try:
        return number, attributes_of(command)
    except struct.error as error:
        raise InvalidArgument(f"{command} has a number out of range: {error}") from error


def _limits(command: SetLimits) -> bytes:
    return b"".join(
        pack_attribute(kind, U32.pack(limit))
        for kind, limit in (
            (ATTR_RCV_ADD_ADDRS, command.add_addr_accepted),
            (ATTR_SUBFLOWS, command.subflows),
        )
        if limit is not None
    )


def _flags(command: SetFlags) -> bytes:
    payload = pack_nest(ATTR_ADDR, encode_address(command.local, flags_always=True))
    if command.token is not None:
        payload += _token_attribute(command.token)
    if command.remote is not None:
        payload += _address_attribute(command.remote, ATTR_ADDR_REMOTE)
    return payload


def _announcement(command: Announce) -> bytes:
    # A mapped address would go out as an IPv6 one, which is useless to the peer.
    local = replace(command.local, mapped=False)
    return _address_attribute(local) + _token_attribute(command.token)


def _removal(command: Remove) -> bytes:
    return _token_attribute(command.token) + pack_attribute(ATTR_LOC_ID, U8.pack(command.local_id))


def _subflow(command: SubflowCreate | SubflowDestroy) -> bytes:
    return (
        _address_attribute(command.local)
        + _address_attribute(command.remote, ATTR_ADDR_REMOTE)
        + _token_attribute(command.token)
    )


def _address_attribute(entry: AddressEntry, kind: int = ATTR_ADDR) -> bytes:
    return pack_nest(kind, encode_address(entry))


def _token_attribute(token: int) -> bytes:
    return pack_attribute(ATTR_TOKEN, U32.pack(token))


_COMMANDS: dict[type, tuple[CommandNumber, Callable[[Any], bytes]]] = {
    AddAddr: (CommandNumber.ADD_ADDR, lambda command: _address_attribute(command.endpoint)),
    DelAddr: (
        CommandNumber.DEL_ADDR,
        lambda command: _address_attribute(AddressEntry("", command.id)),
    ),
    GetAddr: (
        CommandNumber.GET_ADDR,
        lambda command: b"" if command.token is None else _token_attribute(command.token),
    ),
    FlushAddrs: (CommandNumber.FLUSH_ADDRS, lambda _: b""),
    SetLimits: (CommandNumber.SET_LIMITS, _limits),
    GetLimits: (CommandNumber.GET_LIMITS, lambda _: b""),
    SetFlags: (CommandNumber.SET_FLAGS, _flags),
    Announce: (CommandNumber.ANNOUNCE, _announcement),
    Remove: (CommandNumber.REMOVE, _removal),
    SubflowCreate: (CommandNumber.SUBFLOW_CREATE, _subflow),
    SubflowDestroy: (CommandNumber.SUBFLOW_DESTROY, _subflow),
}


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

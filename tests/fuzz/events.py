"""Fuzz target: a datagram of the event group.

It is read as if it were the first, and after others; packed anew, it is read again.
"""
# SPDX-License-Identifier: BSD-3-Clause

import json
from collections.abc import Iterator
from dataclasses import fields
from socket import AF_INET
from typing import Any

from mptcpd_dbus.core import events
from mptcpd_dbus.core.errors import DecodeError
from mptcpd_dbus.kernel import mptcp_events
from mptcpd_dbus.kernel.addresses import pack
from mptcpd_dbus.kernel.mptcp_events import EventNumber, decode_event
from mptcpd_dbus.kernel.netlink import S32, U8, U16, U32, pack_attribute
from tests.lab.sandbox import REPOSITORY

LENGTH = 256

_A = mptcp_events._A  # noqa: SLF001 - the numbers are wanted here as well

RECORDED = REPOSITORY / "tests/kernel/captures/events_min.json"
NUMBERS: dict[type[events.MptcpEvent], EventNumber] = {
    events.NewConnection: EventNumber.CREATED,
    events.ConnectionEstablished: EventNumber.ESTABLISHED,
    events.ConnectionClosed: EventNumber.CLOSED,
    events.NewAddress: EventNumber.ANNOUNCED,
    events.AddressRemoved: EventNumber.REMOVED,
    events.NewSubflow: EventNumber.SUB_ESTABLISHED,
    events.SubflowClosed: EventNumber.SUB_CLOSED,
    events.SubflowPriority: EventNumber.SUB_PRIORITY,
    events.ListenerCreated: EventNumber.LISTENER_CREATED,
    events.ListenerClosed: EventNumber.LISTENER_CLOSED,
}


def seeds() -> Iterator[bytes]:
    """Give each shape that was recorded."""
    for event in json.loads(RECORDED.read_text())["events"]:
        yield bytes.fromhex(event["raw"])


def check(data: bytes) -> None:
    """Read *data* as it is, and with the length that it says made right."""
    for datagram in (data, U32.pack(len(data)) + data[4:]):
        event = _read(datagram)
        layouts = mptcp_events._layouts  # noqa: SLF001 - what is kept of others must not matter
        known = dict(layouts)
        layouts.clear()
        for _ in range(2):  # once slowly, once as it has just been learnt
            assert _read(datagram) == event
        layouts.update(known)
        if event is not None:
            assert _read(_packed(event)) == event


def _read(datagram: bytes) -> events.MptcpEvent | None:
    try:
        return decode_event(datagram)
    except DecodeError:
        return None


def _packed(event: events.MptcpEvent) -> bytes:
    """Pack what the event says, as the kernel does."""
    said = {field.name: getattr(event, field.name) for field in fields(event)}
    attributes = b"".join(_attributes(event, said))
    header = U16.pack(0) + bytes(10) + bytes([NUMBERS[type(event)], 1, 0, 0])
    return U32.pack(20 + len(attributes)) + header + attributes


def _attributes(event: events.MptcpEvent, said: dict[str, Any]) -> Iterator[bytes]:
    if "token" in said:
        yield pack_attribute(_A.TOKEN, U32.pack(said["token"]))
    for name, kind in (("local_id", _A.LOC_ID), ("remote_id", _A.REM_ID)):
        if name in said:
            yield pack_attribute(kind, U8.pack(said[name]))
    if "four_tuple" in said:
        t = said["four_tuple"]
        yield from _end(t.local_address, t.local_port, said["mapped"], local=True)
        yield from _end(t.remote_address, t.remote_port, said["mapped"], local=False)
    elif "port" in said:
        of_listener = isinstance(event, events.ListenerCreated | events.ListenerClosed)
        yield from _end(said["address"], said["port"], mapped=False, local=of_listener)
    if "server_side" in said:
        flags = said["server_side"] * mptcp_events.FLAG_SERVER_SIDE
        flags |= said["deny_join_id0"] * mptcp_events.FLAG_DENY_JOIN_ID0
        yield pack_attribute(_A.FLAGS, U16.pack(flags))
    if "backup" in said:
        yield pack_attribute(_A.BACKUP, U8.pack(said["backup"]))
        yield pack_attribute(_A.IF_IDX, S32.pack(said["interface_index"]))
    if "error" in said:
        yield pack_attribute(_A.ERROR, U8.pack(said["error"]))
        if said["reset_reason"] is not None:
            yield pack_attribute(_A.RESET_REASON, U32.pack(said["reset_reason"]))


def _end(address: str, port: int, mapped: bool, *, local: bool) -> Iterator[bytes]:
    family, packed = pack(address, mapped=mapped)
    ipv4, ipv6 = (_A.SADDR4, _A.SADDR6) if local else (_A.DADDR4, _A.DADDR6)
    yield pack_attribute(ipv4 if family == AF_INET else ipv6, packed)
    yield pack_attribute(_A.SPORT if local else _A.DPORT, port.to_bytes(2, "big"))

"""Proves the writing of commands on recorded requests, and the reading of what answers them."""
# SPDX-License-Identifier: BSD-3-Clause

import contextlib
import json
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcpd_dbus.core import commands as c
from mptcpd_dbus.core.errors import DecodeError, InvalidArgument
from mptcpd_dbus.core.readings import LimitsRead
from mptcpd_dbus.core.types import AddressEntry
from mptcpd_dbus.kernel.mptcp_pm import (
    CommandNumber,
    decode_address_entry,
    decode_limits,
    encode,
    refusal_text,
)
from mptcpd_dbus.kernel.netlink import ErrorReply, pack_attribute, pack_nest

REQUESTS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "captures" / "errors.json").read_text()
)
DUMP = 0x03  # of NLM_F_DUMP, in the upper byte of the flags
Attributes = dict[int, bytes]


class InexpressibleError(Exception):
    """A request that no command of ours would make: a wrong one, sent to see what is said."""


def split(data: bytes) -> Attributes:
    """Take attributes apart, by hand, so as to be another witness than the code under test."""
    found: Attributes = {}
    while data:
        length = int.from_bytes(data[:2], "little")
        kind = int.from_bytes(data[2:4], "little")
        if kind & ~0x8000 in found:
            raise InexpressibleError
        found[kind & ~0x8000] = data[4:length]
        if kind & 0x8000 == 0 and kind in (1, 6) and length > 8 and data[4:8] == b"\x06\0\x01\0":
            raise InexpressibleError  # a nest without the mark
        data = data[(length + 3) & ~3 :]
    return found


def entry(nest: bytes, *, flags_always: bool = False) -> AddressEntry:
    """Read an address as an entry, if it is one that an entry can hold."""
    found = split(nest)
    if not found.keys() <= {1, 2, 3, 4, 5, 6, 7}:
        raise InexpressibleError
    sizes = {1: 2, 2: 1, 3: 4, 4: 16, 5: 2, 6: 4, 7: 4}
    if any(len(payload) != sizes[kind] for kind, payload in found.items()):
        raise InexpressibleError
    values = {k: int.from_bytes(v, "little", signed=k == 7) for k, v in found.items()}
    if flags_always is not (6 in values) and (flags_always or values.get(6) == 0):
        raise InexpressibleError
    if any(value == 0 for kind, value in values.items() if kind in (2, 5, 7)):
        raise InexpressibleError
    address = {2: 3, 10: 4}.get(values.get(1, 0), 0)
    if {k for k in found if k in (1, 3, 4)} not in ({1, address}, set()):
        raise InexpressibleError
    text, mapped = "", False
    if address == 3:
        text = socket.inet_ntoa(found[3])
    elif address == 4:
        text = socket.inet_ntop(socket.AF_INET6, found[4])
        mapped = text.startswith("::ffff:")
    return AddressEntry(
        text.removeprefix("::ffff:"),
        values.get(2, 0),
        values.get(5, 0),
        values.get(6, 0),
        values.get(7, 0),
        mapped,
    )


def command_of(request: bytes) -> c.Command:
    """Read a recorded request as the command that would make it."""
    dump = bool(request[7] & DUMP)
    found = split(request[20:])
    make = READERS.get((request[16], dump, *found))
    if make is None or request[17] != 1:
        raise InexpressibleError
    return make(found)


def deletion(nest: bytes) -> c.Command:
    """Read the nest of DEL_ADDR, which must hold an ID and nothing else."""
    found = entry(nest)
    if found != AddressEntry("", found.id) or not found.id:
        raise InexpressibleError
    return c.DelAddr(found.id)


def limit(payload: bytes | None) -> int | None:
    """Read a limit that may be missing."""
    if payload is None:
        return None
    if len(payload) != 4:
        raise InexpressibleError
    return int.from_bytes(payload, "little")


def token(found: Attributes) -> int:
    """Read the token."""
    return int.from_bytes(found[4], "little")


def flagged(nest: bytes) -> AddressEntry:
    """Read the local address of SET_FLAGS, which always has flags."""
    return entry(nest, flags_always=True)


# By command, whether it is a dump, and its attributes in order.
READERS: dict[tuple[int, ...], Callable[[Attributes], c.Command]] = {
    (1, False, 1): lambda a: c.AddAddr(entry(a[1])),
    (2, False, 1): lambda a: deletion(a[1]),
    (3, True): lambda _: c.GetAddr(),
    (3, True, 4): lambda a: c.GetAddr(token(a)),
    (4, False): lambda _: c.FlushAddrs(),
    **{
        (5, False, *kinds): lambda a: c.SetLimits(limit(a.get(3)), limit(a.get(2)))
        for kinds in ((), (2,), (3,), (2, 3))
    },
    (6, False): lambda _: c.GetLimits(),
    (7, False, 1): lambda a: c.SetFlags(flagged(a[1])),
    (7, False, 1, 4): lambda a: c.SetFlags(flagged(a[1]), token(a)),
    (7, False, 1, 4, 6): lambda a: c.SetFlags(flagged(a[1]), token(a), entry(a[6])),
    (8, False, 1, 4): lambda a: c.Announce(token(a), entry(a[1])),
    (9, False, 4, 5): lambda a: c.Remove(token(a), a[5][0]),
    (10, False, 1, 6, 4): lambda a: c.SubflowCreate(token(a), entry(a[1]), entry(a[6])),
    (11, False, 1, 6, 4): lambda a: c.SubflowDestroy(token(a), entry(a[1]), entry(a[6])),
}


def test_recorded_requests_are_written_byte_by_byte() -> None:
    written: Counter[str] = Counter()
    for recorded in REQUESTS:
        request = bytes.fromhex(recorded["request"])
        with contextlib.suppress(InexpressibleError):
            command = command_of(request)
            number, attributes = encode(command)

            assert (number, attributes.hex()) == (request[16], request[20:].hex()), recorded
            written[number.name] += 1

    assert written.keys() == {number.name for number in CommandNumber}
    assert written.total() > 200


MAPPED = AddressEntry("10.0.0.1", 3, 5000, mapped=True)


def test_a_mapped_address_is_sent_as_the_ipv6_address_that_the_event_had() -> None:
    _, attributes = encode(c.SubflowDestroy(7, MAPPED, MAPPED))

    found = split(attributes)
    for nest in (found[1], found[6]):
        inner = split(nest)
        assert inner[1] == b"\x0a\0"
        assert inner[4] == bytes(10) + b"\xff\xff\x0a\0\0\x01"
        assert inner[5] == (5000).to_bytes(2, "little")


def test_an_announced_address_is_never_sent_as_mapped() -> None:
    _, attributes = encode(c.Announce(7, MAPPED))

    inner = split(split(attributes)[1])
    assert (inner[1], inner[3]) == (b"\x02\0", b"\x0a\0\0\x01")


@pytest.mark.parametrize(
    "command",
    [
        c.DelAddr(256),
        c.SetLimits(subflows=-1),
        c.GetAddr(1 << 32),
        c.AddAddr(AddressEntry("10.0.0.1", port=65536)),
        c.AddAddr(AddressEntry("10.0.0.256")),
        c.AddAddr(AddressEntry("fe80::1%eth0")),
        c.AddAddr(AddressEntry("10.0.0.1\0")),
        c.AddAddr(AddressEntry("example.org")),
    ],
)
def test_what_cannot_be_sent_is_an_invalid_argument(command: c.Command) -> None:
    with pytest.raises(InvalidArgument):
        encode(command)


ENTRIES = st.builds(
    AddressEntry,
    st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map(str).filter(lambda a: not a.startswith("::ffff:")),
    st.integers(0, 255),
    st.integers(0, 65535),
    st.integers(0, 255),
    st.integers(0, 2**31 - 1),
)


@given(ENTRIES)
def test_an_address_comes_back_as_it_was_sent(given: AddressEntry) -> None:
    _, attributes = encode(c.AddAddr(given))

    # inet_ntop(3) and the ipaddress module write some addresses differently.
    back = decode_address_entry(b"\x03\x01\0\0" + attributes)

    _, again = encode(c.AddAddr(back))
    assert again == attributes
    assert (back.id, back.port, back.flags, back.interface_index) == (
        given.id,
        given.port,
        given.flags,
        given.interface_index,
    )


@given(st.binary(max_size=80))
def test_replies_of_arbitrary_bytes_raise_nothing_but_decode_errors(data: bytes) -> None:
    for decode in (decode_address_entry, decode_limits):
        for payload in (data, b"\x03\x01\0\0" + pack_nest(1, data)):
            with contextlib.suppress(DecodeError):
                decode(payload)


def test_limits_are_read_from_their_reply() -> None:
    subflows = pack_attribute(3, b"\x02\0\0\0")
    accepted = pack_attribute(2, b"\x05\0\0\0")

    assert decode_limits(b"\x06\x01\0\0" + accepted + subflows) == LimitsRead(2, 5)
    with pytest.raises(DecodeError):
        decode_limits(b"\x06\x01\0\0" + accepted)


def test_a_refusal_without_words_names_the_missing_attribute() -> None:
    for recorded in REQUESTS:
        missed = recorded.get("miss_type")
        if missed is not None:
            text = refusal_text(ErrorReply(22, "", missed))
            name = {1: "ADDR", 4: "TOKEN", 5: "LOC_ID", 6: "ADDR_REMOTE"}[missed]
            assert text == f"missing attribute {name}"
    assert refusal_text(ErrorReply(22, "", 5, 20)) == "missing attribute PORT"
    assert refusal_text(ErrorReply(22, "", 99)) == "missing attribute 99"
    assert refusal_text(ErrorReply(22, "invalid token", 4)) == "invalid token"
    assert refusal_text(ErrorReply(1)) == ""

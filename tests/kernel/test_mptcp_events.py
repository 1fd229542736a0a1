"""Proves the reading of events on one recorded datagram of each shape, whole, cut and enriched."""
# SPDX-License-Identifier: BSD-3-Clause

import contextlib
import json
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcpd_dbus.core import events
from mptcpd_dbus.core.errors import DecodeError
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.kernel.mptcp_events import decode_event
from mptcpd_dbus.kernel.netlink import U32, align, pack_attribute

CAPTURES = json.loads((Path(__file__).parent / "captures" / "events_min.json").read_text())
RECORDED: list[dict[str, Any]] = CAPTURES["events"]
HEADERS = 20  # nlmsghdr and genlmsghdr
FLAGS, SERVER_SIDE = 13, 18

recorded = pytest.mark.parametrize(
    "event", RECORDED, ids=[f"{i}-{e['type']}-{e['scenario']}" for i, e in enumerate(RECORDED)]
)


def datagram(event: dict[str, Any], attributes: bytes | None = None) -> bytes:
    """Return the recorded datagram or, with other attributes, one of the right length."""
    raw = bytes.fromhex(event["raw"])
    if attributes is None:
        return raw
    return U32.pack(HEADERS + len(attributes)) + raw[4:HEADERS] + attributes


def pack(event: dict[str, Any], **other: bytes | None) -> bytes:
    """Pack the recorded attributes anew, some with another payload or left out."""
    return b"".join(
        pack_attribute(kind, payload)
        for kind, name, hexadecimal in event["attrs"]
        if (payload := other.get(name, bytes.fromhex(hexadecimal))) is not None
    )


def expected(kind: str, decoded: Mapping[str, Any]) -> events.MptcpEvent | None:
    """Build the event from recorded values; None where what it is about is lacking."""
    try:
        return _build(kind, decoded)
    except KeyError:
        return None


def _build(kind: str, d: Mapping[str, Any]) -> events.MptcpEvent:
    local, mapped = _text(d, "saddr")
    remote, _ = _text(d, "daddr")
    match kind:
        case "CLOSED":
            return events.ConnectionClosed(d["token"])
        case "REMOVED":
            return events.AddressRemoved(d["token"], d["rem_id"])
        case "ANNOUNCED":
            return events.NewAddress(d["token"], d["rem_id"], _sure(remote), d.get("dport", 0))
        case "LISTENER_CREATED" | "LISTENER_CLOSED":
            created = kind == "LISTENER_CREATED"
            listener = events.ListenerCreated if created else events.ListenerClosed
            return listener(_sure(local), d["sport"])
        case _:
            four_tuple = FourTuple(_sure(local), d["sport"], _sure(remote), d["dport"])
            ids = (d["token"], four_tuple, d.get("loc_id", 0), d.get("rem_id", 0))
            return _with_four_tuple(kind, d, ids, mapped)


def _with_four_tuple(
    kind: str, d: Mapping[str, Any], ids: tuple[int, FourTuple, int, int], mapped: bool
) -> events.MptcpEvent:
    flags = d.get("flags", 0)
    sides = (bool(flags & 2 or d.get("server_side")), bool(flags & 1), mapped)
    priority = (bool(d.get("backup")), d.get("if_idx", 0), mapped)
    match kind:
        case "CREATED":
            return events.NewConnection(*ids, *sides)
        case "ESTABLISHED":
            return events.ConnectionEstablished(*ids, *sides)
        case "SUB_ESTABLISHED":
            return events.NewSubflow(*ids, *priority)
        case "SUB_PRIORITY":
            return events.SubflowPriority(*ids, *priority)
        case "SUB_CLOSED":
            end = (d.get("error", 0), d.get("reset_reason"))
            return events.SubflowClosed(*ids, *priority, *end)
        case _:
            raise AssertionError(kind)


def _text(d: Mapping[str, Any], side: str) -> tuple[str | None, bool]:
    text = d.get(f"{side}4") or d.get(f"{side}6")
    if text is None:
        return None, False
    address = ip_address(text)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address), bool(mapped)


def _sure(text: str | None) -> str:
    if text is None:
        raise KeyError
    return text


def cut_in_attributes(event: dict[str, Any], end: int) -> dict[str, Any] | None:
    """Return the values that are whole before *end*; None where an attribute is cut."""
    left = {}
    position = HEADERS
    for _, name, payload in event["attrs"]:
        if end <= position:
            break
        payload_end = position + 4 + len(payload) // 2
        if end < payload_end:
            return None
        left[name] = event["decoded"][name]
        position = align(payload_end)
    return left


@recorded
def test_an_event_is_read_as_recorded(event: dict[str, Any]) -> None:
    assert decode_event(datagram(event)) == expected(event["type"], event["decoded"])


def test_every_kind_of_event_was_recorded() -> None:
    kinds = {type(decode_event(datagram(event))) for event in RECORDED}

    assert len(RECORDED) == 56
    assert kinds == set(events.MptcpEvent.__args__)


@recorded
def test_a_cut_datagram_is_an_error(event: dict[str, Any]) -> None:
    whole = datagram(event)
    for end in range(len(whole)):
        with pytest.raises(DecodeError):
            decode_event(whole[:end])


@recorded
def test_a_shorter_message_is_an_error_unless_only_what_may_be_missing_is(
    event: dict[str, Any],
) -> None:
    whole = datagram(event)
    for end in range(HEADERS, len(whole)):
        left = cut_in_attributes(event, end)
        still = expected(event["type"], left) if left is not None else None
        shorter = datagram(event, whole[HEADERS:end])
        if still is None:
            with pytest.raises(DecodeError):
                decode_event(shorter)
        else:
            assert decode_event(shorter) == still


@recorded
@pytest.mark.parametrize(
    "unknown", [pack_attribute(k, bytes(n)) for k in (0, 19, 99, 0x8063) for n in (0, 1, 4, 20)]
)
def test_an_unknown_attribute_changes_nothing(event: dict[str, Any], unknown: bytes) -> None:
    parts = [pack_attribute(kind, bytes.fromhex(payload)) for kind, _, payload in event["attrs"]]
    for place in {0, len(parts) // 2, len(parts)}:
        enriched = datagram(event, b"".join([*parts[:place], unknown, *parts[place:]]))

        assert decode_event(enriched) == decode_event(datagram(event))


@recorded
def test_an_attribute_that_is_too_short_is_an_error(event: dict[str, Any]) -> None:
    for _, name, hexadecimal in event["attrs"]:
        with pytest.raises(DecodeError):
            decode_event(datagram(event, pack(event, **{name: bytes.fromhex(hexadecimal)[:-1]})))


@recorded
def test_the_order_of_attributes_means_nothing(event: dict[str, Any]) -> None:
    parts = [pack_attribute(kind, bytes.fromhex(payload)) for kind, _, payload in event["attrs"]]

    backwards = datagram(event, b"".join(reversed(parts)))

    assert decode_event(backwards) == decode_event(datagram(event))


@pytest.mark.parametrize("event", [e for e in RECORDED if e["type"] in ("CREATED", "ESTABLISHED")])
def test_linux_6_1_tells_the_side_without_flags(event: dict[str, Any]) -> None:
    old = pack(event, flags=None, server_side=None)
    server = old + pack_attribute(SERVER_SIDE, b"\x01")
    client = old + pack_attribute(SERVER_SIDE, b"\x00")
    flagged = old + pack_attribute(FLAGS, b"\x02\x00")

    sides = []
    for attributes in (server, client, old, flagged):
        new = decode_event(datagram(event, attributes))
        assert isinstance(new, events.NewConnection | events.ConnectionEstablished)
        assert new.four_tuple == decode_event(datagram(event)).four_tuple  # type: ignore[union-attr]  # the kind is known by the parameter
        sides.append(new.server_side)

    assert sides == [True, False, False, True]


def test_addresses_of_two_families_are_an_error() -> None:
    event = next(e for e in RECORDED if e["type"] == "CREATED" and "saddr4" in e["decoded"])
    mixed = pack(event, daddr4=None) + pack_attribute(8, bytes(15) + b"\x01")
    half_mapped = pack(event, saddr4=None, daddr4=None) + pack_attribute(6, bytes(15) + b"\x01")
    half_mapped += pack_attribute(8, bytes(10) + b"\xff\xff\x0a\x00\x00\x01")

    other_form = pack(event, daddr4=None)
    other_form += pack_attribute(8, bytes(10) + b"\xff\xff\x0a\x00\x00\x01")

    for attributes in (mixed, half_mapped, other_form):
        with pytest.raises(DecodeError, match="two families"):
            decode_event(datagram(event, attributes))


def test_an_event_of_a_newer_kernel_is_none() -> None:
    raw = bytearray(datagram(RECORDED[0]))
    for number in set(range(256)) - {1, 2, 3, 6, 7, 10, 11, 13, 15, 16}:
        raw[16] = number
        assert decode_event(bytes(raw)) is None


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_decode_errors(data: bytes) -> None:
    _harmless(data)
    _harmless(U32.pack(len(data) + 4) + data)


@given(st.sampled_from(RECORDED), st.data())
def test_damaged_events_raise_nothing_but_decode_errors(
    event: dict[str, Any], data: st.DataObject
) -> None:
    raw = bytearray(datagram(event))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(4, len(raw) - 1))] = data.draw(st.integers(0, 255))
    _harmless(bytes(raw))


def _harmless(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        event = decode_event(data)
        assert event is None or isinstance(event, events.MptcpEvent)

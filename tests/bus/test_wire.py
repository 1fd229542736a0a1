"""The wire format against dbus-next's own marshaller, and against everything malformed."""
# SPDX-License-Identifier: BSD-3-Clause

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import dbus_next
import pytest
from dbus_next._private.marshaller import Marshaller
from hypothesis import given
from hypothesis import strategies as st

from mptcpd_dbus.bus import message
from mptcpd_dbus.bus.decoding import decode, decode_any
from mptcpd_dbus.bus.signatures import WireError, complete_types
from mptcpd_dbus.bus.wire import Variant, encode


class Sample(NamedTuple):
    """A value as we send it, as dbus-next sends it, and as it is read."""

    signature: str
    ours: Any
    theirs: Any
    plain: Any


def _same(signature: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Sample]:
    return values.map(lambda value: Sample(signature, value, value, value))


_TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=9)
_PATHS = st.lists(st.text("azAZ09_", min_size=1, max_size=4), max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)
_KEYS = [
    _same("y", st.integers(0, 2**8 - 1)),
    _same("b", st.booleans()),
    _same("n", st.integers(-(2**15), 2**15 - 1)),
    _same("q", st.integers(0, 2**16 - 1)),
    _same("i", st.integers(-(2**31), 2**31 - 1)),
    _same("u", st.integers(0, 2**32 - 1)),
    _same("x", st.integers(-(2**63), 2**63 - 1)),
    _same("t", st.integers(0, 2**64 - 1)),
    _same("s", _TEXT),
    _same("o", _PATHS),
]
_BASIC = st.one_of(
    *_KEYS, _same("d", st.floats(allow_nan=False)), _same("g", st.sampled_from(["", "as", "(uq)"]))
)


def _variant(sample: Sample) -> Sample:
    theirs = dbus_next.Variant(sample.signature, sample.theirs)
    return Sample("v", Variant(sample.signature, sample.ours), theirs, sample.plain)


def _struct(samples: list[Sample]) -> Sample:
    return Sample(
        "(" + "".join(sample.signature for sample in samples) + ")",
        tuple(sample.ours for sample in samples),
        [sample.theirs for sample in samples],
        tuple(sample.plain for sample in samples),
    )


def _array(samples: list[Sample]) -> Sample:
    alike = [sample for sample in samples if sample.signature == samples[0].signature]
    columns: Sequence[list[Any]] = [list(column) for column in zip(*alike, strict=True)][1:]
    if alike[0].signature == "y":
        return Sample("ay", *(bytes(column) for column in columns))
    return Sample("a" + alike[0].signature, *columns)


def _dictionary(keys: list[Sample], values: list[Sample]) -> Sample:
    pairs = [
        (key, value)
        for key, value in zip(keys, values, strict=False)
        if key.signature == keys[0].signature and value.signature == values[0].signature
    ]
    return Sample(
        "a{" + keys[0].signature + values[0].signature + "}",
        {key.ours: value.ours for key, value in pairs},
        {key.theirs: value.theirs for key, value in pairs},
        {key.plain: value.plain for key, value in pairs},
    )


def _containers(inner: st.SearchStrategy[Sample]) -> st.SearchStrategy[Sample]:
    several = st.lists(inner, min_size=1, max_size=4)
    keys = st.lists(st.one_of(*_KEYS), min_size=1, max_size=4)
    return st.one_of(
        inner.map(_variant),
        several.map(_struct),
        several.map(_array),
        st.builds(_dictionary, keys, several),
    )


_BODIES = st.lists(st.recursive(_BASIC, _containers, max_leaves=6), max_size=5)


@given(_BODIES)
def test_a_body_is_packed_as_dbus_next_packs_it_and_read_again(body: list[Sample]) -> None:
    signature = "".join(sample.signature for sample in body)
    packed = bytearray()

    encode(signature)(packed, [sample.ours for sample in body])

    theirs = Marshaller(signature, [sample.theirs for sample in body]).marshall()
    assert packed == theirs
    assert decode_any(signature, "<")(bytes(packed)) == [sample.plain for sample in body]


@given(_BODIES)
def test_a_body_cut_at_any_byte_is_refused(body: list[Sample]) -> None:
    signature = "".join(sample.signature for sample in body)
    packed = bytearray()
    encode(signature)(packed, [sample.ours for sample in body])

    for stop in range(len(packed)):
        with pytest.raises(WireError):
            decode_any(signature, "<")(bytes(packed[:stop]))


@given(
    st.binary(max_size=64),
    st.sampled_from(["sqa{sv}", "a{sv}", "as", "s", "o", "g", "b", "v", "a(uv)", "dxt", "nihy"]),
    st.sampled_from("<>"),
)
def test_noise_is_read_or_refused_but_never_breaks(
    noise: bytes, signature: str, order: str
) -> None:
    for make in (decode, decode_any):
        try:
            values = make(signature, order)(noise)
        except WireError:
            continue
        assert len(values) == len(complete_types(signature))


def test_both_byte_orders_are_read() -> None:
    for order in "<>":
        body = struct.pack(order + "I", 5) + b"plain\0"
        body += struct.pack(order + "HI", 443, 1)

        assert decode("sqb", order)(body) == ["plain", 443, True]


def test_an_option_of_a_type_that_no_option_has_is_refused() -> None:
    allowed = {"b": True, "y": 1, "q": 2, "i": -3, "u": 4, "t": 5, "s": "x", "o": "/", "as": ["y"]}
    for signature, value in [*allowed.items(), ("d", 1.0), ("v", Variant("s", "")), ("ay", b"")]:
        packed = bytearray()
        encode("a{sv}")(packed, ({"Option": Variant(signature, value)},))
        if signature in allowed:
            assert decode("a{sv}", "<")(bytes(packed)) == [{"Option": value}]
        else:
            with pytest.raises(WireError, match="no option has the type"):
                decode("a{sv}", "<")(bytes(packed))


@pytest.mark.parametrize(
    ("signature", "values"),
    [
        ("s", ("a\0b",)),
        ("s", ("\ud800",)),
        ("s", (7,)),
        ("o", ("no/path",)),
        ("o", ("/a//b",)),
        ("o", ("/a\n",)),
        ("q", (65536,)),
        ("q", ("1",)),
        ("u", (-1,)),
        ("as", ([None],)),
        ("v", (Variant("uu", 1),)),
        ("v", (7,)),
        ("s", ()),
        ("s", ("a", "b")),
    ],
)
def test_a_value_that_the_bus_would_cut_us_off_for_is_not_packed(
    signature: str, values: tuple[Any, ...]
) -> None:
    with pytest.raises(WireError):
        encode(signature)(bytearray(), values)


@pytest.mark.parametrize(
    "signature",
    ["a", "(", "()", "(s", "a{vs}", "a{s}", "a{sss}", "{ss}", "z", "s)", "a" * 40 + "s"],
)
def test_a_malformed_signature_is_refused(signature: str) -> None:
    with pytest.raises(WireError):
        complete_types(signature)


def test_variants_in_variants_do_not_exhaust_the_stack() -> None:
    nested = b"\x01v\0" * 20_000 + b"\x01y\0\x07"

    with pytest.raises(WireError):
        decode_any("v", "<")(nested)


def test_signatures_of_callers_are_not_kept() -> None:
    packed = bytearray()
    encode("v")(packed, (Variant("(" + "u" * 200 + ")", tuple(range(200))),))
    before = decode.cache_info().currsize, encode.cache_info().currsize

    decode_any("v", "<")(bytes(packed))

    assert (decode.cache_info().currsize, encode.cache_info().currsize) == before


def _call() -> bytes:
    sent = dbus_next.Message(
        destination="org.mptcpd1",
        path="/org/mptcpd1",
        interface="org.mptcpd1.Manager",
        member="GetConnection",
        signature="u",
        body=[7],
        serial=5,
    )
    sent.sender = ":1.7"
    return bytes(sent._marshall())  # noqa: SLF001  dbus-next's marshaller is our measure


def _parse(data: bytes) -> message.Incoming:
    return message.parse(message.read_head(data, 0), data)


def test_a_header_of_dbus_next_is_read() -> None:
    incoming = _parse(_call())

    assert (incoming.kind, incoming.serial, incoming.flags) == (message.CALL, 5, 0)
    assert (incoming.path, incoming.interface) == ("/org/mptcpd1", "org.mptcpd1.Manager")
    assert (incoming.member, incoming.destination) == ("GetConnection", "org.mptcpd1")
    assert (incoming.signature, incoming.values()) == ("u", [7])


def test_our_header_is_read_by_dbus_next() -> None:
    fields: list[tuple[bytes, str | int]] = [
        (message.REPLY_SERIAL, 9),
        (message.DESTINATION, ":1.5"),
        (message.SIGNATURE, "s"),
    ]
    data = message.header(message.RETURN, fields)
    body_at = len(data)
    encode("s")(data, ("hello",))
    message.finish(data, body_at, 77)

    incoming = _parse(bytes(data))

    assert (incoming.reply_serial, incoming.serial, incoming.values()) == (9, 77, ["hello"])


def test_an_unknown_header_field_is_ignored() -> None:
    known = _call()
    for value in (b"\x01s\0" + struct.pack("<I", 1) + b"x\0", b"\x02as\0" + bytes(7)):
        end = message.read_head(known, 0).fields_end
        fields = known[16:end]
        fields += bytes(-len(fields) & 7) + b"\x0a" + value
        data = known[:12] + struct.pack("<I", len(fields)) + fields + bytes(-len(fields) & 7)

        incoming = _parse(data + struct.pack("<I", 7))

        assert (incoming.member, incoming.values()) == ("GetConnection", [7])


def test_a_header_cut_within_its_fields_is_refused() -> None:
    whole = _call()
    end = message.read_head(whole, 0).fields_end
    for stop in range(17, end):
        data = whole[:12] + struct.pack("<I", stop - 16) + whole[16:stop]
        data += bytes(-len(data) & 7)
        try:
            incoming = _parse(data)
        except WireError:
            continue
        # A cut between two fields leaves a header that lacks the later ones.
        assert not incoming.signature


@given(st.binary(min_size=48, max_size=48))
def test_a_header_of_noise_is_read_or_refused(noise: bytes) -> None:
    data = b"l\x01\0\x01" + struct.pack("<III", 0, 1, len(noise)) + noise
    try:
        incoming = _parse(data)
    except WireError:
        return
    assert incoming.serial == 1

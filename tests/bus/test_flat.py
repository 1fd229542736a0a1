"""The fast packers pack like `wire.py`, and refuse what that refuses."""
# SPDX-License-Identifier: BSD-3-Clause

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from mptcpd_dbus.bus.flat import encode_entries, encode_flat
from mptcpd_dbus.bus.interface import Interface, Property, Signal
from mptcpd_dbus.bus.published import CompiledInterface
from mptcpd_dbus.bus.signals import SIGNALS
from mptcpd_dbus.bus.signatures import WireError
from mptcpd_dbus.bus.wire import Variant, encode


@pytest.mark.parametrize("signal", [signal for signal, _ in SIGNALS.values()], ids=lambda s: s.name)
@given(data=st.data())
def test_the_fast_packer_of_signals_packs_like_the_other(signal: Signal, data: DataObject) -> None:
    values = [data.draw(_OF_SIGNALS[argument.signature]) for argument in signal.arguments]
    packed = bytearray()
    encode(signal.signature)(packed, values)

    assert encode_flat(signal.signature)(values) == packed


_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
_OF_SIGNALS = {
    "o": st.integers(0, 1 << 64).map(lambda number: f"/org/mptcpd1/connection/{number}"),
    "s": _TEXT,
    "b": st.booleans(),
    "y": st.integers(0, 0xFF),
    "q": st.integers(0, 0xFFFF),
    "u": st.integers(0, 0xFFFFFFFF),
    "i": st.integers(-1 << 31, (1 << 31) - 1),
}


@pytest.mark.parametrize(
    "values", [("a\0b", 1), ("\ud800", 1), ("text", 1 << 16), ("text", "1"), (1, 1), ("text",)]
)
def test_what_does_not_fit_a_signal_is_an_error(values: tuple[Any, ...]) -> None:
    with pytest.raises(WireError):
        encode_flat("sq")(values)


_OF_PROPERTIES = _OF_SIGNALS | {
    "n": st.integers(-1 << 15, (1 << 15) - 1),
    "x": st.integers(-1 << 63, (1 << 63) - 1),
    "t": st.integers(0, (1 << 64) - 1),
    "d": st.floats(),
    "as": st.lists(_TEXT, max_size=3),
    "a{su}": st.dictionaries(_TEXT, st.integers(0, 0xFFFFFFFF), max_size=3),
    "a(sq)": st.lists(st.tuples(_TEXT, st.integers(0, 0xFFFF)), max_size=3),
}
_HEAD = 8  # the length of an array, and what its first entry is aligned by


@given(
    names=st.lists(st.text("abcdefgh", min_size=1, max_size=9), unique=True, max_size=6),
    data=st.data(),
)
def test_the_fast_packer_of_properties_packs_like_the_other(
    names: list[str], data: DataObject
) -> None:
    signatures = [data.draw(st.sampled_from(sorted(_OF_PROPERTIES))) for _ in names]
    values = [data.draw(_OF_PROPERTIES[signature]) for signature in signatures]
    packed = bytearray()
    entries = zip(names, map(Variant, signatures, values), strict=True)
    encode("a{sv}")(packed, (dict(entries),))

    pack = encode_entries(list(zip(names, signatures, strict=True)))
    assert pack(values) == packed[_HEAD:]


@pytest.mark.parametrize(
    "values", [("a\0b", 1, {}), ("a", 256, {}), ("a", 1, 1), ("a", 1), (1, 1, {})]
)
def test_what_does_not_fit_a_property_is_an_error(values: tuple[Any, ...]) -> None:
    with pytest.raises(WireError):
        encode_entries([("Text", "s"), ("Number", "y"), ("Numbers", "a{su}")])(values)


@pytest.mark.parametrize("signature", ["b", "u", "s", "as", "a{su}"])
def test_a_property_that_cannot_be_read_is_left_out(signature: str) -> None:
    known = Property("Known", "u", lambda _: 7, "It is known.")
    wrong = Property("Wrong", signature, lambda _: 1 // 0, "It is not.")
    packed = bytearray(), bytearray()

    for buf, properties in zip(packed, ((known, wrong), (known,)), strict=True):
        interface = CompiledInterface(
            Interface("org.example", "An example.", properties=properties)
        )
        interface.pack_entries(buf, interface.read(None))

    assert packed[0] == packed[1]

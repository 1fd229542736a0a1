"""Bytes as D-Bus values: compiled decoders for both byte orders; whatever is malformed is refused.

Only decoders for signatures of our own are kept: a cache filled by callers would be a leak.
Source: D-Bus specification, "Marshaling".
"""
# SPDX-License-Identifier: BSD-3-Clause

import struct
from collections.abc import Callable
from functools import cache
from typing import Any

from mptcpd_dbus.bus.signatures import (
    ALIGNMENT,
    FIXED,
    MALFORMED,
    WireError,
    complete_types,
    is_path,
)

Read = Callable[[bytes, int], tuple[Any, int]]
Decode = Callable[[bytes], list[Any]]

_ARRAY_BYTES = 64 << 20
_VARIANTS = 8  # variants in variants that we follow in answers and signals


@cache
def decode(signature: str, order: str) -> Decode:
    """Return the decoder for bodies of *signature*, which must be one of ours.

    Variants in it may only hold what our options hold.
    """
    return _decoder(signature, order, 0)


def decode_any(signature: str, order: str) -> Decode:
    """Return a decoder for whatever *signature* an answer or a signal has; nothing is kept."""
    return _decoder(signature, order, _VARIANTS)


def _decoder(signature: str, order: str, variants: int) -> Decode:
    readers = [_reader(kind, order, variants) for kind in complete_types(signature)]

    def decode_body(body: bytes) -> list[Any]:
        values = []
        at = 0
        try:
            for read in readers:
                value, at = read(body, at)
                values.append(value)
        except MALFORMED as error:
            raise WireError(f"the body is not {signature!r}: {error}") from error
        if at != len(body):
            raise WireError(f"the body of {signature!r} has {len(body)} bytes, {at} were expected")
        return values

    return decode_body


def _reader(kind: str, order: str, variants: int) -> Read:
    if kind == "b":
        return _read_boolean(order)
    if kind in FIXED:
        return _read_fixed(kind, order)
    match kind[0]:
        case "s":
            return _read_string(order)
        case "o":
            return _read_path(order)
        case "g":
            return read_signature
        case "v":
            return _read_variant(order, variants)
        case "(":
            return _read_struct(kind, order, variants)
        case _:
            return _read_array(kind[1:], order, variants)


def _read_fixed(kind: str, order: str) -> Read:
    form, size = FIXED[kind]
    unpack = struct.Struct(order + form).unpack_from

    def read(body: bytes, at: int) -> tuple[Any, int]:
        at += -at % size
        return unpack(body, at)[0], at + size

    return read


def _read_boolean(order: str) -> Read:
    number = _read_fixed("u", order)

    def read(body: bytes, at: int) -> tuple[bool, int]:
        value, at = number(body, at)
        if value > 1:
            raise WireError(f"a boolean is 0 or 1, not {value}")
        return value == 1, at

    return read


def _read_string(order: str) -> Read:
    unpack = struct.Struct(order + "I").unpack_from

    def read(body: bytes, at: int) -> tuple[str, int]:
        at += (-at & 3) + 4
        stop = at + unpack(body, at - 4)[0]
        data = body[at:stop]
        if body[stop] or 0 in data:
            raise WireError("a string ends with its only NUL")
        return data.decode(), stop + 1

    return read


def _read_path(order: str) -> Read:
    string = _read_string(order)

    def read(body: bytes, at: int) -> tuple[str, int]:
        value, at = string(body, at)
        if not is_path(value):
            raise WireError(f"not an object path: {value!r}")
        return value, at

    return read


def read_signature(body: bytes, at: int) -> tuple[str, int]:
    """Read a signature, and check that it is one."""
    stop = at + 1 + body[at]
    if body[stop]:
        raise WireError("a signature ends with NUL")
    value = body[at + 1 : stop].decode("ascii")
    complete_types(value)
    return value, stop + 1


_OPTION_TYPES = ("b", "y", "q", "i", "u", "t", "s", "o", "as", "aq", "au")


@cache
def _option_readers(order: str) -> dict[str, Read]:
    return {kind: _reader(kind, order, 0) for kind in _OPTION_TYPES}


def _read_variant(order: str, variants: int) -> Read:
    options = _option_readers(order) if variants == 0 else {}

    def read(body: bytes, at: int) -> tuple[Any, int]:
        signature, at = read_signature(body, at)
        if variants == 0:
            if signature not in options:
                raise WireError(f"no option has the type {signature!r}")
            return options[signature](body, at)
        if len(complete_types(signature)) != 1:
            raise WireError(f"a variant holds one complete type, not {signature!r}")
        return _reader(signature, order, variants - 1)(body, at)

    return read


def _read_struct(kind: str, order: str, variants: int) -> Read:
    fields = [_reader(field, order, variants) for field in complete_types(kind[1:-1])]

    def read(body: bytes, at: int) -> tuple[tuple[Any, ...], int]:
        at += -at & 7
        values = []
        for field in fields:
            value, at = field(body, at)
            values.append(value)
        return tuple(values), at

    return read


def _read_array(element: str, order: str, variants: int) -> Read:
    unpack = struct.Struct(order + "I").unpack_from
    alignment = ALIGNMENT[element[0]]
    is_dict = element[0] == "{"
    read_element = (
        _read_struct(element, order, variants) if is_dict else _reader(element, order, variants)
    )

    def read(body: bytes, at: int) -> tuple[Any, int]:
        at += (-at & 3) + 4
        length = unpack(body, at - 4)[0]
        at += -at % alignment
        stop = at + length
        if length > _ARRAY_BYTES or stop > len(body):
            raise WireError(f"an array of {length} bytes does not fit")
        if element == "y":
            return body[at:stop], stop
        values = []
        while at < stop:
            value, at = read_element(body, at)
            values.append(value)
        if at != stop:
            raise WireError("an array ends within an element")
        return dict(values) if is_dict else values, at

    return read


def read_any_variant(order: str) -> Read:
    """Return a reader for one variant of whatever type, as in an unknown header field."""
    return _read_variant(order, _VARIANTS)

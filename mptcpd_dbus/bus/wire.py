"""The D-Bus wire format of values: compiled packers and decoders.

Knows bytes and nothing else, neither sockets nor our contract.  We write little endian and read
both.  Only signatures of our own are ever kept compiled: a cache filled by callers would be a leak.
Source: D-Bus specification, "Type System" and "Marshaling".
"""
# SPDX-License-Identifier: BSD-3-Clause

import re
import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple


class WireError(ValueError):
    """Bytes, or values, that are not what their signature says."""


class Variant(NamedTuple):
    """A value to be sent that brings its own type."""

    signature: str
    value: Any


Pack = Callable[[bytearray, Any], None]
PackAll = Callable[[bytearray, Sequence[Any]], None]
Read = Callable[[bytes, int], tuple[Any, int]]
Decode = Callable[[bytes], list[Any]]

# Type code: (struct code, alignment, which is the size as well).
_FIXED = {
    "y": ("B", 1),
    "b": ("?xxx", 4),
    "n": ("h", 2),
    "q": ("H", 2),
    "i": ("i", 4),
    "u": ("I", 4),
    "x": ("q", 8),
    "t": ("Q", 8),
    "d": ("d", 8),
    "h": ("I", 4),
}
_ALIGNMENT = {code: size for code, (_, size) in _FIXED.items()} | {
    "s": 4,
    "o": 4,
    "g": 1,
    "v": 1,
    "a": 4,
    "(": 8,
    "{": 8,
}
_PATH = re.compile(r"/(?:[A-Za-z0-9_]+(?:/[A-Za-z0-9_]+)*)?", re.ASCII)
_PAD4 = [bytes(-n & 3) for n in range(4)]
_PAD8 = [bytes(-n & 7) for n in range(8)]
_U32 = struct.Struct("<I")
_DEPTH = 32  # arrays in arrays, and structs in structs
_ARRAY_BYTES = 64 << 20
_VARIANTS = 8  # variants in variants that we follow in answers and signals

MALFORMED = (struct.error, IndexError, KeyError, TypeError, AttributeError, UnicodeError)


def is_path(text: str) -> bool:
    """Whether *text* is a valid object path."""
    return _PATH.fullmatch(text) is not None


def complete_types(signature: str) -> list[str]:
    """Take *signature* apart into its single complete types."""
    if len(signature) > 255:
        raise WireError("a signature has at most 255 characters")
    types = []
    start = 0
    while start < len(signature):
        stop = _end_of_type(signature, start, 0, 0)
        types.append(signature[start:stop])
        start = stop
    return types


def _end_of_type(signature: str, at: int, arrays: int, structs: int) -> int:
    code = signature[at : at + 1]
    if code in _FIXED or code in ("s", "o", "g", "v"):
        return at + 1
    if arrays >= _DEPTH or structs >= _DEPTH:
        raise WireError(f"signature nested too deeply: {signature!r}")
    if code == "a" and signature[at + 1 : at + 2] == "{":
        key = signature[at + 2 : at + 3]
        if key not in _FIXED and key not in ("s", "o", "g"):
            raise WireError(f"a dictionary needs a basic key: {signature!r}")
        stop = _end_of_type(signature, at + 3, arrays + 1, structs + 1)
        closing = "}"
    elif code == "a":
        return _end_of_type(signature, at + 1, arrays + 1, structs)
    elif code == "(":
        stop = _end_of_type(signature, at + 1, arrays, structs + 1)
        while signature[stop : stop + 1] not in (")", ""):
            stop = _end_of_type(signature, stop, arrays, structs + 1)
        closing = ")"
    else:
        raise WireError(f"not a signature: {signature!r}")
    if signature[stop : stop + 1] != closing:
        raise WireError(f"not a signature: {signature!r}")
    return stop + 1


# Packing


@cache
def encode(signature: str) -> PackAll:
    """Return the packer for values of *signature*, which must be one of ours."""
    steps, count = _pack_steps(complete_types(signature))

    def pack(buf: bytearray, values: Sequence[Any]) -> None:
        if len(values) != count:
            raise WireError(f"{signature!r} takes {count} values, not {len(values)}")
        try:
            for step, which in steps:
                step(buf, values[which])
        except MALFORMED as error:
            raise WireError(f"cannot pack as {signature!r}: {error}") from error

    return pack


def _pack_steps(types: list[str]) -> tuple[list[tuple[Pack, int | slice]], int]:
    """One step per value; fixed sizes that need no more alignment than the first go as one."""
    steps: list[tuple[Pack, int | slice]] = []
    at = 0
    while at < len(types):
        start = at
        if types[at] in _FIXED:
            alignment = _FIXED[types[at]][1]
            while at < len(types) and types[at] in _FIXED and _FIXED[types[at]][1] <= alignment:
                at += 1
            steps.append((_pack_run(types[start:at], alignment), slice(start, at)))
        else:
            at += 1
            steps.append((_pack_one(types[start]), start))
    return steps, len(types)


def _pack_run(types: list[str], alignment: int) -> Pack:
    layout, size = "<", 0
    for code in types:
        form, own = _FIXED[code]
        layout += "x" * (-size % own) + form
        size += -size % own + own
    packed = struct.Struct(layout).pack
    padding = [bytes(-n % alignment) for n in range(alignment)]
    mask = alignment - 1

    def pack(buf: bytearray, values: Any) -> None:
        buf += padding[len(buf) & mask]
        buf += packed(*values)

    return pack


def _pack_one(kind: str) -> Pack:
    if kind in _FIXED:
        run = _pack_run([kind], _FIXED[kind][1])
        return lambda buf, value: run(buf, (value,))
    match kind[0]:
        case "s":
            return pack_string
        case "o":
            return _pack_path
        case "g":
            return _pack_signature
        case "v":
            return _pack_variant
        case "(":
            return _pack_struct(kind)
        case _:
            return _pack_bytes if kind == "ay" else _pack_array(kind[1:])


def pack_string(buf: bytearray, value: Any) -> None:
    """Pack a string."""
    data = value.encode()
    if 0 in data:
        raise WireError("a string must not contain NUL")
    buf += _PAD4[len(buf) & 3]
    buf += _U32.pack(len(data))
    buf += data
    buf.append(0)


def _pack_path(buf: bytearray, value: Any) -> None:
    if not is_path(value):
        raise WireError(f"not an object path: {value!r}")
    pack_string(buf, value)


def _pack_signature(buf: bytearray, value: Any) -> None:
    complete_types(value)
    buf.append(len(value))
    buf += value.encode()
    buf.append(0)


def _pack_variant(buf: bytearray, value: Any) -> None:
    signature, content = value
    if len(complete_types(signature)) != 1:
        raise WireError(f"a variant holds one complete type, not {signature!r}")
    _pack_signature(buf, signature)
    encode(signature)(buf, (content,))


def _pack_struct(kind: str) -> Pack:
    fields = encode(kind[1:-1])

    def pack(buf: bytearray, value: Any) -> None:
        buf += _PAD8[len(buf) & 7]
        fields(buf, value)

    return pack


def _pack_bytes(buf: bytearray, value: Any) -> None:
    buf += _PAD4[len(buf) & 3]
    buf += _U32.pack(len(value))
    buf += bytes(value)


def _pack_array(element: str) -> Pack:
    is_dict = element[0] == "{"
    pack_element = _pack_struct(element) if is_dict else _pack_one(element)
    aligned = _ALIGNMENT[element[0]] == 8

    def pack(buf: bytearray, value: Any) -> None:
        at = begin_array(buf) if aligned else _begin_small_array(buf)
        for item in value.items() if is_dict else value:
            pack_element(buf, item)
        end_array(buf, at, aligned=aligned)

    return pack


def begin_array(buf: bytearray) -> int:
    """Begin an array of structs or dictionary entries; returns what `end_array` wants."""
    at = _begin_small_array(buf)
    buf += _PAD8[len(buf) & 7]
    return at


def _begin_small_array(buf: bytearray) -> int:
    buf += _PAD4[len(buf) & 3]
    buf += b"\0\0\0\0"
    return len(buf)


def end_array(buf: bytearray, at: int, *, aligned: bool = True) -> None:
    """Write the length of the array that began at *at*, without the padding before its content."""
    start = at + (-at & 7) if aligned else at
    _U32.pack_into(buf, at - 4, len(buf) - start)


def align8(buf: bytearray) -> None:
    """Pad *buf* to where a struct or a dictionary entry may begin."""
    buf += _PAD8[len(buf) & 7]


def entry_prefix(key: str, signature: str) -> bytes:
    """How an entry of `a{sv}` begins, up to its value: constant for a property."""
    buf = bytearray()
    pack_string(buf, key)
    _pack_signature(buf, signature)
    return bytes(buf)


# Decoding


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
    if kind in _FIXED:
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
    form, size = _FIXED[kind]
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


_OPTION_TYPES = ("b", "y", "q", "i", "u", "t", "s", "o", "as")


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
    alignment = _ALIGNMENT[element[0]]
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

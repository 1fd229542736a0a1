"""D-Bus values as bytes: compiled packers, little endian.

Knows bytes and nothing else, neither sockets nor our contract.  Packers are kept, for only
signatures of our own are ever packed.  Source: D-Bus specification, "Marshaling".
"""
# SPDX-License-Identifier: BSD-3-Clause

import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from mptcpd_dbus.bus.signatures import (
    ALIGNMENT,
    FIXED,
    MALFORMED,
    WireError,
    complete_types,
    is_path,
)


class Variant(NamedTuple):
    """A value to be sent that brings its own type."""

    signature: str
    value: Any


Pack = Callable[[bytearray, Any], None]
PackAll = Callable[[bytearray, Sequence[Any]], None]

_PAD4 = [bytes(-n & 3) for n in range(4)]
_PAD8 = [bytes(-n & 7) for n in range(8)]
_U32 = struct.Struct("<I")


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
        if types[at] in FIXED:
            alignment = FIXED[types[at]][1]
            while at < len(types) and types[at] in FIXED and FIXED[types[at]][1] <= alignment:
                at += 1
            steps.append((_pack_run(types[start:at], alignment), slice(start, at)))
        else:
            at += 1
            steps.append((_pack_one(types[start]), start))
    return steps, len(types)


def layout(types: list[str], position: int = 0, *, fill: bool = False) -> struct.Struct:
    """Lay fixed sizes out from *position* on; if it is to *fill*, up to the next four bytes."""
    whole = "<"
    for code in types:
        form, own = FIXED[code]
        whole += "x" * (-position % own) + form
        position += -position % own + own
    return struct.Struct(whole + "x" * (-position % 4 if fill else 0))


def _pack_run(types: list[str], alignment: int) -> Pack:
    packed = layout(types).pack
    padding = [bytes(-n % alignment) for n in range(alignment)]
    mask = alignment - 1

    def pack(buf: bytearray, values: Any) -> None:
        buf += padding[len(buf) & mask]
        buf += packed(*values)

    return pack


def _pack_one(kind: str) -> Pack:
    if kind in FIXED:
        run = _pack_run([kind], FIXED[kind][1])
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
    buf += _PAD4[len(buf) & 3] + _U32.pack(len(data)) + data + b"\0"


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
    aligned = ALIGNMENT[element[0]] == 8

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

"""D-Bus signatures: which are valid, how they fall into complete types, how types are aligned.

Source: D-Bus specification, "Type System" and "Marshaling".
"""
# SPDX-License-Identifier: BSD-3-Clause

import re
import struct


class WireError(ValueError):
    """Bytes, or values, that are not what their signature says."""


# What Python raises when bytes or values are not what they should be.
MALFORMED = (struct.error, IndexError, KeyError, TypeError, AttributeError, UnicodeError)

# Type code: (struct code, alignment, which is the size as well).
FIXED = {
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
ALIGNMENT = {code: size for code, (_, size) in FIXED.items()} | {
    "s": 4,
    "o": 4,
    "g": 1,
    "v": 1,
    "a": 4,
    "(": 8,
    "{": 8,
}
_PATH = re.compile(r"/(?:[A-Za-z0-9_]+(?:/[A-Za-z0-9_]+)*)?", re.ASCII)
_DEPTH = 32  # arrays in arrays, and structs in structs


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
    if code in FIXED or code in ("s", "o", "g", "v"):
        return at + 1
    if arrays >= _DEPTH or structs >= _DEPTH:
        raise WireError(f"signature nested too deeply: {signature!r}")
    if code == "a" and signature[at + 1 : at + 2] == "{":
        key = signature[at + 2 : at + 3]
        if key not in FIXED and key not in ("s", "o", "g"):
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

"""Fast packers for what is sent most: the arguments of signals, and the properties of an object.

Each is written as a program, as the standard library's data classes are, since every call less
counts on the way of an event.  `wire.py` packs the same, for any signature, and is what says which
value cannot be packed.
"""
# SPDX-License-Identifier: BSD-3-Clause

import struct
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

from mptcpd_dbus.bus.signatures import FIXED, MALFORMED, WireError, complete_types
from mptcpd_dbus.bus.wire import align8, encode, entry_prefix, layout

PackFlat = Callable[[Sequence[Any]], bytes]

_PROGRAM = """
def pack(values):
    try:
        [{names}] = values
        {texts}
        return b"".join([{parts}])
    except malformed as error:
        raise WireError(f"cannot pack as {{signature!r}}: {{error}}") from error
"""
_PAD8 = [bytes(-n & 7) for n in range(8)]
_U32 = struct.Struct("<I")


class _Writer:
    """Writes the program: what comes one after the other, and the names that it uses."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._parts: list[str] = []
        self._scope: dict[str, Any] = {
            "text": _text,
            "pad": _PAD8,
            "malformed": (ValueError, *MALFORMED),
            "WireError": WireError,
        }

    def name(self, thing: Any) -> str:
        """Give *thing* a name."""
        name = f"n{len(self._scope)}"
        self._scope[name] = thing
        return name

    def text(self, place: int) -> None:
        """Send the value at *place* next, a text: text0 are its bytes, end0 its length's end."""
        self._texts.append(f"text{place}, end{place} = text(v{place})")
        self.part(f"text{place}")

    def part(self, expression: str) -> None:
        """Send that next."""
        self._parts.append(expression)

    def compile(self, types: Sequence[str]) -> PackFlat:
        """Make the function."""
        program = _PROGRAM.format(
            names=", ".join(f"v{place}" for place in range(len(types))),
            texts="; ".join(self._texts) or "pass",
            parts=", ".join(self._parts),
        )
        self._scope["signature"] = "".join(types)
        exec(program, self._scope)  # noqa: S102 # of signatures of ours
        pack: PackFlat = self._scope["pack"]
        return pack


@cache
def encode_flat(signature: str) -> PackFlat:
    """Return the packer for a body of texts, our own paths and numbers up to 32 bits.

    Texts begin on four bytes, so where the numbers behind one lie follows from its length alone.
    """
    types = complete_types(signature)
    program = _Writer()
    starts = [0, *(at for at, code in enumerate(types) if code in "so" and at), len(types)]
    for start, end in pairwise(starts):
        is_text, fill = types[start] in "so", end < len(types)
        numbers = ", ".join(f"v{at}" for at in range(start + is_text, end))
        if is_text:
            behind = [
                layout(types[start + 1 : end], length + 1, fill=fill).pack for length in range(4)
            ]
            program.text(start)
            program.part(f"{program.name(behind)}[end{start}]({numbers})")
        else:
            pack = layout(types[start:end], 0, fill=fill).pack
            program.part(f"{program.name(pack)}({numbers})")
    return program.compile(types)


def encode_entries(properties: Sequence[tuple[str, str]]) -> PackFlat:
    """Return the packer for the entries of `a{sv}` of these names and signatures, in this order.

    Each begins on eight bytes, the last one is not padded.  Paths must be our own.
    """
    program = _Writer()
    for place, (name, signature) in enumerate(properties):
        prefix = entry_prefix(name, signature)
        is_last = place == len(properties) - 1
        if signature in FIXED:
            form, size = FIXED[signature]
            head = len(prefix) + -len(prefix) % size
            tail = 0 if is_last else -(head + size) % 8
            pack = struct.Struct(f"<{head}s{form}{tail}x").pack
            program.part(f"{program.name(pack)}({program.name(prefix)}, v{place})")
        elif signature in ("s", "o"):
            prefix += bytes(-len(prefix) % 4)
            program.part(program.name(prefix))
            program.text(place)
            if not is_last:
                program.part(f"pad[{len(prefix)} + len(text{place}) & 7]")
        else:
            other = program.name(_other(prefix, signature, is_last=is_last))
            program.part(f"{other}(v{place})")
    return program.compile([signature for _, signature in properties])


def _other(prefix: bytes, signature: str, *, is_last: bool) -> Callable[[Any], bytearray]:
    pack = encode(signature)

    def entry(value: Any) -> bytearray:
        buf = bytearray(prefix)
        pack(buf, (value,))
        if not is_last:
            align8(buf)
        return buf

    return entry


@lru_cache(maxsize=1024)  # the same few addresses, and each path about three times
def _text(value: str) -> tuple[bytes, int]:
    """Give a text as it is sent, and how far beyond four bytes it ends, without its NUL."""
    data = value.encode()
    if 0 in data:
        raise WireError("a string must not contain NUL")
    return _U32.pack(len(data)) + data + b"\0", len(data) & 3

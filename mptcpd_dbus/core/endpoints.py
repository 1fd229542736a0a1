"""Endpoints: the addresses that the in-kernel path manager works with (ip-mptcp(8))."""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import dataclass

from mptcpd_dbus.core.types import AddressEntry, AddressFlag

OURS, NETWORKMANAGER, OTHER = "mptcpd", "networkmanager", "other"
"""Who has added an endpoint, in the words of the property Origin."""

_WORDS = {flag.value: flag.name.lower() for flag in AddressFlag if flag.name}
_BITS = {word: bit for bit, word in _WORDS.items()}


@dataclass(slots=True, eq=False)
class Endpoint:
    """An endpoint; `entry` is what the kernel says of it, `origin` who has added it."""

    id: int
    entry: AddressEntry
    origin: str

    @property
    def ours(self) -> bool:
        """Whether this daemon added it."""
        return self.origin == OURS


def flag_words(flags: int) -> list[str]:
    """Spell *flags* as ip-mptcp(8) does, and bits that it has no name for in hexadecimal."""
    bits = (1 << n for n in range(flags.bit_length()) if flags >> n & 1)
    return [_WORDS.get(bit, f"0x{bit:x}") for bit in bits]


def flag_bits(words: list[str]) -> int:
    """Read what `flag_words` writes; raise ValueError naming the word that means nothing."""
    flags = 0
    for word in words:
        if word in _BITS:
            flags |= _BITS[word]
            continue
        try:
            bit = int(word, 16) if word.startswith("0x") else 0
        except ValueError:
            bit = 0
        if not 0 < bit < 1 << 32:
            known = ", ".join(_BITS)
            raise ValueError(f"unknown flag {word!r}; known are {known} and bits as 0x40")
        flags |= bit
    return flags

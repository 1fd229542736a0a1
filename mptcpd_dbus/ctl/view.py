"""What a command has to show, for programs and for people; pure.

Cells are text as it came, also from strangers: whoever prints them makes them harmless.
"""
# SPDX-License-Identifier: BSD-3-Clause

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

NOTHING = "-"
"""What stands in an empty cell, so that programs that count columns can."""

GAP = 2
_CUT = "..."


@dataclass(frozen=True)
class Column:
    """A column of a table; on a narrow terminal the ones of the highest rank go first.

    Those of rank 0 stay; *least* is how short its cells may be cut before anything is left out.
    """

    title: str
    rank: int = 0
    least: int | None = None


@dataclass(frozen=True)
class Table:
    """Rows with a title for each column, or instead of all that *empty*."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    empty: str


@dataclass(frozen=True)
class Pairs:
    """Names and what they stand for."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Line:
    """A line by itself; a heading stands out."""

    text: str
    heading: bool = False


Block = Table | Pairs | Line


@dataclass(frozen=True)
class View:
    """The same twice: one JSON object, and blocks of text."""

    data: dict[str, Any]
    blocks: Sequence[Block]


DONE = View({}, [])
"""What a command shows that did what it was told and has nothing to add."""


def cell(value: object) -> str:
    """Spell a value for a cell; nothing is a dash."""
    match value:
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ",".join(map(str, value)) or NOTHING
        case None | "":
            return NOTHING
        case _:
            return str(value)


def end(address: str, port: int) -> str:
    """Spell an address with a port."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def harmless(text: str) -> str:
    r"""Spell characters that steer a terminal, or hide in one, as \x1b; U+00AD and such, too."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", errors="surrogatepass").decode()


def width(text: str) -> int:
    """Give how many places a text takes on a terminal (Unicode Standard Annex 11)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def cut(text: str, room: int) -> str:
    """Give the text, or what of it fits with a mark that it goes on."""
    if width(text) <= room:
        return text
    while text and width(text) + len(_CUT) > room:
        text = text[:-1]
    return text + _CUT[:room]


def fit(columns: Sequence[Column], natural: Sequence[int], room: int) -> dict[int, int]:
    """Choose what fits into *room*: the index of each column that stays, and its width.

    Columns are left out only where cutting cells short is not enough, and then the others get
    back what that has freed.
    """
    shown = list(range(len(columns)))

    def least(index: int) -> int:
        shortest = columns[index].least
        return natural[index] if shortest is None else min(natural[index], shortest)

    def needs(sizes: Iterable[int]) -> int:
        return sum(size + GAP for size in sizes) - GAP

    while needs(map(least, shown)) > room:
        dear = max(shown, key=lambda index: columns[index].rank)
        if columns[dear].rank == 0:
            break
        shown.remove(dear)
    given = {index: least(index) for index in shown}
    for index in sorted(shown, key=lambda index: columns[index].rank):
        spare = room - needs(given.values())
        given[index] += max(0, min(spare, natural[index] - given[index]))
    given[shown[-1]] -= max(0, min(needs(given.values()) - room, given[shown[-1]] - len(_CUT)))
    return given

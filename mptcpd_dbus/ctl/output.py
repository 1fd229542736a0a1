"""Prints views: JSON for programs, text for pipes, text that fits for terminals, with colour.

Everything printed is made harmless here, so nowhere else has to think of it.
Colour: https://no-color.org and ECMA-48, section 8.3.117 (SGR).
"""
# SPDX-License-Identifier: BSD-3-Clause

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator

from mptcpd_dbus.ctl.view import GAP, Block, Line, Pairs, Table, View, cut, fit, harmless, width

_BOLD, _RED, _GREEN, _YELLOW = 1, 31, 32, 33
_STYLES = {
    "running": _GREEN,
    "established": _GREEN,
    "failed": _RED,
    "fallback": _YELLOW,
    "disabled": _YELLOW,
    "closing": _YELLOW,
}
_NARROWEST = 20  # what is left of a narrower terminal wraps as it likes


class Output:
    """Standard output, and what it can take."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._terminal = sys.stdout.isatty()
        dumb = os.environ.get("TERM", "dumb") == "dumb"
        self._colour = self._terminal and not (os.environ.get("NO_COLOR") or dumb)
        self.can_be_redrawn = self._terminal and not dumb and not as_json

    @property
    def _width(self) -> int | None:
        """How many columns there are now; None where there is no end of them."""
        return shutil.get_terminal_size().columns if self._terminal else None

    def show(self, view: View) -> None:
        """Print it, at once and whole."""
        lines = [json.dumps(view.data)] if self.as_json else self.lines(view)
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()

    def lines(self, view: View) -> list[str]:
        """Give the lines of its text."""
        return [line for block in view.blocks for line in self._lines(block)]

    def _lines(self, block: Block) -> Iterator[str]:
        match block:
            case Line(text, heading):
                yield self._styled(harmless(text), _BOLD if heading else None)
            case Pairs():
                yield from self._pairs(block)
            case Table(rows=[], empty=words):
                yield words
            case Table():
                yield from self._table(block)

    def _pairs(self, block: Pairs) -> Iterator[str]:
        """Give names, right-aligned and with a colon, and values, which wrap in their column."""
        indent = max((len(name) for name, _ in block.pairs), default=0) + 2
        for name, value in block.pairs:
            text, style = harmless(value), _STYLES.get(value)
            room = max((self._width or len(text)) - indent, _NARROWEST)
            first, *others = textwrap.wrap(text, room) if self._width else [text]
            yield self._styled(f"{name}: ".rjust(indent), _BOLD) + self._styled(first, style)
            for other in others:
                yield " " * indent + self._styled(other, style)

    def _table(self, table: Table) -> Iterator[str]:
        titles = [column.title for column in table.columns]
        rows = [titles, *([harmless(cell) for cell in row] for row in table.rows)]
        natural = [max(map(width, column)) for column in zip(*rows, strict=True)]
        shown = dict(enumerate(natural))
        if columns := self._width:
            shown = fit(table.columns, natural, columns)
        for row in rows:
            cells = []
            for index, room in shown.items():
                text = cut(row[index], room)
                style = _BOLD if row is titles else _STYLES.get(row[index])
                cells.append(self._styled(text, style) + " " * (room - width(text)))
            yield (" " * GAP).join(cells).rstrip()

    def _styled(self, text: str, style: int | None) -> str:
        return f"\033[{style}m{text}\033[0m" if self._colour and style else text

"""Tables fit the room there is, and no text does to a terminal what it likes."""
# SPDX-License-Identifier: BSD-3-Clause

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcpd_dbus.ctl.view import GAP, Column, cut, fit, harmless, width

COLUMNS = (Column("A"), Column("B", 1), Column("C", 2, least=3), Column("D", 3))
NATURAL = [10, 10, 10, 10]


@pytest.mark.parametrize(
    ("room", "shown"),
    [
        (80, {0: 10, 1: 10, 2: 10, 3: 10}),
        (46, {0: 10, 1: 10, 2: 10, 3: 10}),
        (45, {0: 10, 1: 10, 2: 9, 3: 10}),
        (39, {0: 10, 1: 10, 2: 3, 3: 10}),
        (38, {0: 10, 1: 10, 2: 10}),
        (27, {0: 10, 1: 10, 2: 3}),
        (26, {0: 10, 1: 10}),
        (21, {0: 10}),
        (7, {0: 7}),
    ],
)
def test_cells_are_cut_before_columns_are_left_out(room: int, shown: dict[int, int]) -> None:
    assert fit(COLUMNS, NATURAL, room) == shown


_SIZES = st.tuples(st.integers(1, 40), st.none() | st.integers(1, 9))


@given(_SIZES, st.lists(st.tuples(st.integers(1, 5), _SIZES)), st.integers(3, 200))
def test_a_table_with_one_column_that_stays_always_fits(
    first: tuple[int, int | None],
    others: list[tuple[int, tuple[int, int | None]]],
    room: int,
) -> None:
    sizes = [(0, first), *others]
    columns = [Column("", rank, least) for rank, (_, least) in sizes]

    shown = fit(columns, [size for _, (size, _) in sizes], room)

    assert 0 in shown
    assert all(0 < size <= sizes[index][1][0] for index, size in shown.items())
    assert sum(shown.values()) + GAP * (len(shown) - 1) <= room


@given(st.text(), st.integers(3, 20))
def test_a_cut_text_has_the_room_and_says_that_it_goes_on(text: str, room: int) -> None:
    shown = cut(text, room)

    assert width(shown) <= room
    assert shown == text or shown.endswith("...")


@given(st.text())
def test_nothing_that_steers_a_terminal_is_left(text: str) -> None:
    shown = harmless(text)

    assert all(unicodedata.category(c)[0] not in "CZ" or c == " " for c in shown)
    assert text.isprintable() == (shown == text)


def test_what_hides_or_turns_text_is_spelt_out() -> None:
    assert harmless("\x1b[2J\x9b\u202e\u00ad\ud800\n") == "\\x1b[2J\\x9b\\u202e\\xad\\ud800\\n"
    assert harmless("Zürich 日本") == "Zürich 日本"

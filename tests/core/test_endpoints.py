"""Flags of endpoints in ip-mptcp(8)'s words, both ways."""
# SPDX-License-Identifier: BSD-3-Clause

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcpd_dbus.core.endpoints import flag_bits, flag_words


@given(st.integers(0, (1 << 32) - 1))
def test_any_flags_survive_the_way_to_words_and_back(flags: int) -> None:
    assert flag_bits(flag_words(flags)) == flags


def test_flags_are_written_as_ip_mptcp_writes_them_and_unknown_bits_as_numbers() -> None:
    assert flag_words(1 | 4 | 64) == ["signal", "backup", "0x40"]


@pytest.mark.parametrize("word", ["sginal", "0x0", "0xzz", "0x100000000", "64", ""])
def test_a_word_that_means_nothing_is_named_with_those_that_do(word: str) -> None:
    with pytest.raises(ValueError, match=f"unknown flag '{word}'; known are signal, subflow"):
        flag_bits(["signal", word])

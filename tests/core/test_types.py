"""The words of the domain as people read them."""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.core.types import FourTuple, is_ipv6


def test_a_four_tuple_reads_like_ss_shows_it() -> None:
    assert str(FourTuple("10.0.1.1", 4000, "10.0.9.1", 80)) == "10.0.1.1:4000 - 10.0.9.1:80"
    assert str(FourTuple("fd00::1", 4000, "fd00::2", 80)) == "[fd00::1]:4000 - [fd00::2]:80"


def test_the_family_of_an_address_shows_in_its_text() -> None:
    assert is_ipv6("::1")
    assert not is_ipv6("127.0.0.1")

"""Addresses as people type them: which are taken, in which form, and how a refusal is worded."""
# SPDX-License-Identifier: BSD-3-Clause

import pytest

from mptcpd_dbus.core.addresses import read_address
from mptcpd_dbus.core.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_an_address_of_one_host_is_taken_in_its_usual_form(text: str, address: str) -> None:
    assert read_address("local_address", text) == address


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",  # noqa: S104 - nothing is bound
        "::",
        "::ffff:0.0.0.0",
        "224.0.0.1",
        "ff02::1",
        "::ffff:224.0.0.1",
        "169.254.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "2001:db8::1%2",
        "localhost",
    ],
)
def test_what_is_not_the_address_of_one_host_is_refused_by_argument_and_value(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read_address("local_address", text)

    assert str(refused.value).startswith(f"local_address: {text!r}")

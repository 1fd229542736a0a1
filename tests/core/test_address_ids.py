"""Which ID a local address has or gets; the rules were measured on a 6.18 kernel."""
# SPDX-License-Identifier: BSD-3-Clause

import pytest

from mptcpd_dbus.core import readings
from mptcpd_dbus.core.address_ids import free_id, known_id
from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.errors import LimitReached
from mptcpd_dbus.core.types import AddressEntry
from tests.core.example import CREATED, ESTABLISHED, JOINED, TOKEN, state_after

ADDRESS = ("10.0.2.1", 0)


def _connection(*entries: AddressEntry, joined: bool = False) -> Connection:
    state = state_after(CREATED, ESTABLISHED, *([JOINED] if joined else []))
    state.apply(readings.LocalAddressesRead(TOKEN, entries))
    return state.connections[TOKEN]


def test_an_address_has_the_id_that_the_kernels_table_says() -> None:
    assert known_id(_connection(AddressEntry("10.0.2.1", 7)), ADDRESS, {}) == 7


def test_an_address_with_a_source_port_is_an_entry_of_its_own() -> None:
    connection = _connection(AddressEntry("10.0.2.1", 7))

    assert known_id(connection, ("10.0.2.1", 5000), {}) is None
    assert known_id(_connection(AddressEntry("10.0.2.1", 8, 5000)), ADDRESS, {}) is None


def test_an_address_keeps_the_id_of_a_command_in_flight() -> None:
    assert known_id(_connection(), ADDRESS, {ADDRESS: 4}) == 4


def test_an_address_keeps_the_id_of_its_subflows_after_a_failed_join_deleted_the_entry() -> None:
    assert known_id(_connection(joined=True), ADDRESS, {}) == 1


def test_the_id_of_a_subflow_with_a_source_port_is_not_the_addresss_own() -> None:
    connection = _connection(AddressEntry("10.0.2.1", 1, 4001), joined=True)

    assert known_id(connection, ADDRESS, {}) is None


def test_the_initial_subflow_gives_its_address_no_id() -> None:
    assert known_id(_connection(), ("10.0.1.1", 0), {}) is None


def test_a_free_id_is_the_lowest_that_neither_table_nor_subflows_nor_commands_use() -> None:
    assert free_id(_connection(), ()) == 1
    assert free_id(_connection(joined=True), ()) == 2
    assert free_id(_connection(AddressEntry("10.0.3.1", 2), joined=True), ()) == 3
    assert free_id(_connection(AddressEntry("10.0.3.1", 2), joined=True), (3, 4)) == 5


def test_when_every_id_is_taken_the_error_says_what_to_do() -> None:
    assert free_id(_connection(), range(1, 255)) == 255
    with pytest.raises(LimitReached, match="a889fad4 are in use; remove an address"):
        free_id(_connection(), range(1, 256))

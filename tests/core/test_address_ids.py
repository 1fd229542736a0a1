"""Which ID a local address has or gets; the kernel's rules were measured on 6.18.

An address with another port gets another ID, unlike in mptcpd, whose ID manager leaves ports out:
for the kernel it is another entry, and a command that names it with the first one's ID is refused.
"""
# SPDX-License-Identifier: BSD-3-Clause

import pytest

from mptcpd_dbus.core import readings
from mptcpd_dbus.core.address_ids import AddressIds, Key, free_id, known_id
from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.errors import InvalidArgument, LimitReached
from mptcpd_dbus.core.types import AddressEntry
from tests.core.example import CREATED, ESTABLISHED, JOINED, TOKEN, state_after

ADDRESS = ("10.0.2.1", 0)
OTHER = ("10.0.3.1", 0)


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


# Withdrawn IDs.


def _use(ids: AddressIds, connection: Connection, key: Key, wanted: int = 0) -> int:
    with ids.in_flight(connection, key, wanted) as chosen:
        return chosen


def test_a_withdrawn_id_is_not_given_again_while_unused_ones_are_left() -> None:
    ids, connection = AddressIds(), _connection()
    assert _use(ids, connection, ADDRESS) == 1  # control: what is not withdrawn is given again
    assert _use(ids, connection, ADDRESS) == 1

    ids.withdraw(connection, 1)
    ids.withdraw(connection, 3)

    assert _use(ids, connection, ADDRESS) == 2
    with ids.in_flight(connection, OTHER, 2):
        assert _use(ids, connection, ADDRESS) == 4


def test_withdrawn_ids_are_given_again_in_the_order_of_their_withdrawal() -> None:
    ids, connection = AddressIds(), _connection()
    for address_id in (9, 7, *range(10, 256), *range(1, 7), 8):
        ids.withdraw(connection, address_id)

    assert _use(ids, connection, ADDRESS) == 9
    ids.withdraw(connection, 9)
    assert _use(ids, connection, ADDRESS) == 7
    ids.withdraw(connection, 7)
    assert _use(ids, connection, ADDRESS) == 10


def test_whoever_names_a_withdrawn_id_gets_it() -> None:
    ids, connection = AddressIds(), _connection()
    ids.withdraw(connection, 1)

    assert _use(ids, connection, ADDRESS, 1) == 1


def test_a_subflow_that_is_still_closing_does_not_bring_its_withdrawn_id_back() -> None:
    ids, connection = AddressIds(), _connection(joined=True)
    assert _use(ids, connection, ADDRESS) == 1

    ids.withdraw(connection, 1)

    assert _use(ids, connection, ADDRESS) == 2


def test_an_id_that_the_kernel_gave_after_its_withdrawal_is_the_addresss() -> None:
    ids, connection = AddressIds(), _connection(AddressEntry("10.0.2.1", 1))

    ids.withdraw(connection, 1)

    assert _use(ids, connection, ADDRESS) == 1


def test_what_was_withdrawn_is_forgotten_with_the_connection() -> None:
    ids, connection = AddressIds(), _connection()
    ids.withdraw(connection, 1)
    ids.reserve(connection, ADDRESS)

    ids.close(connection)

    assert _use(ids, connection, OTHER) == 1
    ids.close(connection)
    assert vars(ids) == {"_books": {}}


# Reserved IDs, as of mptcpd's ID manager.


def test_an_address_that_asks_twice_gets_the_same_id_and_others_get_others() -> None:
    ids, connection = AddressIds(), _connection()
    keys = [("10.0.2.1", 0), ("10.0.3.1", 0), ("fd00::1", 0), ("10.0.2.1", 5000)]

    asked = [ids.reserve(connection, key) for key in keys]

    assert asked == [1, 2, 3, 4]
    assert [ids.reserve(connection, key) for key in reversed(keys)] == asked[::-1]
    assert [_use(ids, connection, key) for key in keys] == asked
    assert _use(ids, connection, ("10.0.9.9", 0)) == 5


def test_an_address_is_mapped_to_an_id_and_anew_to_another() -> None:
    ids, connection = AddressIds(), _connection()

    ids.assign(connection, ADDRESS, 245)
    assert ids.reserve(connection, ADDRESS) == 245
    ids.assign(connection, ADDRESS, 222)

    assert ids.reserve(connection, ADDRESS) == 222
    ids.assign(connection, OTHER, 245)  # it is free again
    assert (_use(ids, connection, ADDRESS), _use(ids, connection, OTHER)) == (222, 245)


@pytest.mark.parametrize("address_id", [0, -1, 256])
def test_an_id_that_cannot_be_is_not_mapped(address_id: int) -> None:
    with pytest.raises(InvalidArgument, match=f"address_id: {address_id} is not between"):
        AddressIds().assign(_connection(), ADDRESS, address_id)


def test_an_id_that_another_address_has_is_not_mapped_and_the_error_names_that() -> None:
    ids = AddressIds()
    connection = _connection(AddressEntry("10.0.3.1", 7, 5000), joined=True)
    ids.assign(connection, ("10.0.4.1", 0), 9)

    for address_id, owner in ((7, "10.0.3.1 port 5000"), (9, "10.0.4.1"), (1, "10.0.2.1")):
        with pytest.raises(InvalidArgument, match=f"{address_id} is in use by {owner}"):
            ids.assign(connection, ("10.0.5.1", 0), address_id)


def test_an_address_in_use_under_an_id_is_not_mapped_to_another() -> None:
    ids, connection = AddressIds(), _connection(AddressEntry("10.0.2.1", 7))

    with pytest.raises(InvalidArgument, match=r"10\.0\.2\.1 is in use under ID 7; remove it first"):
        ids.assign(connection, ADDRESS, 8)
    ids.assign(connection, ADDRESS, 7)


def test_an_id_is_forgotten_once() -> None:
    ids, connection = AddressIds(), _connection()
    ids.assign(connection, ADDRESS, 5)

    assert [ids.forget(connection, ADDRESS) for _ in range(2)] == [5, 0]
    assert _use(ids, connection, ADDRESS) == 1


def test_a_reserved_id_is_kept_from_others_until_it_is_withdrawn() -> None:
    ids, connection = AddressIds(), _connection()
    assert ids.reserve(connection, ADDRESS) == 1
    assert _use(ids, connection, OTHER) == 2

    ids.withdraw(connection, 1)

    assert ids.reserve(connection, ADDRESS) == 2


def test_a_reservation_gives_way_to_the_kernels_own_choice() -> None:
    ids, connection = AddressIds(), _connection(AddressEntry("10.0.3.1", 2))
    with ids.in_flight(connection, OTHER, 9):
        ids.assign(connection, ADDRESS, 1)
    connection.local_addresses[1] = connection.local_addresses.pop(2)

    assert ids.reserve(connection, ADDRESS) == 2

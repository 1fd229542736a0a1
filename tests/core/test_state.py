"""Connections, subflows and addresses in the state: every rule that the kernel's events force."""
# SPDX-License-Identifier: BSD-3-Clause

import gc
from dataclasses import replace

import pytest

from mptcpd_dbus.core import events, readings
from mptcpd_dbus.core.connections import Subflow
from mptcpd_dbus.core.state import State
from mptcpd_dbus.core.types import AddressEntry, AddressFlag, ConnectionState, FourTuple
from tests.core.example import (
    CLOSED,
    CREATED,
    ESTABLISHED,
    FIRST,
    INITIAL_ROW,
    JOINED,
    JOINED_ROW,
    LEFT,
    LINK1,
    ROW,
    SECOND,
    THIRD,
    TOKEN,
    connection_after,
    state_after,
)

USERSPACE = readings.LocalAddressesRead(TOKEN, ())


def test_a_new_connection_brings_its_initial_subflow_which_has_no_event() -> None:
    state = State()

    change = state.apply(CREATED)

    connection = state.connections[TOKEN]
    initial = connection.subflows[FIRST]
    assert change is not None
    assert change.added == (connection, initial)
    assert initial.initial
    assert (initial.local_id, initial.remote_id) == (0, 0)
    assert connection.state is ConnectionState.CREATED


def test_a_new_connection_that_a_dump_had_found_is_told_once() -> None:
    state = state_after(CREATED)

    assert state.implied_by(CREATED) == []
    assert state.apply(CREATED) is None
    assert state.connections_seen == 1


def test_established_is_told_once() -> None:
    state = state_after(CREATED)

    change = state.apply(ESTABLISHED)

    assert change is not None
    assert change.changed == (state.connections[TOKEN],)
    assert state.connections[TOKEN].state is ConnectionState.ESTABLISHED
    assert state.apply(ESTABLISHED) is None


@pytest.mark.parametrize("where", ["created", "established"])
def test_the_peers_refusal_of_joins_to_id_zero_is_kept_whichever_event_tells_it(where: str) -> None:
    created = replace(CREATED, deny_join_id0=where == "created")
    established = replace(ESTABLISHED, deny_join_id0=where == "established")

    assert connection_after(created, established).deny_join_id0
    assert not connection_after(CREATED, ESTABLISHED).deny_join_id0


def test_closed_without_sub_closed_removes_everything_of_the_connection_and_itself_last() -> None:
    announced = events.NewAddress(TOKEN, 2, "10.0.4.2", 80)
    state = state_after(CREATED, ESTABLISHED)
    state.apply(USERSPACE)
    for event in (JOINED, announced):
        state.apply(event)
    connection = state.connections[TOKEN]
    content = (
        *connection.subflows.values(),
        connection.local_addresses[1],
        connection.remote_addresses[2],
    )

    change = state.apply(CLOSED)

    assert len(content) == 4
    assert change is not None
    assert change.removed == (*content, connection)
    assert not state.connections


def test_a_closed_connection_leaves_nothing_to_the_garbage_collector() -> None:
    closed, forgotten = (state_after(CREATED, ESTABLISHED, JOINED) for _ in range(2))
    gc.collect()
    gc.disable()
    try:
        closed.apply(CLOSED)
        assert gc.collect() == 0

        forgotten.connections.clear()  # control: what is only dropped refers to itself
        assert gc.collect() > 0
    finally:
        gc.enable()


def test_closed_for_a_connection_that_was_never_created_teaches_nothing() -> None:
    assert State().apply(CLOSED) is None


@pytest.mark.parametrize(
    "late",
    [
        ESTABLISHED,
        events.NewAddress(TOKEN, 2, "10.0.4.2", 80),
        events.AddressRemoved(TOKEN, 2),
        JOINED,
        LEFT,
        events.SubflowPriority(TOKEN, SECOND, backup=True),
        CLOSED,
        ROW,
        JOINED_ROW,
        USERSPACE,
    ],
    ids=lambda late: type(late).__name__,
)
def test_what_comes_after_closed_teaches_nothing_and_creates_nothing(
    late: events.Event | readings.Reading,
) -> None:
    state = state_after(CREATED, CLOSED)

    assert state.apply(late) is None
    assert not state.connections


def test_a_token_that_is_used_again_implies_that_the_old_connection_closed() -> None:
    state = state_after(CREATED)
    again = replace(CREATED, four_tuple=THIRD)

    assert state.implied_by(again) == [CLOSED]


def test_a_reused_token_names_a_connection_with_a_new_number() -> None:
    first = connection_after(CREATED)
    state = state_after(CREATED, CLOSED, CREATED)

    assert first.number == 1
    assert state.connections[TOKEN].number == 2


def test_sub_closed_without_sub_established_is_told_without_an_object() -> None:
    state = state_after(CREATED, ESTABLISHED)

    change = state.apply(replace(LEFT, error=111))

    assert change is not None
    assert change.connection is state.connections[TOKEN]
    assert change.subject is None
    assert change.removed == ()


def test_sub_closed_of_a_join_given_up_names_port_zero_and_touches_nobodys_subflow() -> None:
    state = state_after(CREATED, ESTABLISHED, JOINED)

    change = state.apply(
        events.SubflowClosed(TOKEN, SECOND._replace(remote_port=0), local_id=1, error=104)
    )

    assert change is not None
    assert change.removed == ()
    assert set(state.connections[TOKEN].subflows) == {FIRST, SECOND}


def test_the_initial_subflow_can_end_before_its_connection() -> None:
    state = state_after(CREATED, ESTABLISHED, JOINED)

    state.apply(events.SubflowClosed(TOKEN, FIRST))

    assert set(state.connections[TOKEN].subflows) == {SECOND}


def test_subflows_are_told_apart_by_their_addresses_and_not_by_their_ids() -> None:
    twin = FourTuple("10.0.2.1", 4009, "10.0.9.1", 80)
    state = state_after(CREATED, ESTABLISHED, JOINED, replace(JOINED, four_tuple=twin))

    state.apply(LEFT)

    assert set(state.connections[TOKEN].subflows) == {FIRST, twin}


def test_a_repeated_sub_established_teaches_nothing() -> None:
    state = state_after(CREATED, ESTABLISHED, JOINED)

    assert state.apply(JOINED) is None


def test_numbers_of_subflows_are_not_used_again() -> None:
    connection = connection_after(CREATED, ESTABLISHED, JOINED, LEFT, JOINED)

    assert connection.subflows[SECOND].number == 3


def test_a_mapped_connection_and_its_plain_ipv4_join_have_the_same_kind_of_addresses() -> None:
    # The decoders name ::ffff:10.0.1.1 and 10.0.1.1 alike; `mapped` alone tells them apart, so an
    # event of either family finds the subflow of the same 4-tuple.
    state = state_after(replace(CREATED, mapped=True), ESTABLISHED, replace(JOINED, mapped=True))

    state.apply(replace(LEFT, mapped=False))

    connection = state.connections[TOKEN]
    assert connection.mapped
    assert [s.mapped for s in connection.subflows.values()] == [True]


def test_an_announcement_is_told_once_and_not_once_per_retransmission() -> None:
    announced = events.NewAddress(TOKEN, 2, "10.0.4.2", 80)
    state = state_after(CREATED)

    change = state.apply(announced)

    assert change is not None
    assert change.added == (state.connections[TOKEN].remote_addresses[2],)
    assert state.apply(announced) is None


def test_an_announcement_of_another_address_under_a_known_id_changes_it() -> None:
    state = state_after(CREATED, events.NewAddress(TOKEN, 2, "10.0.4.2", 80))

    change = state.apply(events.NewAddress(TOKEN, 2, "10.0.5.2", 81))

    address = state.connections[TOKEN].remote_addresses[2]
    assert change is not None
    assert change.changed == (address,)
    assert (address.address, address.port) == ("10.0.5.2", 81)


def test_a_peer_can_announce_no_more_addresses_than_there_are_ids() -> None:
    announced = (events.NewAddress(TOKEN, n % 256, f"10.1.{n % 250}.2", n) for n in range(5000))
    state = state_after(CREATED, *announced)

    assert len(state.connections[TOKEN].remote_addresses) == 256


def test_a_withdrawn_address_is_gone() -> None:
    state = state_after(CREATED, events.NewAddress(TOKEN, 2, "10.0.4.2", 80))
    address = state.connections[TOKEN].remote_addresses[2]

    change = state.apply(events.AddressRemoved(TOKEN, 2))

    assert change is not None
    assert change.removed == (address,)


def test_the_withdrawal_of_an_id_that_was_never_used_is_told_without_an_object() -> None:
    state = state_after(CREATED)

    change = state.apply(events.AddressRemoved(TOKEN, 99))

    assert change is not None
    assert (change.subject, change.removed) == (None, ())


def test_an_id_that_the_kernel_allocated_by_itself_is_learnt_from_the_join() -> None:
    state = state_after(CREATED, ESTABLISHED)
    state.apply(USERSPACE)

    change = state.apply(JOINED)

    connection = state.connections[TOKEN]
    assert change is not None
    assert change.added == (connection.subflows[SECOND], connection.local_addresses[1])
    assert connection.local_addresses[1].address == SECOND.local_address


@pytest.mark.parametrize("entries", [None, (AddressEntry("10.0.2.1", 1),)], ids=["kernel", "known"])
def test_a_join_adds_no_address_under_the_kernels_manager_or_where_it_is_known(
    entries: tuple[AddressEntry, ...] | None,
) -> None:
    state = state_after(CREATED, ESTABLISHED)
    state.apply(readings.LocalAddressesRead(TOKEN, entries))

    change = state.apply(JOINED)

    assert change is not None
    assert change.added == (state.connections[TOKEN].subflows[SECOND],)


def test_the_table_of_ids_that_was_read_replaces_the_known_one() -> None:
    state = state_after(CREATED)
    both = (AddressEntry("10.0.2.1", 1), AddressEntry("10.0.3.1", 2, flags=AddressFlag.SIGNAL))
    state.apply(readings.LocalAddressesRead(TOKEN, both[:1]))
    connection = state.connections[TOKEN]
    first = connection.local_addresses[1]

    change = state.apply(readings.LocalAddressesRead(TOKEN, both[1:]))

    second = connection.local_addresses[2]
    assert change is not None
    assert (change.added, change.removed) == ((second,), (first,))
    assert second.flags == AddressFlag.SIGNAL
    assert not second.remote


def test_an_entry_of_the_table_that_was_read_again_is_changed() -> None:
    state = state_after(CREATED)
    state.apply(readings.LocalAddressesRead(TOKEN, (AddressEntry("10.0.2.1", 1),)))
    address = state.connections[TOKEN].local_addresses[1]

    change = state.apply(
        readings.LocalAddressesRead(TOKEN, (AddressEntry("10.0.2.1", 1, port=8080),))
    )

    assert change is not None
    assert address in change.changed
    assert address.port == 8080


@pytest.mark.parametrize(("entries", "manager"), [(None, "kernel"), ((), "userspace")])
def test_the_table_of_ids_tells_who_manages_the_connection(
    entries: tuple[AddressEntry, ...] | None, manager: str
) -> None:
    state = state_after(CREATED)

    state.apply(readings.LocalAddressesRead(TOKEN, entries))

    assert state.connections[TOKEN].path_manager == manager


def test_a_priority_of_the_peer_changes_backup_and_not_what_we_requested() -> None:
    state = state_after(CREATED, ESTABLISHED, JOINED)
    changed = events.SubflowPriority(TOKEN, SECOND, backup=True)

    change = state.apply(changed)

    subflow = state.connections[TOKEN].subflows[SECOND]
    assert change is not None
    assert change.changed == (subflow,)
    assert (subflow.backup, subflow.backup_requested) == (True, False)
    assert state.apply(changed) is None


def test_our_own_request_for_backup_is_read_and_does_not_change_the_peers() -> None:
    state = state_after(CREATED, ESTABLISHED, JOINED)
    reading = replace(JOINED_ROW, backup_requested=True)

    change = state.apply(reading)

    subflow = state.connections[TOKEN].subflows[SECOND]
    assert change is not None
    assert change.changed == (subflow,)
    assert (subflow.backup, subflow.backup_requested) == (False, True)
    assert state.apply(reading) is None


def test_a_priority_for_an_unknown_subflow_teaches_nothing() -> None:
    state = state_after(CREATED)

    assert state.apply(events.SubflowPriority(TOKEN, SECOND, backup=True)) is None


def test_a_connection_that_was_read_has_user_control_group_and_fallback() -> None:
    state = state_after(CREATED, ESTABLISHED)

    state.apply(replace(ROW, fallback=True))

    connection = state.connections[TOKEN]
    assert (connection.uid, connection.cgroup, connection.fallback) == (1000, 5, True)
    assert connection.state is ConnectionState.ESTABLISHED


def test_a_connection_that_is_half_closed_is_closing() -> None:
    state = state_after(CREATED, ESTABLISHED)

    state.apply(replace(ROW, state=8))

    assert state.connections[TOKEN].state is ConnectionState.CLOSING


def test_a_subflow_goes_over_the_device_it_is_bound_to() -> None:
    state = state_after(LINK1, CREATED, ESTABLISHED, replace(JOINED, interface_index=2))

    subflow = state.connections[TOKEN].subflows[SECOND]
    assert subflow.bound_to == 2
    assert subflow.interface is state.network.interfaces[2]


def test_an_unbound_subflow_goes_over_the_interface_that_owns_its_address() -> None:
    owned = events.NewLocalAddress(2, SECOND.local_address, 24)
    state = state_after(LINK1, owned, CREATED, ESTABLISHED, JOINED)

    subflows = state.connections[TOKEN].subflows
    assert subflows[SECOND].interface is state.network.interfaces[2]
    assert subflows[FIRST].interface is None
    assert subflows[SECOND].bound_to == 0


def _bound_subflow(state: State) -> Subflow:
    return state.connections[TOKEN].subflows[SECOND]


BOUND = (LINK1, CREATED, ESTABLISHED, replace(JOINED, interface_index=2))


def test_a_renamed_interface_changes_the_subflows_over_it() -> None:
    state = state_after(*BOUND)

    change = state.apply(
        events.UpdateInterface(2, "uplink", "ether", up=True, running=True),
    )

    assert change is not None
    assert change.changed == (state.network.interfaces[2], _bound_subflow(state))


def test_a_lost_carrier_changes_the_interface_and_not_its_subflows() -> None:
    state = state_after(*BOUND)

    change = state.apply(events.UpdateInterface(2, "link1", "ether", up=True, running=False))

    assert change is not None
    assert change.changed == (state.network.interfaces[2],)


def test_a_deleted_interface_leaves_its_subflows_without_one() -> None:
    state = state_after(*BOUND)
    interface = state.network.interfaces[2]

    change = state.apply(events.DeleteInterface(2))

    subflow = _bound_subflow(state)
    assert change is not None
    assert (change.changed, change.removed) == ((subflow,), (interface,))
    assert subflow.interface is None


def test_a_row_of_an_unknown_subflow_teaches_nothing() -> None:
    state = state_after(CREATED)

    assert state.apply(replace(INITIAL_ROW, four_tuple=THIRD, backup_requested=True)) is None


def test_lost_events_are_counted_and_touch_nothing() -> None:
    state = state_after(CREATED)

    change = state.apply(events.EventsLost("mptcp_pm"))

    assert change is not None
    assert (change.added, change.changed, change.removed) == ((), (), ())
    assert state.events_lost == 1


def test_everything_is_given_with_containers_before_their_content() -> None:
    state = state_after(LINK1, CREATED, events.NewAddress(TOKEN, 2, "10.0.4.2", 80))
    state.apply(readings.LocalAddressesRead(TOKEN, (AddressEntry("10.0.2.1", 1),)))
    state.apply(readings.EndpointsRead((AddressEntry("10.0.3.1", 3),)))
    connection = state.connections[TOKEN]

    assert list(state.everything()) == [
        state,
        state.network.interfaces[2],
        state.endpoints[3],
        connection,
        connection.subflows[FIRST],
        connection.local_addresses[1],
        connection.remote_addresses[2],
    ]

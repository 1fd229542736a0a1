"""What must be applied so that a connection becomes what the kernel shows."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Sequence
from dataclasses import replace

import pytest

from mptcpd_dbus.core import events
from mptcpd_dbus.core.diff import Difference, difference, is_live
from mptcpd_dbus.core.readings import ConnectionRead, SubflowRead
from mptcpd_dbus.core.state import State
from mptcpd_dbus.core.types import ConnectionState
from tests.core.example import (
    CLOSED,
    CREATED,
    ESTABLISHED,
    FIRST,
    INITIAL_ROW,
    JOINED,
    JOINED_ROW,
    LEFT,
    ROW,
    SECOND,
    THIRD,
    TOKEN,
    state_after,
)

SYN_SENT, SYN_RECV, FIN_WAIT2, CLOSE, CLOSE_WAIT, LISTEN = 2, 3, 5, 7, 8, 10
BOTH = (INITIAL_ROW, JOINED_ROW)
READ = state_after(CREATED, ESTABLISHED, JOINED)
READ.apply(ROW)


def _mended(
    state: State, row: ConnectionRead | None, subflows: Sequence[SubflowRead]
) -> list[Difference]:
    """Apply the difference, see that none is left, and give it."""
    applied = difference(state.connections.get(TOKEN), row, subflows)
    for what in applied:
        state.apply(what)
    assert difference(state.connections.get(TOKEN), row, subflows) == []
    return applied


def test_a_state_that_is_equal_differs_in_nothing() -> None:
    assert difference(READ.connections[TOKEN], ROW, BOTH) == []
    assert difference(None, None, ()) == []


def test_a_clients_connection_is_adopted_with_its_joins() -> None:
    state = State()

    applied = _mended(state, ROW, BOTH)

    assert applied == [CREATED, ESTABLISHED, replace(JOINED), ROW]
    assert not state.connections[TOKEN].server_side


def test_a_servers_connection_is_known_by_who_opened_the_initial_subflow() -> None:
    state = State()

    _mended(state, ROW, [replace(INITIAL_ROW, opened_here=False)])

    assert state.connections[TOKEN].server_side


@pytest.mark.parametrize("opened_here", [True, False])
def test_a_connection_whose_initial_subflow_is_gone_is_adopted_without_it(
    opened_here: bool,
) -> None:
    state = State()

    _mended(state, ROW, [replace(JOINED_ROW, opened_here=opened_here)])

    connection = state.connections[TOKEN]
    assert set(connection.subflows) == {SECOND}
    assert connection.server_side is not opened_here
    assert connection.state is ConnectionState.ESTABLISHED


def test_a_clients_connection_whose_peer_has_not_confirmed_is_adopted_as_created() -> None:
    state = State()

    _mended(state, ROW, [replace(INITIAL_ROW, fully_established=False)])

    assert state.connections[TOKEN].state is ConnectionState.CREATED


def test_backup_is_adopted_both_ways_and_on_the_initial_subflow_too() -> None:
    state = State()
    asked = [replace(row, backup=True, backup_requested=True) for row in BOTH]

    _mended(state, ROW, asked)

    for subflow in state.connections[TOKEN].subflows.values():
        assert (subflow.backup, subflow.backup_requested) == (True, True)


@pytest.mark.parametrize("state", [SYN_SENT, SYN_RECV])
def test_a_join_that_is_not_answered_yet_is_not_adopted(state: int) -> None:
    pending = replace(JOINED_ROW, state=state, fully_established=False)

    assert difference(None, ROW, [INITIAL_ROW, pending]) == [CREATED, ESTABLISHED, ROW]
    known = state_after(CREATED, ESTABLISHED)
    known.apply(ROW)
    assert difference(known.connections[TOKEN], ROW, [INITIAL_ROW, pending]) == []


@pytest.mark.parametrize(
    ("row", "live"),
    [
        (ROW, True),
        (replace(ROW, inode=0), True),  # not accepted yet
        (replace(ROW, state=CLOSE_WAIT, inode=0), True),
        (replace(ROW, state=FIN_WAIT2), True),  # only shut down for writing
        (replace(ROW, state=FIN_WAIT2, inode=0), False),
        (replace(ROW, state=CLOSE), True),  # lost all subflows; CLOSED comes with close()
        (replace(ROW, state=CLOSE, inode=0), False),
        (replace(ROW, state=SYN_SENT), False),
        (replace(ROW, state=SYN_RECV), False),
        (replace(ROW, state=LISTEN), False),
    ],
)
def test_a_row_is_live_as_long_as_a_closed_event_is_to_come(
    row: ConnectionRead, live: bool
) -> None:
    assert is_live(row) is live


@pytest.mark.parametrize(
    "row",
    [
        replace(ROW, state=FIN_WAIT2, inode=0),
        replace(ROW, state=CLOSE),
        replace(ROW, fallback=True),
        replace(ROW, state=SYN_SENT),
    ],
    ids=["closed by its application", "without subflows", "fallen back", "not connected"],
)
def test_what_is_no_manageable_connection_any_more_is_not_adopted(row: ConnectionRead) -> None:
    assert difference(None, row, BOTH) == []


def test_a_known_connection_without_subflows_stays_until_its_application_closes() -> None:
    state = state_after(CREATED, ESTABLISHED, JOINED)

    _mended(state, replace(ROW, state=CLOSE), ())

    assert state.connections[TOKEN].state is ConnectionState.CLOSING
    assert not state.connections[TOKEN].subflows


def test_a_known_connection_that_fell_back_stays_and_says_so() -> None:
    state = state_after(CREATED)

    _mended(state, replace(ROW, fallback=True), ())

    assert state.connections[TOKEN].fallback


@pytest.mark.parametrize("row", [None, replace(ROW, state=FIN_WAIT2, inode=0)])
def test_a_connection_that_is_gone_or_lingers_closes(row: ConnectionRead | None) -> None:
    state = state_after(CREATED, ESTABLISHED, JOINED)

    assert _mended(state, row, ()) == [CLOSED]


def test_another_connection_under_the_same_token_closes_the_old_one_first() -> None:
    state = state_after(CREATED)
    row = replace(ROW, four_tuple=THIRD)

    applied = _mended(state, row, [replace(INITIAL_ROW, four_tuple=THIRD)])

    assert applied[0] == CLOSED
    assert state.connections[TOKEN].four_tuple == THIRD
    assert state.connections[TOKEN].number == 2


def test_a_lost_established_is_found() -> None:
    state = state_after(CREATED)

    assert ESTABLISHED in _mended(state, ROW, [INITIAL_ROW])


def test_a_server_is_established_from_the_first() -> None:
    state = state_after(replace(CREATED, server_side=True))

    _mended(state, ROW, ())

    assert state.connections[TOKEN].state is ConnectionState.ESTABLISHED


def test_a_connection_that_has_joins_must_have_been_established() -> None:
    state = state_after(CREATED)

    _mended(state, ROW, [JOINED_ROW])

    assert state.connections[TOKEN].state is ConnectionState.ESTABLISHED


def test_a_lost_join_is_found_with_what_we_asked_for_it() -> None:
    state = state_after(CREATED, ESTABLISHED)

    _mended(state, ROW, [INITIAL_ROW, replace(JOINED_ROW, backup_requested=True)])

    assert state.connections[TOKEN].subflows[SECOND].backup_requested


def test_a_lost_end_of_a_subflow_is_found() -> None:
    state = state_after(CREATED, ESTABLISHED, JOINED)

    assert LEFT in _mended(state, ROW, [INITIAL_ROW])
    assert set(state.connections[TOKEN].subflows) == {FIRST}


def test_a_lost_priority_and_a_change_of_our_own_request_are_found() -> None:
    state = state_after(CREATED, ESTABLISHED, JOINED)
    asked = replace(JOINED_ROW, backup=True, backup_requested=True)

    applied = _mended(state, ROW, [INITIAL_ROW, asked])

    subflow = state.connections[TOKEN].subflows[SECOND]
    assert events.SubflowPriority(TOKEN, SECOND, 1, 0, backup=True) in applied
    assert (subflow.backup, subflow.backup_requested) == (True, True)


@pytest.mark.parametrize(
    "changed",
    [
        replace(ROW, fallback=True),
        replace(ROW, uid=0),
        replace(ROW, cgroup=9),
        replace(ROW, state=FIN_WAIT2),
    ],
)
def test_a_change_of_what_no_event_tells_is_found(changed: ConnectionRead) -> None:
    state = state_after(CREATED, ESTABLISHED)

    state.apply(ROW)

    assert _mended(state, changed, [INITIAL_ROW]) == [changed]


def test_an_established_connection_that_was_lost_is_told_with_all_that_is_known_of_it() -> None:
    state = state_after(replace(CREATED, server_side=True, deny_join_id0=True, mapped=True))

    applied = _mended(state, replace(ROW, mapped=True), [replace(INITIAL_ROW, mapped=True)])

    assert applied[0] == replace(ESTABLISHED, server_side=True, deny_join_id0=True, mapped=True)

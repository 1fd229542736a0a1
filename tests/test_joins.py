"""Joins on their way: whose turn it is, which events are whose, and why a join failed."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from mptcpd_dbus.core import events
from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.joins import GIVEN_UP, Join, JoinKey, Joins, failure
from tests.core.example import CREATED, ESTABLISHED, SECOND, TOKEN, connection_after

KEY = JoinKey(TOKEN, SECOND.local_address, SECOND.remote_address, SECOND.remote_port)
ACCEPTED = events.NewSubflow(TOKEN, SECOND, local_id=1)
ENDED = events.SubflowClosed(TOKEN, SECOND, local_id=1)


@pytest.fixture(name="connection")
def _connection() -> Connection:
    return connection_after(CREATED, ESTABLISHED)


@asynccontextmanager
async def _turn(
    joins: Joins, connection: Connection, key: JoinKey, local_port: int
) -> AsyncIterator[Join]:
    join = await joins.in_turn(connection, key, local_port)
    try:
        yield join
    finally:
        joins.end(key, join)


async def test_a_join_hears_the_event_with_its_addresses(connection: Connection) -> None:
    joins = Joins()

    async with _turn(joins, connection, KEY, 0) as join:
        joins.notice(ACCEPTED)

        assert join.outcome.get_nowait() == ACCEPTED


@pytest.mark.parametrize(
    "four_tuple",
    [
        SECOND._replace(local_address="10.0.3.1"),
        SECOND._replace(remote_port=81),
        SECOND._replace(remote_port=0),
    ],
)
async def test_a_join_does_not_hear_events_with_other_addresses(
    connection: Connection, four_tuple: FourTuple
) -> None:
    joins = Joins()

    async with _turn(joins, connection, KEY, 0) as join:
        joins.notice(replace(ENDED, four_tuple=four_tuple))

        assert join.outcome.empty()


async def test_the_end_of_an_older_subflow_between_the_same_addresses_is_not_the_joins(
    connection: Connection,
) -> None:
    older = connection_after(CREATED, ESTABLISHED, ACCEPTED)
    joins = Joins()

    async with _turn(joins, older, KEY, 0) as join:
        joins.notice(ENDED)

        assert join.outcome.empty()
    # Control: had the subflow not been there before, the same event would be the join's.
    async with _turn(joins, connection, KEY, 0) as join:
        joins.notice(ENDED)

        assert not join.outcome.empty()


async def test_a_join_from_a_source_port_hears_that_port_alone(connection: Connection) -> None:
    joins = Joins()

    async with _turn(joins, connection, KEY, 4999) as join:
        joins.notice(ACCEPTED)
        assert join.outcome.empty()

        joins.notice(replace(ACCEPTED, four_tuple=SECOND._replace(local_port=4999)))
        assert not join.outcome.empty()


async def test_the_end_of_the_connection_ends_its_joins_and_no_others(
    connection: Connection,
) -> None:
    joins = Joins()

    async with _turn(joins, connection, KEY, 0) as join:
        joins.notice(events.ConnectionClosed(TOKEN + 1))
        assert join.outcome.empty()

        joins.notice(events.ConnectionClosed(TOKEN))
        assert join.outcome.get_nowait() is None


async def test_joins_between_the_same_addresses_take_turns_and_others_do_not(
    connection: Connection,
) -> None:
    joins = Joins()
    begun: list[str] = []

    async def wait(name: str, key: JoinKey) -> None:
        async with _turn(joins, connection, key, 0):
            begun.append(name)

    async with _turn(joins, connection, KEY, 0):
        same = asyncio.ensure_future(wait("same", KEY))
        other = asyncio.ensure_future(wait("other", KEY._replace(remote_port=81)))
        await other
        assert begun == ["other"]
    await same

    assert begun == ["other", "same"]


async def test_whoever_comes_while_the_turn_passes_on_must_wait_too(
    connection: Connection,
) -> None:
    joins = Joins()
    together: list[int] = []
    running = 0

    async def one() -> None:
        nonlocal running
        async with _turn(joins, connection, KEY, 0):
            running += 1
            together.append(running)
            for _ in range(3):
                await asyncio.sleep(0)
            running -= 1

    async with _turn(joins, connection, KEY, 0):
        second = asyncio.ensure_future(one())
        await asyncio.sleep(0)
    assert joins.begin(connection, KEY, 0) is None
    third = asyncio.ensure_future(one())
    await asyncio.gather(second, third)

    assert together == [1, 1]
    assert joins.begin(connection, KEY, 0) is not None


async def test_the_turn_passes_over_those_who_wait_no_longer(connection: Connection) -> None:
    joins = Joins()
    begun: list[str] = []

    async def wait(name: str) -> None:
        async with _turn(joins, connection, KEY, 0):
            begun.append(name)

    async with _turn(joins, connection, KEY, 0):
        waiting = [asyncio.ensure_future(wait(name)) for name in "abcd"]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
    waiting[1].cancel()  # to whom it has just been given
    await asyncio.gather(*waiting, return_exceptions=True)

    assert begun == ["c", "d"]
    assert [dict(kept) for kept in vars(joins).values()] == [{}, {}]


async def test_nothing_is_kept_of_joins_that_ended(connection: Connection) -> None:
    joins = Joins()

    async with _turn(joins, connection, KEY, 0):
        assert joins.begin(connection, KEY, 0) is None
        assert vars(joins)["_joins"]
    assert [dict(kept) for kept in vars(joins).values()] == [{}, {}]


async def test_a_join_that_nobody_heard_of_is_remembered_until_its_connection_closes(
    connection: Connection,
) -> None:
    joins = Joins()

    for event in (ACCEPTED, ENDED):
        async with _turn(joins, connection, KEY, 0) as join:
            join.unheard = True
            joins.notice(event)
        assert not joins.left(KEY)
    async with _turn(joins, connection, KEY, 0) as join:
        join.unheard = True
    assert joins.left(KEY)
    assert not joins.left(KEY._replace(remote_port=81))
    assert dict(joins.known(TOKEN)) == {KEY: None}

    joins.notice(events.ConnectionClosed(TOKEN))

    assert not joins.left(KEY)
    assert [dict(kept) for kept in vars(joins).values()] == [{}, {}]


def test_a_connection_older_than_we_are_may_have_joins_between_any_ends() -> None:
    joins = Joins()

    joins.inherit(TOKEN)

    assert joins.left(KEY)
    assert joins.left(KEY._replace(remote_port=81))
    assert not joins.left(KEY._replace(token=TOKEN + 1))
    joins.notice(events.ConnectionClosed(TOKEN))
    assert not joins.left(KEY)


def test_a_join_with_a_fixed_port_may_use_a_known_port_again() -> None:
    older = connection_after(CREATED, ESTABLISHED, ACCEPTED)

    assert Join(older, KEY, SECOND.local_port).concerns(ENDED)
    assert not Join(older, KEY, 0).concerns(ENDED)


@pytest.mark.parametrize(
    ("event", "accepted", "words"),
    [
        (replace(ENDED, error=111), False, "refused: nothing listens on that port"),
        (replace(ENDED, error=110), False, "timed out: no answer to the SYN"),
        (replace(ENDED, error=113), False, "unreachable: no way to that address over this path"),
        (replace(ENDED, error=GIVEN_UP), False, "its local address was given up meanwhile"),
        (replace(ENDED, error=104, reset_reason=3), False, "administratively prohibited"),
        (replace(ENDED, error=104, reset_reason=200), False, "reason 200"),
        (ENDED, True, "its limit of subflows is reached"),
        (replace(ENDED, error=104), False, "connection reset by peer"),
        (ENDED, False, "a plain TCP listener"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_failure_says_which_subflow_and_why(
    event: events.SubflowClosed, accepted: bool, words: str
) -> None:
    text = str(failure(event, accepted=accepted))

    assert text.startswith("the subflow 10.0.2.1:4001 - 10.0.9.1:80 was not made: ")
    assert words in text

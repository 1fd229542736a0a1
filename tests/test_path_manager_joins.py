"""Joins through the path manager: what is sent, what becomes of it, and what is left behind."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import errno
from dataclasses import replace
from typing import Any

import pytest

from mptcpd_dbus.core import commands, errors, events
from mptcpd_dbus.core.subflow_wish import SubflowWish
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.testing import Answer
from tests.lab.wait import eventually
from tests.world import FIRST, SECOND_ADDRESS, TOKEN, WISH, World


@pytest.fixture(name="world")
async def _world() -> World:
    return World()


async def test_a_subflow_is_made_from_the_connections_own_remote_end(world: World) -> None:
    connection = world.connect()

    subflow = await world.pm.create_subflow(connection, WISH)

    assert connection.subflows[subflow.four_tuple] is subflow
    assert subflow.four_tuple.local_address == SECOND_ADDRESS
    assert subflow.four_tuple[2:] == FIRST[2:]
    assert subflow.local_id == 1


async def test_a_subflow_is_made_as_it_was_wished(world: World) -> None:
    connection = world.connect()
    wish = SubflowWish("10.0.8.1", 8080, SECOND_ADDRESS, 5000, backup=True)

    subflow = await world.pm.create_subflow(connection, wish)

    assert subflow.four_tuple == FourTuple(SECOND_ADDRESS, 5000, "10.0.8.1", 8080)
    assert (subflow.backup, subflow.backup_requested) == (False, True)


async def test_parallel_joins_from_one_address_each_give_their_own_subflow(world: World) -> None:
    connection = world.connect()

    subflows = await asyncio.gather(
        *(world.pm.create_subflow(connection, WISH) for _ in range(5)),
        *(world.pm.create_subflow(connection, replace(WISH, remote_port=p)) for p in (81, 82)),
    )

    assert len({subflow.four_tuple for subflow in subflows}) == 7
    assert {subflow.local_id for subflow in subflows} == {1}
    assert {s.four_tuple.remote_port for s in subflows[5:]} == {81, 82}


async def test_a_join_that_the_peer_confirms_late_is_waited_for(world: World) -> None:
    connection = world.connect()
    world.kernel.answers[80] = Answer.SILENT
    join = asyncio.ensure_future(world.pm.create_subflow(connection, WISH))
    (row,) = await eventually(lambda: world.kernel.pending_joins(TOKEN, SECOND_ADDRESS, *FIRST[2:]))
    half_made = replace(row, state=1)
    world.kernel.put(half_made)
    look_up, looks = world.kernel.subflow, []

    def look(four_tuple: FourTuple, **more: Any) -> Any:
        looks.append(four_tuple)
        return look_up(four_tuple, **more)

    world.kernel.subflow = look  # type: ignore[method-assign] # a spy
    world.engine.take(events.NewSubflow(TOKEN, row.four_tuple, 1))
    await eventually(lambda: len(looks) >= 3 or join.done())
    assert not join.done()

    world.kernel.put(replace(half_made, fully_established=True))

    assert (await join).four_tuple == row.four_tuple


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer.REFUSED, "refused: nothing listens on that port"),
        (Answer.LIMIT, "refused by the peer: its limit of subflows is reached"),
    ],
)
async def test_a_join_that_the_peer_refuses_names_the_reason(
    world: World, answer: Answer, words: str
) -> None:
    connection = world.connect()
    world.kernel.answers[80] = answer

    with pytest.raises(errors.SubflowFailed, match=words):
        await world.pm.create_subflow(connection, WISH)
    assert set(connection.subflows) == {FIRST}


async def test_a_join_that_cannot_be_sent_is_refused_in_the_kernels_words(world: World) -> None:
    connection = world.connect()
    world.kernel.answers[80] = Answer.NO_ROUTE

    with pytest.raises(errors.KernelRefused, match=r"ENETUNREACH \(connect error: -101\)"):
        await world.pm.create_subflow(connection, WISH)


async def test_a_join_that_is_not_answered_in_time_is_ended_in_the_kernel_too(
    world: World,
) -> None:
    connection = world.connect()
    world.kernel.answers[80] = Answer.SILENT

    with pytest.raises(errors.SubflowFailed, match=r"timed out after 0\.01 s"):
        await world.pm.create_subflow(connection, WISH, seconds=0.01)

    assert set(world.kernel.open[TOKEN].subflows) == {FIRST}
    (told,) = (e for e in world.heard if isinstance(e, events.SubflowClosed))
    assert (told.four_tuple.remote_port, told.error) == (0, errno.ECONNRESET)


async def test_a_timeout_ends_no_join_from_another_source_port(world: World) -> None:
    connection = world.connect()
    world.kernel.answers[80] = Answer.SILENT
    await world.pm.send_join(connection, replace(WISH, local_port=5000))

    with pytest.raises(errors.SubflowFailed, match="timed out"):
        await world.pm.create_subflow(connection, replace(WISH, local_port=6000), seconds=0.01)

    assert {t.local_port for t in world.kernel.open[TOKEN].subflows} == {4000, 5000}


async def test_a_join_that_timed_out_while_it_waited_for_its_turn_ends_no_other(
    world: World,
) -> None:
    connection = world.connect()
    world.kernel.answers[80] = Answer.SILENT
    first = asyncio.ensure_future(world.pm.create_subflow(connection, WISH))
    (row,) = await eventually(lambda: world.kernel.pending_joins(TOKEN, SECOND_ADDRESS, *FIRST[2:]))

    with pytest.raises(errors.SubflowFailed, match="timed out"):
        await world.pm.create_subflow(connection, WISH, seconds=0.01)
    assert world.kernel.pending_joins(TOKEN, SECOND_ADDRESS, *FIRST[2:]) == [row]
    world.kernel.answer(row, Answer.ACCEPTED)

    assert (await first).four_tuple == row.four_tuple


async def test_a_connection_that_closes_meanwhile_ends_the_join(world: World) -> None:
    connection = world.connect()
    world.kernel.answers[80] = Answer.SILENT
    join = asyncio.ensure_future(world.pm.create_subflow(connection, WISH))
    await eventually(lambda: world.executed(commands.SubflowCreate))

    world.kernel.close(TOKEN)

    with pytest.raises(errors.SubflowFailed, match="connection a889fad4 closed meanwhile"):
        await join


async def test_a_join_to_the_initial_address_is_not_sent_where_the_peer_denies_it(
    world: World,
) -> None:
    connection = world.connect(deny_join_id0=True)

    with pytest.raises(errors.NotReady, match="give a remote address that it has announced"):
        await world.pm.create_subflow(connection, WISH)
    assert world.executed(commands.SubflowCreate) == []

    await world.pm.create_subflow(connection, replace(WISH, remote_address="10.0.8.1"))
    assert len(world.executed(commands.SubflowCreate)) == 1


@pytest.mark.parametrize(
    ("wish", "local_address", "index"),
    [
        (WISH, SECOND_ADDRESS, 3),
        (replace(WISH, interface=""), SECOND_ADDRESS, 0),
        (replace(WISH, interface="link1"), SECOND_ADDRESS, 2),
        (SubflowWish(interface="link2"), SECOND_ADDRESS, 3),
        (SubflowWish("fd00::9", interface="link2"), "fd00::2", 3),
        (SubflowWish(), FIRST.local_address, 2),
        (SubflowWish(local_address="10.0.7.1"), "10.0.7.1", 0),
        (SubflowWish(local_address="10.0.4.1"), "10.0.4.1", 0),
    ],
    ids=[
        "the owner of the address",
        "none",
        "the named one",
        "the named one's address",
        "of the remote's family",
        "the connection's own",
        "no owner",
        "an address of loopback serves every link",
    ],
)
async def test_a_subflow_is_bound_to_the_interface_that_is_named_or_owns_the_address(
    world: World, wish: SubflowWish, local_address: str, index: int
) -> None:
    world.link(1, "lo", "10.0.4.1", kind="loopback")
    world.link(2, "link1", "10.0.1.1")
    world.link(3, "link2", SECOND_ADDRESS, "fe80::2", "fd00::2")
    connection = world.connect()

    subflow = await world.pm.create_subflow(connection, wish)

    assert (subflow.four_tuple.local_address, subflow.bound_to) == (local_address, index)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (SubflowWish(interface="link9"), "there is no network interface 'link9'"),
        (SubflowWish("fd00::9", interface="link1"), "link1 has no IPv6 address"),
    ],
)
async def test_an_interface_that_cannot_serve_is_an_invalid_argument(
    world: World, wish: SubflowWish, words: str
) -> None:
    world.link(2, "link1", "10.0.1.1", "fe80::1")
    connection = world.connect()

    with pytest.raises(errors.InvalidArgument, match=words):
        await world.pm.create_subflow(connection, wish)


async def test_a_subflow_of_a_mapped_connection_is_destroyed_in_its_own_family(
    world: World,
) -> None:
    connection = world.connect(mapped=True)

    await world.pm.destroy_subflow(connection.subflows[FIRST])

    assert connection.subflows == {}


async def test_a_kernel_that_cannot_be_asked_costs_no_event_behind_a_join(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.connect()
    monkeypatch.setattr(world.pm._joins, "left", lambda _: True)  # noqa: SLF001 - nobody waits for it

    def refuse(*_: object, **__: object) -> None:
        raise errors.KernelRefused("SOCK_DIAG", errno.ETIMEDOUT)

    monkeypatch.setattr(world.kernel, "subflow", refuse)
    second = FIRST._replace(local_address=SECOND_ADDRESS)
    joined = events.NewSubflow(TOKEN, second, 1)

    world.engine.batch([joined, events.ConnectionClosed(TOKEN)])

    assert not world.state.connections

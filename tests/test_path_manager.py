"""Every command: what it does, what it refuses, and what moves the state afterwards."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import errno
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, get_args

import pytest

from mptcpd_dbus.core import commands, errors, events, readings
from mptcpd_dbus.core.connections import Connection, Subflow
from mptcpd_dbus.core.types import AddressEntry, AddressFlag, FourTuple
from mptcpd_dbus.path_manager import EVENTS, READ_BACK, SubflowWish
from mptcpd_dbus.testing import JOINED, Answer
from tests.lab.wait import eventually
from tests.world import FIRST, TOKEN, World

SECOND_ADDRESS = "10.0.2.1"
WISH = SubflowWish(local_address=SECOND_ADDRESS)
ENDPOINT = AddressEntry(SECOND_ADDRESS, flags=AddressFlag.SUBFLOW)
ONLY_READ = {commands.GetAddr, commands.GetLimits}

Act = Callable[[World], Awaitable[object]]


@pytest.fixture(name="world")
async def _world() -> World:
    return World()


def _only(world: World) -> Connection:
    (connection,) = world.state.connections.values()
    return connection


def _last_subflow(world: World) -> Subflow:
    return list(_only(world).subflows.values())[-1]


def _endpoint(world: World) -> Any:
    (endpoint,) = world.state.endpoints.values()
    return endpoint


async def _nothing(_: World) -> None:
    pass


async def _with_endpoint(world: World) -> None:
    await world.pm.add_endpoint(ENDPOINT)


async def _with_subflow(world: World) -> None:
    await world.pm.create_subflow(_only(world), WISH)


async def _with_announced(world: World) -> None:
    await world.pm.announce_address(_only(world), SECOND_ADDRESS)


COMMANDS: list[tuple[type[commands.Command], Act, Act]] = [
    (commands.AddAddr, _nothing, _with_endpoint),
    (commands.DelAddr, _with_endpoint, lambda w: w.pm.remove_endpoint(_endpoint(w))),
    (commands.FlushAddrs, _with_endpoint, lambda w: w.pm.flush_endpoints()),
    (commands.SetLimits, _nothing, lambda w: w.pm.set_limits(5, None)),
    (
        commands.SetFlags,
        _with_endpoint,
        lambda w: w.pm.set_endpoint_flags(_endpoint(w), ENDPOINT.flags | AddressFlag.BACKUP),
    ),
    (commands.SetFlags, _with_subflow, lambda w: w.pm.set_backup(_last_subflow(w), backup=True)),
    (commands.Announce, _nothing, _with_announced),
    (commands.Remove, _with_announced, lambda w: w.pm.remove_address(_only(w), 1)),
    (commands.SubflowCreate, _nothing, lambda w: w.pm.send_join(_only(w), WISH)),
    (commands.SubflowDestroy, _with_subflow, lambda w: w.pm.destroy_subflow(_last_subflow(w))),
]
every_command = pytest.mark.parametrize(
    ("kind", "before", "act"), COMMANDS, ids=lambda value: getattr(value, "__name__", None)
)


def _picture(world: World) -> Any:
    state = world.state
    return (
        {e.entry for e in state.endpoints.values()},
        state.limits,
        {
            token: (
                {(s.four_tuple, s.backup_requested) for s in connection.subflows.values()},
                {(a.id, a.address, a.port) for a in connection.local_addresses.values()},
            )
            for token, connection in state.connections.items()
        },
    )


async def _prepared(world: World, before: Act) -> Any:
    world.connect()
    world.kernel.app_listeners.add(("0.0.0.0", FIRST.local_port))  # noqa: S104 - nothing is bound
    await before(world)
    world.engine.take(world.kernel.limits())
    world.heard.clear()
    return _picture(world)


# The table: what moves the state after a command.


def test_the_tables_name_every_command_but_those_that_only_read() -> None:
    assert set(EVENTS) | set(READ_BACK) == set(get_args(commands.Command)) - ONLY_READ
    assert {kind for kind, *_ in COMMANDS} == set(EVENTS) | set(READ_BACK)


@every_command
async def test_a_command_moves_the_state_by_what_its_table_says(
    world: World, kind: type[commands.Command], before: Act, act: Act
) -> None:
    picture = await _prepared(world, before)

    await act(world)

    assert _picture(world) != picture
    assert isinstance(world.kernel.executed[-1], kind)
    told = {type(event) for event in world.heard}
    assert told <= set(EVENTS.get(kind, ()))
    assert bool(told) is (kind in EVENTS)


@every_command
async def test_without_its_table_a_command_moves_nothing(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[commands.Command],
    before: Act,
    act: Act,
) -> None:
    picture = await _prepared(world, before)
    monkeypatch.setitem(READ_BACK, kind, lambda *_: None)
    world.kernel.on_event = lambda _: None

    with suppress(errors.NoSuchEndpoint, errors.NoSuchConnection):  # what it did is not seen
        await act(world)

    assert isinstance(world.kernel.executed[-1], kind)
    assert _picture(world) == picture


# Refusals, named by whose fault it is.


@pytest.mark.parametrize("act", [act for _, b, act in COMMANDS[6:] if b is _nothing])
async def test_a_command_for_a_connection_that_is_gone_says_so_and_has_it_compared(
    world: World, act: Act
) -> None:
    world.connect()
    world.kernel.abort(TOKEN)

    with pytest.raises(errors.NoSuchConnection, match="a889fad4 is gone"):
        await act(world)
    assert world.engine.doubted == {TOKEN}


async def test_a_subflow_of_a_connection_that_is_gone_says_so_and_has_it_compared(
    world: World,
) -> None:
    world.connect()
    world.kernel.abort(TOKEN)

    for act in (
        world.pm.destroy_subflow(_last_subflow(world)),
        world.pm.set_backup(_last_subflow(world), backup=True),
    ):
        with pytest.raises(errors.NoSuchConnection, match=r"EINVAL \(invalid token\)"):
            await act
    assert world.engine.doubted == {TOKEN}


@pytest.mark.parametrize(
    "act",
    [
        lambda w: w.pm.create_subflow(_only(w), WISH),
        lambda w: w.pm.send_join(_only(w), WISH),
        lambda w: w.pm.announce_address(_only(w), SECOND_ADDRESS),
        lambda w: w.pm.remove_address(_only(w), 1),
        lambda w: w.pm.destroy_subflow(_last_subflow(w)),
        lambda w: w.pm.set_backup(_last_subflow(w), backup=True),
    ],
)
async def test_no_command_works_on_a_connection_of_the_kernels_path_manager(
    world: World, act: Act
) -> None:
    world.connect(userspace=False)

    with pytest.raises(errors.NotManageable, match="userspace PM not selected"):
        await act(world)


async def test_a_subflow_that_is_gone_cannot_be_commanded(world: World) -> None:
    world.connect()
    await _with_subflow(world)
    subflow = _last_subflow(world)
    del world.kernel.open[TOKEN].subflows[subflow.four_tuple]

    with pytest.raises(errors.NoSuchSubflow, match="subflow not found"):
        await world.pm.set_backup(subflow, backup=True)
    with pytest.raises(errors.NoSuchSubflow, match="subflow not found"):
        await world.pm.destroy_subflow(subflow)


async def test_an_id_that_nobody_has_cannot_be_removed(world: World) -> None:
    world.connect()

    with pytest.raises(errors.NoSuchAddress, match="address with id 99 not found"):
        await world.pm.remove_address(_only(world), 99)


async def test_an_id_that_another_address_has_is_refused_in_the_kernels_words(
    world: World,
) -> None:
    world.connect()
    await world.pm.announce_address(_only(world), SECOND_ADDRESS, address_id=7)

    with pytest.raises(errors.KernelRefused, match="did not match address and id"):
        await world.pm.announce_address(_only(world), "10.0.3.1", address_id=7)


async def test_an_endpoint_that_is_gone_cannot_be_removed_or_changed(world: World) -> None:
    endpoint = await world.pm.add_endpoint(ENDPOINT)
    await world.kernel.execute(commands.FlushAddrs())

    for act in (
        world.pm.remove_endpoint(endpoint),
        world.pm.set_endpoint_flags(endpoint, ENDPOINT.flags | AddressFlag.BACKUP),
    ):
        with pytest.raises(errors.NoSuchEndpoint, match="address not found"):
            await act


@pytest.mark.parametrize(
    ("entry", "code", "words"),
    [
        (replace(ENDPOINT, id=9), errno.EEXIST, "duplicate one: -17"),
        (replace(ENDPOINT, address="10.0.3.1", id=1), errno.EBUSY, "duplicate one: -16"),
        (replace(ENDPOINT, port=8080), errno.EINVAL, "must have signal and not subflow"),
        (replace(ENDPOINT, flags=9), errno.EINVAL, "mustn't have both signal and fullmesh"),
        (replace(ENDPOINT, flags=16), errno.EINVAL, "can't create IMPLICIT endpoint"),
    ],
)
async def test_an_endpoint_that_cannot_be_is_refused_in_the_kernels_words(
    world: World, entry: AddressEntry, code: int, words: str
) -> None:
    await world.pm.add_endpoint(ENDPOINT)

    with pytest.raises(errors.KernelRefused, match=words) as caught:
        await world.pm.add_endpoint(entry)
    assert caught.value.errno == code


async def test_the_ninth_endpoint_is_refused(world: World) -> None:
    for number in range(1, 9):
        await world.pm.add_endpoint(replace(ENDPOINT, address=f"10.0.{number}.1"))

    with pytest.raises(errors.KernelRefused, match=r"ERANGE .*-34"):
        await world.pm.add_endpoint(replace(ENDPOINT, address="10.0.9.1"))
    assert sorted(world.state.endpoints) == list(range(1, 9))


async def test_only_two_flags_of_an_endpoint_can_be_changed(world: World) -> None:
    endpoint = await world.pm.add_endpoint(ENDPOINT)

    with pytest.raises(errors.InvalidArgument, match="remove the endpoint and add it"):
        await world.pm.set_endpoint_flags(endpoint, AddressFlag.SIGNAL)
    assert world.executed(commands.SetFlags) == []


async def test_fullmesh_cannot_be_added_to_an_endpoint_that_signals(world: World) -> None:
    endpoint = await world.pm.add_endpoint(replace(ENDPOINT, flags=AddressFlag.SIGNAL))

    with pytest.raises(errors.KernelRefused, match="invalid addr flags"):
        await world.pm.set_endpoint_flags(endpoint, AddressFlag.SIGNAL | AddressFlag.FULLMESH)


async def test_a_limit_above_the_maximum_is_refused_and_changes_none(world: World) -> None:
    await world.pm.set_limits(3, 4)

    with pytest.raises(errors.KernelRefused, match=r"limit greater than maximum \(8\)"):
        await world.pm.set_limits(2, 9)
    assert world.state.limits == readings.LimitsRead(3, 4)


async def test_the_path_manager_is_chosen_and_read_back(world: World) -> None:
    world.pm.set_path_manager("kernel")
    assert world.state.settings.path_manager == "kernel"

    with pytest.raises(errors.KernelRefused, match="ENOENT"):
        world.pm.set_path_manager("bpf")
    assert world.state.settings.path_manager == "kernel"


async def test_a_join_before_the_connection_is_established_is_refused_for_now(
    world: World,
) -> None:
    world.connect()
    world.kernel.open[TOKEN].established = False

    with pytest.raises(errors.NotReady, match=r"-107.* is not established yet, or closing"):
        await world.pm.create_subflow(_only(world), WISH)


async def test_a_low_port_without_the_capability_is_refused_with_what_is_missing(
    world: World,
) -> None:
    world.connect()

    async def execute(command: commands.Command) -> None:
        raise errors.KernelRefused(type(command).__name__, errno.EACCES, "no")

    world.kernel.execute = execute  # type: ignore[method-assign] # it denies

    with pytest.raises(errors.KernelRefused, match="needs CAP_NET_BIND_SERVICE"):
        await world.pm.add_endpoint(replace(ENDPOINT, port=80, flags=AddressFlag.SIGNAL))


# Joins.


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
    world.engine.take(events.NewSubflow(TOKEN, row.four_tuple, 1))
    await eventually(lambda: row.four_tuple in connection.subflows)
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


# Address IDs.


async def test_all_subflows_from_one_address_share_its_id_and_a_source_port_has_its_own(
    world: World,
) -> None:
    connection = world.connect()

    for wish in (WISH, WISH, replace(WISH, local_port=5000), SubflowWish("", 0, "10.0.3.1")):
        await world.pm.create_subflow(connection, wish)

    assert [c.local.id for c in world.executed(commands.SubflowCreate)] == [1, 1, 2, 3]


async def test_an_id_that_the_kernel_gave_away_meanwhile_is_not_given_out(world: World) -> None:
    connection = world.connect()
    world.kernel.open[TOKEN].ids[1] = AddressEntry("10.0.3.1", 1, flags=AddressFlag.IMPLICIT)

    subflow = await world.pm.create_subflow(connection, WISH)

    assert subflow.local_id == 2


@pytest.mark.parametrize("local_port", [0, 6000])
async def test_an_announced_address_keeps_its_entry_when_a_join_from_it_cannot_be_sent(
    world: World, local_port: int
) -> None:
    connection = world.connect()
    announced = await world.pm.announce_address(connection, SECOND_ADDRESS, address_id=5)
    world.kernel.answers[80] = Answer.NO_ROUTE

    for join in (world.pm.create_subflow, world.pm.send_join):
        with pytest.raises(errors.KernelRefused):
            await join(connection, replace(WISH, local_port=local_port))

        assert world.kernel.open[TOKEN].ids[5].flags & AddressFlag.SIGNAL
        assert connection.local_addresses[5].address == announced.address


async def test_an_announced_address_keeps_its_entry_when_a_join_from_it_times_out(
    world: World,
) -> None:
    connection = world.connect()
    await world.pm.announce_address(connection, SECOND_ADDRESS, address_id=5)
    world.kernel.answers[80] = Answer.SILENT

    with pytest.raises(errors.SubflowFailed):
        await world.pm.create_subflow(connection, WISH, seconds=0.01)

    assert 5 in world.kernel.open[TOKEN].ids


async def test_an_address_that_was_removed_while_a_join_waited_stays_removed(
    world: World,
) -> None:
    connection = world.connect()
    await world.pm.announce_address(connection, SECOND_ADDRESS)
    world.kernel.answers[80] = Answer.SILENT
    join = asyncio.ensure_future(world.pm.create_subflow(connection, WISH))
    await eventually(lambda: world.executed(commands.SubflowCreate))

    await world.pm.remove_address(connection, 1)

    with pytest.raises(errors.SubflowFailed):
        await join
    assert world.kernel.open[TOKEN].ids == {}


async def test_an_id_whose_entry_a_failed_join_took_along_can_still_be_removed(
    world: World,
) -> None:
    connection = world.connect()
    await world.pm.create_subflow(connection, WISH)
    world.kernel.answers[81] = Answer.NO_ROUTE
    with pytest.raises(errors.KernelRefused):
        await world.pm.create_subflow(connection, replace(WISH, remote_port=81))
    assert world.kernel.open[TOKEN].ids == {}

    await world.pm.remove_address(connection, 1)

    assert set(connection.subflows) == {FIRST}


async def test_the_same_address_gets_the_same_id_after_a_failed_join_took_its_entry(
    world: World,
) -> None:
    connection = world.connect()
    await world.pm.create_subflow(connection, WISH)
    world.kernel.answers[81] = Answer.NO_ROUTE
    with pytest.raises(errors.KernelRefused):
        await world.pm.create_subflow(connection, replace(WISH, remote_port=81))

    other = await world.pm.create_subflow(connection, replace(WISH, local_address="10.0.3.1"))
    same = await world.pm.create_subflow(connection, WISH)

    assert (other.local_id, same.local_id) == (2, 1)


# Destroying.


@pytest.mark.parametrize("told_at_once", [True, False])
async def test_a_path_that_is_given_up_is_told_to_the_peer_first(
    world: World, told_at_once: bool
) -> None:
    connection = world.connect()
    subflow = await world.pm.create_subflow(connection, WISH)
    later: list[events.Event] = []
    if not told_at_once:
        world.kernel.on_event = later.append

    await world.pm.destroy_subflow(subflow, announce=True)
    world.engine.batch(later)

    assert set(connection.subflows) == {FIRST}
    order = [type(command) for command in world.kernel.executed[1:]]
    assert order[0] is commands.Remove
    assert order[1:] == ([] if told_at_once else [commands.SubflowDestroy])


# Listeners.


async def test_a_listener_lives_from_the_first_user_to_the_last(world: World) -> None:
    one = world.connect()
    two = world.connect(TOKEN + 1, FIRST._replace(local_port=4001))
    place = (SECOND_ADDRESS, 8080)
    for connection in (one, two):
        await world.pm.announce_address(connection, SECOND_ADDRESS, port=8080)
    assert world.state.listeners == {place: 1}

    await world.pm.remove_address(one, 1)
    assert place in world.state.listeners

    world.kernel.close(TOKEN + 1)
    assert place not in world.state.listeners


async def test_a_listener_goes_with_its_connection_even_if_its_id_has_gone_before(
    world: World,
) -> None:
    connection = world.connect()
    await world.pm.announce_address(connection, SECOND_ADDRESS)
    await world.pm.destroy_subflow(await world.pm.create_subflow(connection, WISH))
    assert connection.local_addresses == {}
    assert world.kernel.own_listeners

    world.kernel.close(TOKEN)

    assert world.kernel.own_listeners == {}


async def test_an_announced_port_wants_a_listener_of_its_own_and_a_wildcard_will_not_do(
    world: World,
) -> None:
    connection = world.connect(server_side=True)
    world.kernel.app_listeners.add(("0.0.0.0", 8080))  # noqa: S104 - nothing is bound

    await world.pm.announce_address(connection, SECOND_ADDRESS, port=8080)

    assert set(world.kernel.own_listeners) == {(SECOND_ADDRESS, 8080)}


@pytest.mark.parametrize(
    ("wildcard", "mapped", "opened"),
    [("0.0.0.0", False, False), ("::", True, False), ("::", False, True)],  # noqa: S104 - no bind
)
async def test_an_address_without_a_port_is_served_by_what_covers_the_connections_port(
    world: World, wildcard: str, mapped: bool, opened: bool
) -> None:
    connection = world.connect(server_side=True, mapped=mapped)
    world.kernel.app_listeners.add((wildcard, FIRST.local_port))

    await world.pm.announce_address(connection, SECOND_ADDRESS)

    assert bool(world.kernel.own_listeners) is opened


async def test_no_listener_is_opened_for_whom_wants_none(world: World) -> None:
    connection = world.connect()

    await world.pm.announce_address(connection, SECOND_ADDRESS, listener=False)

    assert world.kernel.own_listeners == {}


async def test_an_announcement_that_is_refused_leaves_no_listener(world: World) -> None:
    connection = world.connect()
    await world.pm.announce_address(connection, "10.0.3.1", address_id=7, listener=False)
    await world.pm.announce_address(connection, SECOND_ADDRESS, address_id=3, listener=False)

    with pytest.raises(errors.KernelRefused, match="did not match"):
        await world.pm.announce_address(connection, SECOND_ADDRESS, address_id=8)

    assert world.kernel.own_listeners == {}


async def test_after_a_restart_what_was_announced_is_listened_on_again(world: World) -> None:
    connection = world.connect()
    ids = world.kernel.open[TOKEN].ids
    ids[1] = AddressEntry(SECOND_ADDRESS, 1, 8080, AddressFlag.SIGNAL)
    ids[2] = AddressEntry("10.0.3.1", 2, 0, AddressFlag.SUBFLOW)
    world.engine.take(readings.LocalAddressesRead(TOKEN, tuple(ids.values())))

    assert world.pm.reopen_listeners() == []

    assert world.kernel.own_listeners == {(SECOND_ADDRESS, 8080): {(connection.number, 1)}}


async def test_a_listener_that_cannot_be_opened_again_is_reported(world: World) -> None:
    world.connect()
    entry = AddressEntry(SECOND_ADDRESS, 1, 80, AddressFlag.SIGNAL)
    world.engine.take(readings.LocalAddressesRead(TOKEN, (entry,)))
    refusal = errors.KernelRefused("listen", errno.EACCES, "no")

    def deny(*_: object) -> None:
        raise refusal

    world.kernel.open_listener = deny  # type: ignore[method-assign,assignment] # it denies

    assert world.pm.reopen_listeners() == [refusal]


async def test_an_ipv6_port_is_announced_only_where_timestamps_leave_room(world: World) -> None:
    connection = world.connect()

    with pytest.raises(errors.NotReady, match=r"net\.ipv4\.tcp_timestamps=0"):
        await world.pm.announce_address(connection, "fd00::2", port=8080)
    assert world.kernel.executed == []

    world.kernel.timestamps = False
    announced = await world.pm.announce_address(connection, "fd00::2", port=8080)
    assert (announced.address, announced.port) == ("fd00::2", 8080)


async def test_an_address_is_announced_again_under_its_own_id(world: World) -> None:
    connection = world.connect()

    first = await world.pm.announce_address(connection, SECOND_ADDRESS)
    again = await world.pm.announce_address(connection, SECOND_ADDRESS)

    assert again is first


# Counters.


async def test_counters_are_read_on_demand_and_are_none_for_what_is_gone(world: World) -> None:
    connection = world.connect()
    subflow = connection.subflows[FIRST]
    assert world.pm.statistics(connection) == {"subflows_total": 1}
    assert world.pm.subflow_statistics(subflow) is not None

    world.kernel.abort(TOKEN)

    assert world.pm.statistics(connection) is None
    assert world.pm.subflow_statistics(subflow) is None


async def test_a_peers_join_under_an_unknown_id_is_learnt_with_its_address(world: World) -> None:
    connection = world.connect()
    four_tuple = FourTuple(SECOND_ADDRESS, 80, "10.0.8.1", 5000)
    row = replace(JOINED, token=TOKEN, four_tuple=four_tuple, local_id=1)

    world.kernel.answer(row, Answer.ACCEPTED)

    assert connection.local_addresses[1].address == SECOND_ADDRESS

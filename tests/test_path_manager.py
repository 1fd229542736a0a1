"""Every command: what it does, what it refuses, and what moves the state afterwards."""
# SPDX-License-Identifier: BSD-3-Clause

import errno
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, get_args

import pytest

from mptcpd_dbus.commander import EVENTS, READ_BACK
from mptcpd_dbus.core import commands, errors, readings
from mptcpd_dbus.core.connections import Connection, Subflow
from mptcpd_dbus.core.network import Management
from mptcpd_dbus.core.types import AddressEntry, AddressFlag
from tests.world import FIRST, SECOND_ADDRESS, TOKEN, WISH, World

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

    with suppress(errors.NoSuchEndpoint, errors.NoSuchAddress):  # what it did is not seen
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
        lambda w: w.pm.abandon(_only(w), 0),
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


@pytest.mark.parametrize("backup", [False, True])
async def test_a_join_that_nobody_waits_for_shows_what_was_asked_for_it(
    world: World, backup: bool
) -> None:
    connection = world.connect()

    await world.pm.send_join(connection, replace(WISH, backup=backup))
    world.engine.settle()

    assert _last_subflow(world).backup_requested is backup


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


# What is NetworkManager's


async def _with_networkmanager(world: World) -> tuple[Any, Any]:
    """Give an endpoint of NetworkManager's and one of ours, on the same interface."""
    world.link(2, "link1", "10.0.1.1")
    world.engine.take(readings.ManagementRead({"link1": Management(managed=True)}))
    await world.kernel.execute(commands.AddAddr(AddressEntry("10.0.1.1", interface_index=2)))
    ours = await world.pm.add_endpoint(AddressEntry("10.0.3.1", interface_index=2))
    return next(e for e in world.state.endpoints.values() if e is not ours), ours


async def test_an_endpoint_of_networkmanagers_is_changed_by_force_only(world: World) -> None:
    theirs, ours = await _with_networkmanager(world)
    backup = AddressFlag.BACKUP

    with pytest.raises(errors.NotOurs, match=r"10\.0\.1\.1 is NetworkManager's"):
        await world.pm.remove_endpoint(theirs)
    with pytest.raises(errors.NotOurs, match=r"change connection\.mptcp-flags"):
        await world.pm.set_endpoint_flags(theirs, backup)
    await world.pm.set_endpoint_flags(ours, backup)
    await world.pm.set_endpoint_flags(theirs, backup, force=True)
    assert theirs.entry.flags == ours.entry.flags == backup
    await world.pm.remove_endpoint(theirs, force=True)
    assert list(world.state.endpoints.values()) == [ours]


@pytest.mark.parametrize("force", [False, True])
async def test_a_flush_leaves_networkmanager_its_own_unless_forced(
    world: World, *, force: bool
) -> None:
    theirs, _ = await _with_networkmanager(world)
    await world.kernel.execute(commands.AddAddr(AddressEntry("10.0.7.1")))

    await world.pm.flush_endpoints(force=force)

    assert list(world.state.endpoints.values()) == ([] if force else [theirs])


async def test_a_flush_of_our_own_leaves_everybody_elses(world: World) -> None:
    theirs, ours = await _with_networkmanager(world)
    await world.kernel.execute(commands.AddAddr(AddressEntry("10.0.7.1")))  # as ip(8) does

    with pytest.raises(errors.InvalidArgument, match="give one"):
        await world.pm.flush_endpoints(own=True, force=True)
    await world.pm.flush_endpoints(own=True)

    left = list(world.state.endpoints.values())
    assert theirs in left
    assert ours not in left
    assert len(left) == 2

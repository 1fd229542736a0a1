"""Giving up a local address, and what IDs and listeners policies get of the path manager."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import errno
from dataclasses import replace

import pytest

from mptcpd_dbus.core import commands, errors, events
from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.types import AddressEntry
from mptcpd_dbus.testing import Answer
from tests.lab.wait import eventually
from tests.world import FIRST, SECOND_ADDRESS, TOKEN, WISH, World

THIRD_ADDRESS = "10.0.3.1"
OTHER = FIRST._replace(local_port=4001)


@pytest.fixture(name="world")
async def _world() -> World:
    return World()


def _deaf(world: World) -> list[events.Event]:
    """Let no event reach the engine, as if all came later; give them."""
    later: list[events.Event] = []
    world.kernel.on_event = later.append
    return later


def _order(world: World) -> list[type[commands.Command]]:
    return [type(command) for command in world.kernel.executed]


# Giving up an address.


async def test_a_path_is_given_up_by_telling_the_peer_first_and_destroying_all_its_subflows(
    world: World,
) -> None:
    connection = world.connect()
    for _ in range(2):
        await world.pm.create_subflow(connection, WISH)
    other = await world.pm.create_subflow(connection, replace(WISH, local_address=THIRD_ADDRESS))
    world.kernel.executed.clear()
    later = _deaf(world)

    await world.pm.abandon(connection, 1)
    world.engine.batch(later)

    assert _order(world) == [commands.Remove, *[commands.SubflowDestroy] * 2]
    assert set(connection.subflows) == {FIRST, other.four_tuple}
    assert set(world.kernel.open[TOKEN].subflows) == {FIRST, other.four_tuple}


async def test_the_peer_is_not_told_again_while_the_subflows_are_closing(world: World) -> None:
    connection = world.connect()
    await world.pm.create_subflow(connection, WISH)
    later = _deaf(world)
    await world.pm.abandon(connection, 1)
    world.kernel.executed.clear()

    await world.pm.abandon(connection, 1)

    assert connection.subflows.keys() > {FIRST}, "its end must still be on its way"
    assert not world.executed(commands.Announce)
    assert not world.executed(commands.Remove)
    world.engine.batch(later)
    assert set(connection.subflows) == {FIRST}


async def test_what_the_peer_has_closed_already_is_not_destroyed(world: World) -> None:
    connection = world.connect()
    await world.pm.create_subflow(connection, WISH)

    await world.pm.abandon(connection, 1)

    assert _order(world)[1:] == [commands.Remove]
    assert set(connection.subflows) == {FIRST}


async def test_an_address_that_is_gone_already_is_given_up_without_a_word(world: World) -> None:
    connection = world.connect()

    await world.pm.abandon(connection, 7)

    assert set(connection.subflows) == {FIRST}
    with pytest.raises(errors.NoSuchAddress):  # control: the command alone tells
        await world.pm.remove_address(connection, 7)


async def test_a_subflow_is_destroyed_with_its_address(world: World) -> None:
    connection = world.connect()
    subflow, _ = [await world.pm.create_subflow(connection, WISH) for _ in range(2)]

    await world.pm.destroy_subflow(subflow, announce=True)

    assert commands.Remove in _order(world)
    assert set(connection.subflows) == {FIRST}


@pytest.mark.parametrize("alone", [True, False])
async def test_the_initial_address_is_given_up_even_if_nothing_is_left(
    world: World, alone: bool
) -> None:
    connection = world.connect()
    if not alone:
        await world.pm.create_subflow(connection, WISH)

    await world.pm.abandon(connection, 0)

    assert FIRST not in connection.subflows
    assert len(connection.subflows) == (not alone)
    assert world.state.connections[TOKEN] is connection
    await world.pm.create_subflow(connection, WISH)  # it can be rescued


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (errors.NoSuchAddress, errors.KernelRefused("REMOVE", errno.EINVAL, "address with id 1")),
        (errors.KernelRefused, errors.KernelRefused("REMOVE", errno.EINVAL, "no")),
    ],
)
async def test_subflows_are_destroyed_even_if_the_peer_cannot_be_told(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[errors.MptcpdError],
    error: errors.KernelRefused,
) -> None:
    connection = world.connect()
    await world.pm.create_subflow(connection, WISH)
    execute = world.kernel.execute

    async def refuse(command: commands.Command) -> None:
        if isinstance(command, commands.Remove):
            raise error
        await execute(command)

    monkeypatch.setattr(world.kernel, "execute", refuse)

    if kind is errors.NoSuchAddress:  # it is gone already: nothing to complain of
        await world.pm.abandon(connection, 1)
    else:
        with pytest.raises(kind):
            await world.pm.abandon(connection, 1)

    assert set(world.kernel.open[TOKEN].subflows) == {FIRST}


@pytest.mark.parametrize("crowded", [False, True])
async def test_nothing_comes_between_telling_the_peer_and_destroying(
    world: World, monkeypatch: pytest.MonkeyPatch, crowded: bool
) -> None:
    """Not even a turn of the loop, however many others want their commands sent."""
    connections = [
        world.connect(TOKEN + n, FIRST._replace(local_port=5000 + n))
        for n in range(1, 1 + 40 * crowded)
    ]
    connection = world.connect()
    await world.pm.create_subflow(connection, WISH)
    loop, turns, execute = asyncio.get_running_loop(), 0, world.kernel.execute
    seen: list[tuple[type[commands.Command], int]] = []

    def turn() -> None:
        nonlocal turns
        turns += 1
        loop.call_soon(turn)

    async def note(command: commands.Command) -> None:
        seen.append((type(command), turns))
        await execute(command)

    turn()
    monkeypatch.setattr(world.kernel, "execute", note)
    _deaf(world)
    crowd = [asyncio.ensure_future(world.pm.send_join(c, WISH)) for c in connections]
    await world.pm.abandon(connection, 1)
    await asyncio.gather(*crowd)

    place = [kind for kind, _ in seen].index(commands.Remove)
    (_, removed), (kind, destroyed) = seen[place : place + 2]
    assert kind is commands.SubflowDestroy
    assert removed == destroyed
    # Control: a crowd does have to wait for each other.
    assert (len({turn for _, turn in seen}) > 1) is crowded


async def test_a_join_on_its_way_from_an_address_ends_when_the_address_is_given_up(
    world: World,
) -> None:
    connection = world.connect()
    world.kernel.answers[80] = Answer.SILENT
    await world.pm.send_join(connection, replace(WISH, remote_address="10.0.8.1"))
    waiting = asyncio.ensure_future(world.pm.create_subflow(connection, WISH))
    other = asyncio.ensure_future(
        world.pm.create_subflow(connection, replace(WISH, local_address=THIRD_ADDRESS))
    )
    await eventually(lambda: len(world.executed(commands.SubflowCreate)) == 3)

    await world.pm.abandon(connection, 1)

    with pytest.raises(errors.SubflowFailed, match="its local address was given up"):
        await waiting
    pending = set(world.kernel.open[TOKEN].subflows) - {FIRST}
    assert {t.local_address for t in pending} == {THIRD_ADDRESS}
    world.kernel.close(TOKEN)
    with pytest.raises(errors.SubflowFailed, match="closed"):
        await other


async def test_a_listener_of_an_address_that_is_given_up_closes(world: World) -> None:
    connection = world.connect()
    announced = await world.pm.announce_address(connection, SECOND_ADDRESS, port=8080)
    assert world.kernel.own_listeners

    await world.pm.abandon(connection, announced.id)

    assert world.kernel.own_listeners == {}


# Looks for joins that nobody waits for.


def _looks(world: World, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int | str, ...]]:
    look, looks = world.kernel.pending_joins, []

    def spy(*key: int | str) -> object:
        looks.append(key)
        return look(*key)  # type: ignore[arg-type] # whatever it is given

    monkeypatch.setattr(world.kernel, "pending_joins", spy)
    return looks


async def test_no_look_is_taken_where_no_join_was_left_to_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, looks = world.connect(), _looks(world, monkeypatch)

    for _ in range(2):
        await world.pm.create_subflow(connection, WISH)
    world.kernel.answers[80] = Answer.REFUSED
    for _ in range(2):
        with pytest.raises(errors.SubflowFailed):
            await world.pm.create_subflow(connection, WISH)

    assert looks == []


@pytest.mark.parametrize("how", ["not waited for", "timed out", "cancelled", "before our time"])
async def test_a_look_is_taken_where_a_join_was_left_to_itself(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    connection = world.connect()
    world.kernel.answers[80] = Answer.SILENT
    if how == "not waited for":
        await world.pm.send_join(connection, WISH)
    elif how == "before our time":
        world.pm.adopt_announced()
    else:
        left = asyncio.ensure_future(world.pm.create_subflow(connection, WISH, seconds=0.01))
        await eventually(lambda: world.executed(commands.SubflowCreate))
        if how == "cancelled":
            left.cancel()
        await asyncio.wait([left])
    looks = _looks(world, monkeypatch)
    world.kernel.answers.clear()

    await world.pm.create_subflow(connection, WISH)
    await world.pm.create_subflow(connection, replace(WISH, local_address=THIRD_ADDRESS))

    assert looks[0] == (TOKEN, SECOND_ADDRESS, *FIRST[2:])
    assert len(looks) == (2 if how == "before our time" else 1)
    # The next connection with this token starts anew.
    world.kernel.close(TOKEN)
    looks.clear()
    await world.pm.create_subflow(world.connect(TOKEN, OTHER), WISH)
    assert looks == []


# IDs.


@pytest.fixture(name="connection")
async def _connection(world: World) -> Connection:
    return world.connect()


async def test_an_address_that_returns_gets_a_fresh_id(
    world: World, connection: Connection
) -> None:
    first = await world.pm.create_subflow(connection, WISH)
    await world.pm.abandon(connection, first.local_id)

    again = await world.pm.create_subflow(connection, WISH)
    await world.pm.remove_address(connection, again.local_id)
    third = await world.pm.announce_address(connection, SECOND_ADDRESS)

    assert (first.local_id, again.local_id, third.id) == (1, 2, 3)
    named = await world.pm.announce_address(connection, THIRD_ADDRESS, address_id=1)
    assert named.id == 1


async def test_withdrawn_ids_come_back_when_no_other_is_left(
    world: World, connection: Connection
) -> None:
    for number in range(1, 256):
        await world.pm.announce_address(connection, f"10.1.0.{number}", listener=False)
    for address_id in (200, 7):
        await world.pm.remove_address(connection, address_id)

    given = [(await world.pm.create_subflow(connection, replace(WISH, local_address=a))).local_id
             for a in (SECOND_ADDRESS, THIRD_ADDRESS)]  # fmt: skip

    assert given == [200, 7]
    with pytest.raises(errors.LimitReached):
        await world.pm.announce_address(connection, "10.0.4.1", listener=False)


async def test_a_policys_ids_are_those_of_its_subflows_and_announcements(
    world: World, connection: Connection
) -> None:
    world.pm.map_address_id(connection, SECOND_ADDRESS, 245)
    world.pm.map_address_id(connection, SECOND_ADDRESS, 222)
    asked = world.pm.address_id(connection, THIRD_ADDRESS)
    with_port = world.pm.address_id(connection, THIRD_ADDRESS, 5000)

    subflow = await world.pm.create_subflow(connection, WISH)
    announced = await world.pm.announce_address(connection, THIRD_ADDRESS)
    from_port = await world.pm.create_subflow(
        connection, replace(WISH, local_address=THIRD_ADDRESS, local_port=5000)
    )

    assert subflow.local_id == 222
    assert announced.id == asked == 1
    assert from_port.local_id == with_port == 2
    assert world.pm.address_id(connection, SECOND_ADDRESS) == 222


async def test_a_policys_id_is_freed_once_and_with_its_connection(
    world: World, connection: Connection
) -> None:
    world.pm.map_address_id(connection, SECOND_ADDRESS, 9)

    given = [world.pm.forget_address_id(connection, SECOND_ADDRESS) for _ in range(2)]

    assert given == [9, 0]
    assert world.pm.address_id(connection, SECOND_ADDRESS) == 1
    world.kernel.close(TOKEN)
    for call in (world.pm.address_id, world.pm.forget_address_id):
        with pytest.raises(errors.NoSuchConnection, match="a889fad4"):
            call(connection, SECOND_ADDRESS)
    assert world.pm.address_id(world.connect(TOKEN, OTHER), THIRD_ADDRESS) == 1


async def test_an_id_that_the_kernel_gave_away_is_not_reserved(
    world: World, connection: Connection
) -> None:
    await world.kernel.execute(
        commands.SubflowCreate(
            TOKEN,
            AddressEntry(THIRD_ADDRESS, 1),
            AddressEntry(FIRST.remote_address, port=FIRST.remote_port),
        )
    )

    assert world.pm.address_id(connection, SECOND_ADDRESS) == 2
    with pytest.raises(errors.InvalidArgument, match=r"1 is in use by 10\.0\.3\.1"):
        world.pm.map_address_id(connection, SECOND_ADDRESS, 1)


async def test_a_connection_of_the_kernels_path_manager_has_no_ids_of_ours(world: World) -> None:
    connection = world.connect(userspace=False)

    with pytest.raises(errors.NotManageable):
        world.pm.address_id(connection, SECOND_ADDRESS)


# Listeners.


@pytest.mark.parametrize(("address", "port"), [("127.0.0.1", 8080), ("::1", 8080)])
async def test_what_is_listened_on_twice_ends_with_the_second_end(
    world: World, address: str, port: int
) -> None:
    for user in ("a", "b"):
        assert world.pm.listen(user, address, port) == port
    assert world.state.listeners == {(address, port): 1}

    world.pm.unlisten("a", address, port)
    assert (address, port) in world.state.listeners
    with pytest.raises(errors.InvalidArgument, match=f"port {port} is not listened on by a"):
        world.pm.unlisten("a", address, port)
    world.pm.unlisten("b", address, port)

    assert world.state.listeners == {}


async def test_port_0_is_a_port_of_the_kernels_choice(world: World) -> None:
    ports = {world.pm.listen("a", "127.0.0.1") for _ in range(2)}

    assert len(ports) == 2
    assert set(world.state.listeners) == {("127.0.0.1", port) for port in ports}
    with pytest.raises(errors.InvalidArgument):
        world.pm.unlisten("a", "127.0.0.1", 0)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104 - refused
        "255.255.255.255",
        "::",
        "224.0.0.1",
        "ff02::1",
        "fe80::1",
        "169.254.0.1",
        "lo",
        "",
    ],
)
async def test_nobody_listens_on_what_is_not_the_address_of_one_host(
    world: World, address: str
) -> None:
    with pytest.raises(errors.InvalidArgument, match=f"address: '{address}'"):
        world.pm.listen("a", address, 8080)
    assert world.kernel.own_listeners == {}


async def test_a_port_that_an_application_listens_on_is_refused(world: World) -> None:
    world.kernel.app_listeners.add((SECOND_ADDRESS, 8080))

    with pytest.raises(errors.KernelRefused, match="EADDRINUSE"):
        world.pm.listen("a", SECOND_ADDRESS, 8080)


async def test_a_policys_listeners_end_with_it_and_no_others(
    world: World, connection: Connection
) -> None:
    for user, port in (("a", 1), ("a", 1), ("a", 2), ("b", 2)):
        world.pm.listen(user, SECOND_ADDRESS, port)
    await world.pm.announce_address(connection, SECOND_ADDRESS, port=1)

    world.pm.unlisten_all("a")

    assert set(world.state.listeners) == {(SECOND_ADDRESS, 1), (SECOND_ADDRESS, 2)}
    world.kernel.close(TOKEN)
    assert set(world.state.listeners) == {(SECOND_ADDRESS, 2)}

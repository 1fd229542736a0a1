"""Who may command a connection by having shown its socket, and for how long that holds."""
# SPDX-License-Identifier: BSD-3-Clause

from typing import Any

import pytest

from mptcpd_dbus.bus.authority import Authority
from mptcpd_dbus.bus.error_names import ACCESS_DENIED, BusError
from mptcpd_dbus.bus.interface import Call, Method, args
from mptcpd_dbus.bus.names import MANAGE_CONNECTIONS, MANAGE_ENDPOINTS, PROVERS
from mptcpd_dbus.bus.polkit import Polkit
from mptcpd_dbus.bus.programs import Programs
from mptcpd_dbus.core import events
from mptcpd_dbus.core.connections import Connection
from tests.world import FIRST, TOKEN, World


class NoPrograms(Programs):
    """No program decides for anything."""

    def __init__(self) -> None:
        pass

    def decides(self, sender: str, connection: Connection) -> bool:
        """Deny."""
        del sender, connection
        return False


class Strict(Polkit):
    """A polkit that allows nobody anything."""

    def __init__(self) -> None:
        pass

    async def check(
        self, call: Call, action: str, details: dict[str, str], *, without: bool = False
    ) -> None:
        """Refuse."""
        del call, details, without
        raise BusError(ACCESS_DENIED, action)


class Lenient(Strict):
    """A polkit that allows everybody everything."""

    async def check(
        self, call: Call, action: str, details: dict[str, str], *, without: bool = False
    ) -> None:
        """Allow."""


async def _nothing(*_: Any) -> None:
    raise AssertionError


def _call(sender: str, member: str = "RemoveAddress", **options: Any) -> Call:
    return Call(sender, 1000, interactive=False, member=member, arguments=(options,))


@pytest.fixture(name="world")
async def _world() -> World:
    return World()


async def _may(
    authority: Authority, target: object, call: Call, action: str = MANAGE_CONNECTIONS
) -> bool:
    method = Method(call.member, args("a{sv} options"), (), _nothing, "Does.", action)
    try:
        await authority.check(call, target, method, {})
    except BusError:
        return False
    return True


async def test_what_was_proved_is_of_one_connection_and_its_subflows(world: World) -> None:
    authority = Authority(Strict(), NoPrograms())
    shown = world.connect()
    other = world.connect(TOKEN + 1, FIRST._replace(local_port=4001))
    assert not await _may(authority, shown, _call(":1.7"))

    authority.prove(_call(":1.7"), shown)

    assert await _may(authority, shown, _call(":1.7"))
    assert await _may(authority, shown.subflows[FIRST], _call(":1.7"))
    assert not await _may(authority, shown, _call(":1.8"))
    assert not await _may(authority, other, _call(":1.7"))
    assert not await _may(authority, world.state, _call(":1.7"))
    assert not await _may(authority, shown, _call(":1.7"), MANAGE_ENDPOINTS)


@pytest.mark.parametrize(("action", "own"), [(MANAGE_CONNECTIONS, True), (MANAGE_ENDPOINTS, False)])
async def test_who_commands_as_the_owner_is_told_from_whom_polkit_allows(
    world: World, action: str, *, own: bool
) -> None:
    authority = Authority(Lenient(), NoPrograms())
    shown = world.connect()
    authority.prove(_call(":1.7"), shown)
    method = Method("RemoveAddress", (), (), _nothing, "Does.", action)

    assert await authority.check(_call(":1.7"), shown, method, {}) is own
    assert await authority.check(_call(":1.8"), shown, method, {}) is False


async def test_the_next_connection_with_the_token_is_not_proved(world: World) -> None:
    authority = Authority(Strict(), NoPrograms())
    shown = world.connect()
    authority.prove(_call(":1.7"), shown)

    world.engine.take(events.ConnectionClosed(TOKEN))
    following = world.connect()

    assert following is not shown
    assert following.token == shown.token
    assert not await _may(authority, following, _call(":1.7"))


async def test_the_newest_of_those_who_showed_a_socket_are_remembered(world: World) -> None:
    authority = Authority(Strict(), NoPrograms())
    shown = world.connect()

    for number in range(PROVERS + 1):
        authority.prove(_call(f":1.{number}"), shown)
        authority.prove(_call(f":1.{number}"), shown)  # twice is once

    assert not await _may(authority, shown, _call(":1.0"))
    for number in range(1, PROVERS + 1):
        assert await _may(authority, shown, _call(f":1.{number}"))


@pytest.mark.parametrize(
    ("member", "options", "allowed"),
    [
        ("CreateSubflow", {"LocalPort": 1023}, False),
        ("CreateSubflow", {"LocalPort": 1024}, True),
        ("CreateSubflow", {"LocalPort": 0}, True),
        ("AnnounceAddress", {}, False),
        ("AnnounceAddress", {"Listener": True}, False),
        ("AnnounceAddress", {"Listener": False}, True),
        ("AnnounceAddress", {"Listener": False, "Port": 80}, False),
    ],
)
async def test_what_is_the_hosts_is_not_proved(
    world: World, member: str, options: dict[str, Any], *, allowed: bool
) -> None:
    authority = Authority(Strict(), NoPrograms())
    shown = world.connect()
    authority.prove(_call(":1.7"), shown)

    assert await _may(authority, shown, _call(":1.7", member, **options)) is allowed

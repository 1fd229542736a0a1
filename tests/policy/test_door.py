"""What `self.pm` shows of the present."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import itertools

import pytest

from mptcpd_dbus.plugin import Connection, Interface, Plugin
from mptcpd_dbus.testing import World, close, connect, cut, link, play


def test_a_connection_as_it_is_now_is_not_another_one_with_its_token() -> None:
    seen: list[tuple[Connection | None, Connection | None]] = []

    class Looks(Plugin):
        """Looks at its first connection again."""

        first: Connection | None = None

        async def connection_established(self, connection: Connection) -> None:
            """Look."""
            self.first = self.first or connection
            seen.append((self.pm.now(self.first), self.pm.connection(self.first.token)))

    def again(world: World) -> None:
        world.tokens = itertools.count(1)

    play(Looks, connect(), close(), again, connect())

    assert [(now and now.number, known and known.number) for now, known in seen] == [
        (1, 1),
        (None, 2),
    ]


def test_an_address_has_a_link_while_an_interface_with_a_carrier_has_it() -> None:
    seen: list[tuple[bool, ...]] = []

    class Looks(Plugin):
        """Asks for links."""

        async def update_interface(self, interface: Interface) -> None:  # noqa: ARG002 # any
            """Ask."""
            seen.append(tuple(self.pm.has_link(f"10.0.{i}.1") for i in (1, 2, 3, 4)))

    shared = (link("eth0", "10.0.1.1", "10.0.3.1"), link("wlan0", "10.0.2.1", "10.0.3.1"))
    play(Looks, *shared, cut("eth0"), cut("wlan0"))

    assert seen == [(False, True, True, False), (False, False, False, False)]


def test_a_peer_is_given_time_between_two_addresses_that_are_withdrawn() -> None:
    took: list[float] = []

    class GivesUp(Plugin):
        """Gives up what has lost its link."""

        async def connection_established(self, connection: Connection) -> None:
            """Join."""
            for i in (2, 3, 4):
                await self.pm.create_subflow(connection, local_address=f"10.0.{i}.1")

        async def update_interface(self, interface: Interface) -> None:
            """Give up, and tell how long that takes."""
            clock = asyncio.get_running_loop().time
            began = clock()
            for connection in self.connections:
                await self.pm.abandon_lost(connection, interface.addresses)
            took.append(clock() - began)

    wifi = link("wlan0", "10.0.2.1", "10.0.3.1", "10.0.4.1")
    played = play(GivesUp, link("eth0", "10.0.1.1"), wifi, connect(), cut("wlan0"))

    assert sorted(played.commands[3:]) == ["remove id 1", "remove id 2", "remove id 3"]
    assert took == [pytest.approx(2 * 0.02)]

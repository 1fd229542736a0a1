"""Plays for plugin authors: what happens reaches the policy, what it commands is written down."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import time
from typing import Any

import pytest

from mptcpd_dbus.core.errors import ConfigurationError, InvalidArgument
from mptcpd_dbus.plugin import Connection, Plugin, PluginSettings, Subflow
from mptcpd_dbus.policy.base import HANDLERS
from mptcpd_dbus.policy.files import PluginProblem
from mptcpd_dbus.testing import (
    TOKEN,
    address,
    announced,
    close,
    connect,
    cut,
    link,
    no_address,
    play,
    restore,
    subflow_lost,
    wait,
    withdrawn,
)


class Commanding(Plugin):
    """Gives every command once."""

    async def connection_established(self, connection: Connection) -> None:
        """Give those for a connection."""
        pm = self.pm
        subflow = await pm.create_subflow(connection, local_address="10.0.2.1", backup=True)
        await pm.set_backup(subflow, backup=False)
        await pm.set_backup(subflow, backup=True)
        await pm.destroy_subflow(subflow)
        given = await pm.announce_address(connection, "10.0.3.1", port=8080)
        await pm.remove_address(connection, given.id)

    async def connection_closed(self, connection: Connection) -> None:
        """Give those for endpoints."""
        pm = self.pm
        first = await pm.add_endpoint("10.0.2.1", ["subflow"], interface="wwan0")
        await pm.add_endpoint("10.0.3.1", ["signal"], port=8080, endpoint_id=9)
        await pm.set_endpoint_flags(first, ["subflow", "backup"])
        await pm.remove_endpoint(first)
        await pm.set_limits(subflows=3, add_addr_accepted=4)
        if connection.server_side:
            await pm.flush_endpoints()


def test_each_command_is_a_line_in_the_words_of_ip_mptcp() -> None:
    played = play(Commanding, link("wwan0", "10.0.2.1"), connect(), close())

    assert played.commands == [
        "create 10.0.2.1 id 1 backup dev wwan0 -> 10.0.9.1:443",
        "nobackup 10.0.2.1 -> 10.0.9.1:443",
        "backup 10.0.2.1 -> 10.0.9.1:443",
        "destroy 10.0.2.1 -> 10.0.9.1:443",
        "announce 10.0.3.1 port 8080 id 1",
        "remove id 1",
        "endpoint add 10.0.2.1 subflow dev wwan0",
        "endpoint add 10.0.3.1 port 8080 id 9 signal",
        "endpoint change 10.0.2.1 id 1 subflow backup",
        "endpoint delete id 1",
        "limits subflows 3 add_addr_accepted 4",
    ]
    assert played.problem == ""
    assert played.connections == []
    assert [(e.id, e.address, e.ours) for e in played.endpoints] == [(9, "10.0.3.1", True)]

    flushed = play(Commanding, link("wwan0", "10.0.2.1"), connect(server_side=True), close())
    assert flushed.commands[-1] == "endpoint flush"
    assert flushed.endpoints == []


def test_what_happens_reaches_the_handler_for_it() -> None:
    heard: list[str] = []

    def make(name: str) -> Any:
        async def noted(self: Plugin, *arguments: Any) -> None:
            del self, arguments
            heard.append(name)

        return noted

    kind = type("All", (Plugin,), {name: make(name) for name in HANDLERS})
    played = play(
        kind,
        link("eth0", "10.0.1.1"),
        address("eth0", "10.0.1.2"),
        no_address("eth0", "10.0.1.2"),
        cut("eth0"),
        restore("eth0"),
        connect(),
        connect("dead:beef::1", "dead:beef::2", server_side=True, deny_join_id0=True),
        announced(3, "10.0.9.9"),
        withdrawn(3),
        subflow_lost("10.0.1.1"),
        close(),
    )

    assert heard == [
        "start",
        "ready",
        "new_interface",
        "new_local_address",
        "new_local_address",
        "delete_local_address",
        "update_interface",
        "update_interface",
        "new_connection",
        "connection_established",
        "new_connection",
        "connection_established",
        "new_address",
        "address_removed",
        "subflow_closed",
        "connection_closed",
        "stop",
    ]
    (left,) = played.connections
    assert (left.token, left.server_side, left.deny_join_id0) == (TOKEN + 1, True, True)
    assert (left.local_port, left.owner) == (443, "all")


def test_time_passes_only_where_somebody_waits_and_then_at_once() -> None:
    seen: list[float] = []

    class Patient(Plugin):
        """Comes back later."""

        async def connection_established(self, connection: Connection) -> None:
            seen.append(asyncio.get_running_loop().time())
            self.after(3600, self._later, connection=connection)

        async def _later(self) -> None:
            seen.append(asyncio.get_running_loop().time())

    began = time.monotonic()
    play(Patient, connect(), wait(3599))
    assert len(seen) == 1
    seen.clear()
    play(Patient, connect(), wait(3601))

    assert seen[1] - seen[0] == pytest.approx(3600, abs=0.1)
    assert time.monotonic() - began < 2


class Keeping(Plugin):
    """Uses what mptcpd's ID manager and listener manager are there for."""

    async def connection_established(self, connection: Connection) -> None:
        """Try what mptcpd's own tests try; only an error is a problem."""
        ids = self.pm.ids
        ids.map(connection, "10.0.2.1", 245)
        assert ids.get(connection, "10.0.2.1") == 245
        ids.map(connection, "10.0.2.1", 222)
        assert ids.get(connection, "10.0.2.1") == 222
        with pytest.raises(InvalidArgument):
            ids.map(connection, "10.0.2.1", 0)
        assert ids.get(connection, "10.0.3.1") == 1  # 245 is free again, others have others
        assert [ids.remove(connection, "10.0.2.1") for _ in range(2)] == [222, 0]

        first = self.pm.listen("10.0.1.1", 8080)
        assert self.pm.listen("10.0.1.1", 8080) == first
        assert self.pm.listen("10.0.1.1").port
        self.pm.unlisten(first)
        assert first in self.pm.listeners
        self.pm.unlisten(first)
        assert first not in self.pm.listeners
        with pytest.raises(InvalidArgument):
            self.pm.unlisten(first)
        with pytest.raises(InvalidArgument):
            self.pm.listen("nowhere", 8080)


def test_ids_and_listeners_are_kept_as_mptcpd_keeps_them() -> None:
    assert play(Keeping, link("eth0", "10.0.1.1"), connect()).problem == ""


async def _fail(*_: object) -> None:
    raise ValueError("on purpose")


async def _hang(*_: object) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (_fail, "new_connection: ValueError: on purpose"),
        (_hang, "new_connection: took longer than 30 s"),
    ],
)
def test_what_goes_wrong_is_the_problem(handler: Any, problem: str) -> None:
    kind = type("Wrong", (Plugin,), {"new_connection": handler})
    assert play(kind, connect()).problem == problem


def test_a_plugin_that_could_not_be_loaded_cannot_be_played() -> None:
    with pytest.raises(PluginProblem, match="do you mean new_connection"):
        play(type("Misspelt", (Plugin,), {"new_conection": _fail}))


class Own(PluginSettings):
    """What Set wants."""

    max_paths: int = 1


class Set(Plugin):
    """Can be set."""

    settings: Own

    async def new_connection(self, connection: Connection) -> None:
        """Command as it is told."""
        del connection
        await self.pm.set_limits(subflows=self.settings.max_paths)


def test_settings_are_given_as_the_configuration_would() -> None:
    assert play(Set, connect()).commands == ["limits subflows 1 add_addr_accepted None"]
    assert (
        play(Set, connect(), settings={"max_paths": 4}).commands[0].startswith("limits subflows 4")
    )
    with pytest.raises(ConfigurationError, match="paths"):
        play(Set, settings={"paths": 4})


class Restless(Plugin):
    """Joins and leaves for ever."""

    async def connection_established(self, connection: Connection) -> None:
        """Begin."""
        await self.subflow_closed(connection, connection.subflows[0])

    async def subflow_closed(self, connection: Connection, subflow: Subflow) -> None:
        """Go on."""
        del subflow
        await self.pm.destroy_subflow(
            await self.pm.create_subflow(connection, local_address="10.0.2.1")
        )


def test_a_policy_that_never_rests_ends_the_play() -> None:
    with pytest.raises(TimeoutError, match="the policy does not come to rest within 600 s"):
        play(Restless, link("wwan0", "10.0.2.1"), connect())

"""The sample hears everything, says so, and commands nothing."""
# SPDX-License-Identifier: BSD-3-Clause

import logging
from dataclasses import replace

import pytest

from mptcpd_dbus.core import events
from mptcpd_dbus.core.readings import EndpointsRead
from mptcpd_dbus.core.types import AddressEntry, FourTuple
from mptcpd_dbus.plugin import Plugin
from mptcpd_dbus.policy.base import HANDLERS
from mptcpd_dbus.policy.loader import load
from mptcpd_dbus.policy.watch import Watch
from mptcpd_dbus.testing import (
    JOINED,
    TOKEN,
    Answer,
    World,
    address,
    announced,
    close,
    connect,
    cut,
    link,
    no_address,
    play,
    reload,
    withdrawn,
)
from tests.lab.sandbox import REPOSITORY

FOO, SSPI = (
    load(name, (REPOSITORY / f"plugins/{name}.py").read_bytes(), Watch())
    for name in ("foo", "sspi")
)
JOIN = FourTuple("10.0.2.1", 5000, "10.0.9.1", 443)


def _joined(world: World) -> None:
    """Let the peer join, change the priority of its subflow, and end it."""
    row = replace(JOINED, token=TOKEN, four_tuple=JOIN, local_id=1, remote_id=2)
    world.kernel.answer(row, Answer.ACCEPTED)
    world.engine.take(
        events.SubflowPriority(
            TOKEN, JOIN, local_id=1, remote_id=2, backup=True, interface_index=0, mapped=False
        )
    )
    world.kernel.end_subflow(TOKEN, JOIN, 110)


def _listened(world: World) -> None:
    world.kernel.open_listener("somebody", "10.0.1.1", 8080)
    world.kernel.close_listener("somebody")


async def _released(world: World) -> None:
    await world.host.set_owner(world.engine.state.connections[TOKEN], "")


def _switched_off_and_on(world: World) -> None:
    settings = world.kernel.settings()
    world.engine.take(replace(settings, enabled=False))
    world.engine.take(settings)


EVERYTHING = (
    link("eth0", "10.0.1.1"),
    address("eth0", "10.0.2.1"),
    connect(),
    connect(),
    announced(2, "10.0.8.1"),
    withdrawn(2),
    _joined,
    _listened,
    _released,
    close(2),
    lambda world: world.engine.take(EndpointsRead((AddressEntry("10.0.2.1", 1),))),
    lambda world: world.engine.take(events.EventsLost("mptcp_pm")),
    _switched_off_and_on,
    reload(),
    no_address("eth0", "10.0.2.1"),
    cut("eth0"),
    lambda world: world.engine.take(events.DeleteInterface(world.names["eth0"])),
)

SAID = [
    "here are 0 interfaces",
    "MPTCP is on",
    "interface eth0 (ether)",
    "10.0.1.1 on eth0",
    "new connection 00000001 to 10.0.9.1",
    "connection 00000001 established",
    "00000001: the peer has 10.0.8.1, ID 2",
    "00000001: the peer withdrew ID 2",
    "00000001: new subflow",
    "00000001: backup is True now",
    "ended, errno 110",
    "listener on 10.0.1.1 port 8080",
    "no listener on 10.0.1.1 port 8080",
    "connection 00000001 is somebody else's now",
    "connection 00000002 closed",
    "there are 1 endpoints",
    "events of mptcp_pm were lost",
    "MPTCP is off",
    "the configuration was read again",
    "no 10.0.2.1 on eth0",
    "interface eth0, carrier False",
    "interface eth0 is gone",
    "good-bye",
]


def test_it_has_every_handler_there_is() -> None:
    assert {name for name in vars(FOO) if name in HANDLERS} == set(HANDLERS)
    assert "start" not in vars(type("Other", (Plugin,), {}))  # the control


def test_it_says_what_it_hears_and_commands_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mptcpd_dbus.plugin.foo"):
        played = play(FOO, *EVERYTHING)

    said = [r.getMessage() for r in caplog.records if r.name == "mptcpd_dbus.plugin.foo"]
    assert [words for words in SAID if not any(words in line for line in said)] == []
    assert (played.commands, played.problem) == ([], "")


def test_another_plugin_commands_something_at_the_same_play() -> None:
    """The control."""
    assert play(SSPI, *EVERYTHING).commands != []

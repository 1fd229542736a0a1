"""Policies on the bus: what is shown of them, and which command reaches the policy host, when."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from dbus_next import Message, Variant
from dbus_next.aio import MessageBus

from mptcpd_dbus.bus.contract import contract
from mptcpd_dbus.bus.error_names import (
    ACCESS_DENIED,
    FAILED,
    INVALID_ARGS,
    UNKNOWN_OBJECT,
    BusError,
)
from mptcpd_dbus.bus.interface import Call, Method
from mptcpd_dbus.bus.names import BUS_NAME, MANAGE_CONNECTIONS, MANAGE_PLUGINS, ROOT
from mptcpd_dbus.bus.objects import ObjectTree
from mptcpd_dbus.bus.paths import path_of
from mptcpd_dbus.bus.peers import Peers
from mptcpd_dbus.bus.programs import Programs
from mptcpd_dbus.bus.publisher import Publisher
from mptcpd_dbus.bus.transport import Transport
from mptcpd_dbus.core import errors, events, readings
from mptcpd_dbus.core.policies import PolicyState
from mptcpd_dbus.core.types import AddressEntry, AddressFlag
from tests.bus.conftest import ask, plain, subscribe, until
from tests.bus.fake_policies import FakePolicies
from tests.contract import no_socket
from tests.world import TOKEN, World

PLUGIN = f"{ROOT}/plugin/addr_adv"
CONNECTION = f"{ROOT}/connection/1"
PROPERTIES = "org.freedesktop.DBus.Properties"
ADDR_ADV = readings.PolicyRead(
    "addr_adv", "Announces.", "1", -3, "userspace", PolicyState.RUNNING, "", 0
)


class Command(NamedTuple):
    """A method, the action that it needs, and what the policy host hears of it."""

    path: str
    interface: str
    member: str
    action: str
    told: tuple[str, ...]
    arguments: tuple[str, ...] = ()


COMMANDS = [
    Command(PLUGIN, "Plugin", "Enable", MANAGE_PLUGINS, ("enable", "addr_adv")),
    Command(PLUGIN, "Plugin", "Disable", MANAGE_PLUGINS, ("disable", "addr_adv")),
    Command(PLUGIN, "Plugin", "Reload", MANAGE_PLUGINS, ("reload", "addr_adv")),
    Command(ROOT, "Manager", "Reload", MANAGE_PLUGINS, ("reload_configuration",)),
    Command(
        CONNECTION,
        "Connection",
        "SetOwner",
        MANAGE_CONNECTIONS,
        ("set_owner", f"{TOKEN:08x}", "sspi"),
        ("sspi",),
    ),
]
every_command = pytest.mark.parametrize(
    "command", COMMANDS, ids=[f"{command.interface}.{command.member}" for command in COMMANDS]
)


class Stage(World):
    """A state with a connection and a policy, shown on a real bus."""

    def __init__(self, transport: Transport) -> None:
        super().__init__()
        self.policies = FakePolicies()
        self.asked: list[str | None] = []
        self.denied = False
        self.leaves = False
        self.peers = Peers(transport)
        self.programs = Programs(
            transport,
            self.peers,
            self.policies,
            self.state.network.index_of,
            lambda _: self.engine.settle_soon(),
        )
        self.tree = ObjectTree(transport, self.peers, self._authorise)
        self.tree.at_end = self.programs.flush
        interfaces = contract(
            self.state,
            self.pm,
            self.policies,
            self.programs,
            features=(),
            counters=lambda: {"signals_dropped": 0},
            own=no_socket,
            announce=self.engine.announce_all,
        )
        self.connect()
        self.engine.take(ADDR_ADV)
        self.engine.attach(Publisher(self.tree, self.state, interfaces))

    async def _authorise(self, _: Call, __: object, method: Method, ___: dict[str, str]) -> bool:
        assert not self.policies.told
        self.asked.append(method.action)
        if self.leaves:
            self.engine.take(readings.PolicyGone("addr_adv"))
            self.engine.take(events.ConnectionClosed(TOKEN))
        if self.denied:
            raise BusError(ACCESS_DENIED, "not you")
        return False

    def take(self, *what: events.Event | readings.Reading) -> None:
        """Let it happen and be told."""
        self.engine.batch(what)


@pytest.fixture
async def stage(transport: Transport) -> AsyncIterator[Stage]:
    stage = Stage(transport)
    assert await transport.request_name(BUS_NAME)
    stage.tree.start()
    yield stage
    stage.tree.stop()
    stage.peers.stop()


async def call(
    client: MessageBus, command: Command, options: dict[str, Variant] | None = None
) -> Message:
    return await ask(
        client,
        command.path,
        f"org.mptcpd1.{command.interface}",
        command.member,
        "s" * len(command.arguments) + "a{sv}",
        *command.arguments,
        options or {},
    )


async def shown(client: MessageBus, path: str, interface: str) -> dict[str, Any]:
    reply = await ask(client, path, PROPERTIES, "GetAll", "s", f"org.mptcpd1.{interface}")
    properties = plain(reply.body[0])
    assert isinstance(properties, dict)
    return properties


async def listed(client: MessageBus, owner: str) -> list[Any]:
    given = {"Policy": Variant("s", owner)}
    reply = await ask(
        client, ROOT, "org.mptcpd1.Manager", "ListConnections", "a{sv}uu", given, 0, 0
    )
    return [list(found) for found in reply.body[0]]


# Commands


@every_command
async def test_a_command_reaches_the_policy_host_once_it_is_authorised(
    stage: Stage, client: MessageBus, command: Command
) -> None:
    reply = await call(client, command)

    assert (reply.error_name, reply.body) == (None, [])
    assert stage.asked == [command.action]
    assert stage.policies.told == [command.told]


@every_command
async def test_a_command_that_is_denied_or_wrong_reaches_nobody(
    stage: Stage, client: MessageBus, command: Command
) -> None:
    wrong = await call(client, command, {"Force": Variant("b", value=True)})
    stage.denied = True
    denied = await call(client, command)

    assert (wrong.error_name, denied.error_name) == (INVALID_ARGS, ACCESS_DENIED)
    assert wrong.body == ["options: unknown option 'Force'; known: none"]
    assert stage.policies.told == []


@every_command
@pytest.mark.parametrize(
    ("raised", "answer"),
    [
        (errors.NotReady("say so"), ("org.mptcpd1.Error.NotReady", "say so")),
        (errors.InvalidArgument("which?"), (INVALID_ARGS, "which?")),
        (RuntimeError("/srv/secret.py"), (FAILED, "internal error")),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_an_error_of_the_policy_host_has_its_name_and_no_file(
    stage: Stage, client: MessageBus, command: Command, raised: Exception, answer: tuple[str, str]
) -> None:
    stage.policies.raises = raised

    reply = await call(client, command)

    assert (reply.error_name, *reply.body) == answer


@every_command
async def test_what_leaves_during_the_dialogue_gets_no_command(
    stage: Stage, client: MessageBus, command: Command
) -> None:
    stage.leaves = True

    reply = await call(client, command)

    if command.path == ROOT:  # the control: the host does not leave
        assert (reply.error_name, stage.policies.told) == (None, [command.told])
    else:
        assert (reply.error_name, stage.policies.told) == (UNKNOWN_OBJECT, [])


# What is shown


async def test_a_policy_is_shown_as_the_policy_host_tells_it(
    stage: Stage, client: MessageBus
) -> None:
    stage.take(replace(ADDR_ADV, state=PolicyState.FAILED, problem="Oh.", errors=5, on_bus=":1.9"))

    assert await shown(client, PLUGIN, "Plugin") == {
        "Name": "addr_adv",
        "Description": "Announces.",
        "Version": "1",
        "Priority": -3,
        "Steers": "userspace",
        "State": "failed",
        "Problem": "Oh.",
        "Connections": 0,
        "Errors": 5,
        "OnBus": ":1.9",
    }


async def test_who_listens_hears_of_states_and_owners_but_not_of_counters(
    stage: Stage, client: MessageBus
) -> None:
    heard = await subscribe(client)

    stage.take(readings.OwnerRead(TOKEN, "addr_adv"))
    stage.take(replace(ADDR_ADV, errors=1))
    stage.take(replace(ADDR_ADV, errors=2, state=PolicyState.DISABLED))
    stage.take(readings.PolicyGone("addr_adv"))
    await until(lambda: len(heard) == 4)

    assert [(s.member, s.path, *plain(s.body)[:2]) for s in heard] == [
        ("PropertiesChanged", CONNECTION, "org.mptcpd1.Connection", {"Owner": "addr_adv"}),
        ("PropertiesChanged", PLUGIN, "org.mptcpd1.Plugin", {"State": "disabled"}),
        ("PropertiesChanged", CONNECTION, "org.mptcpd1.Connection", {"Owner": ""}),
        ("InterfacesRemoved", ROOT, PLUGIN, ["org.mptcpd1.Plugin"]),
    ]


async def test_managed_objects_have_the_counters_of_this_moment(
    stage: Stage, client: MessageBus
) -> None:
    counted = []
    for owner in ("addr_adv", ""):
        stage.take(readings.OwnerRead(TOKEN, owner))
        reply = await ask(client, ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
        counted.append(plain(reply.body[0])[PLUGIN]["org.mptcpd1.Plugin"]["Connections"])

    assert counted == [1, 0]


async def test_connections_are_listed_by_the_policy_that_decides_for_them(
    stage: Stage, client: MessageBus
) -> None:
    found = [[CONNECTION, TOKEN]]
    assert await listed(client, "") == found
    assert await listed(client, "addr_adv") == []

    stage.take(readings.OwnerRead(TOKEN, "addr_adv"))

    assert await listed(client, "") == []
    assert await listed(client, "addr_adv") == found


async def test_an_endpoint_tells_whether_this_daemon_added_it(
    stage: Stage, client: MessageBus
) -> None:
    ours, others = AddressEntry("10.0.1.1", 1), AddressEntry("10.0.2.1", 2)
    implicit = AddressEntry("10.0.3.1", 3, flags=AddressFlag.IMPLICIT)
    stage.take(
        readings.OwnEndpointsRead(frozenset({(1, "10.0.1.1", 0), (3, "10.0.3.1", 0)})),
        readings.EndpointsRead((ours, others, implicit)),
    )

    origins = [
        (await shown(client, f"{ROOT}/endpoint/{i}", "Endpoint"))["Origin"] for i in (1, 2, 3)
    ]

    assert origins == ["mptcpd", "other", "other"]


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("sspi", "sspi"),
        ("addr_adv", "addr_adv"),
        ("_", "_"),
        ("a_2db", "a_2db"),
        ("a-b", "_/a_2db"),
        ("a_-b", "_/a_5f_2db"),
        ("../etc", "_/_2e_2e_2fetc"),
        ("caf\u00e9\n", "_/caf_c3_a9_0a"),
        ("\udcff", "_/_ff"),
        ("", "_/_"),
    ],
)
async def test_a_policy_of_whatever_name_has_a_path_of_its_own(
    stage: Stage, client: MessageBus, name: str, end: str
) -> None:
    stage.take(replace(ADDR_ADV, name="other"), readings.PolicyGone("addr_adv"))
    stage.take(replace(ADDR_ADV, name=name))

    properties = await shown(client, f"{ROOT}/plugin/{end}", "Plugin")

    assert path_of(stage.state.policies[name]) == f"{ROOT}/plugin/{end}"
    assert properties["State"] == "running"
    # D-Bus has UTF-8 only: what is none is left out.
    assert properties.get("Name", "left out") == ("left out" if name == "\udcff" else name)

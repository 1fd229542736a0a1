"""Who may command: the daemon asks a real polkitd, and the kernel shows whether it was obeyed.

alice is anybody, carol is allowed by the lab's rule, bob approves; see `tests/lab/users.py`.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import os
import signal
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from dbus_next import Variant

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import CONNECTION, ENDPOINT, MANAGER, SUBFLOW, Stage
from tests.lab.bus import Agent, PrivateBus
from tests.lab.client import BUS, NAME, ROOT, BusClient, BusError

ERROR = f"{BUS}.Error."
DENIED = f"{ERROR}AccessDenied"
NEEDS_DIALOGUE = f"{ERROR}InteractiveAuthorizationRequired"
ENDPOINTS, CONNECTIONS, PATH_MANAGER = (
    f"{NAME}.{action}" for action in ("manage-endpoints", "manage-connections", "set-path-manager")
)

pytestmark = pytest.mark.usefixtures("people")

# Methods that only read; whoever adds a method must put it here or have it refused to alice.
READING = {
    f"{MANAGER}.ListConnections",
    f"{MANAGER}.GetConnection",
    f"{MANAGER}.GetConnectionBySocket",  # allowed by default; the socket decides
    f"{MANAGER}.GetStatistics",
    f"{CONNECTION}.GetStatistics",
    f"{SUBFLOW}.GetStatistics",
}
# Its handler refuses all but the one whose policy it is.
ONES_OWN = {f"{MANAGER}.UnregisterPolicy"}
ZEROS: dict[str, Any] = {
    "o": "/",
    "s": "",
    "q": 0,
    "u": 0,
    "y": 0,
    "b": False,
    "a{sv}": {},
    "as": [],
    "h": 0,
}

_ADD = (ROOT, MANAGER, "AddEndpoint", "sasa{sv}")
ADD_ENDPOINT: tuple[Any, ...] = (*_ADD, "10.0.2.1", ["subflow"], {})


def _command(action: str, path: str) -> tuple[Any, ...]:
    """Give one command that needs the action; what it does shows in `_kernel`."""
    join = {"LocalAddress": Variant("s", "10.0.2.1")}
    return {
        ENDPOINTS: ADD_ENDPOINT,
        CONNECTIONS: (path, CONNECTION, "CreateSubflow", "sqa{sv}", "", 0, join),
        PATH_MANAGER: (ROOT, MANAGER, "SetPathManager", "sa{sv}", "kernel", {}),
    }[action]


def _kernel(play: Stage) -> tuple[Any, ...]:
    """Give everything in the kernel that the commands of these tests could change."""
    return (
        play.lab.ip("client", "mptcp", "endpoint", "show"),
        play.lab.ip("client", "mptcp", "limits", "show"),
        play.lab.sysctl("client", "net.mptcp.path_manager"),
        play.sockets(),
    )


async def _connected(stage: MakeStage) -> tuple[Stage, str]:
    play = await stage()
    _, path = await play.connection(await play.listener())
    return play, path


async def _refusal(client: BusClient, *command: Any, **options: Any) -> BusError:
    with pytest.raises(BusError) as refusal:
        await client.call(*command, **options)
    return refusal.value


@pytest.mark.parametrize("action", [ENDPOINTS, CONNECTIONS, PATH_MANAGER])
async def test_an_ordinary_user_is_refused_and_one_whom_a_rule_allows_is_not(
    stage: MakeStage, action: str
) -> None:
    """The same command by both; only the second one changes the kernel."""
    play, path = await _connected(stage)
    command, before = _command(action, path), _kernel(play)

    async with await BusClient.connect("alice") as alice, await BusClient.connect("carol") as carol:
        refusal = await _refusal(alice, *command)
        assert (refusal.name, refusal.text.split()[0]) == (NEEDS_DIALOGUE, action)
        assert (await _refusal(alice, *command, interactive=True)).name == DENIED  # nobody to ask
        assert _kernel(play) == before

        await carol.call(*command)

    assert _kernel(play) != before


async def test_every_method_but_those_that_read_is_refused_to_an_ordinary_user(
    stage: MakeStage,
) -> None:
    """As the served XML lists them, so that none is forgotten."""
    play, path = await _connected(stage)
    endpoint = await play.viewer.call(*ADD_ENDPOINT)
    before = _kernel(play)
    refused: set[str] = set()
    answered: set[str] = set()

    async with await BusClient.connect("alice") as alice:
        for place in (ROOT, path, f"{path}/subflow/1", endpoint):
            for interface, member, types in await _methods(alice, place):
                zeros = [ZEROS[kind] for kind in types]
                try:
                    await alice.call(place, interface, member, "".join(types), *zeros)
                    answered.add(f"{interface}.{member}")
                except BusError as error:
                    known = refused if error.name == NEEDS_DIALOGUE else answered
                    known.add(f"{interface}.{member}")

    assert answered == READING | ONES_OWN
    assert len(refused) >= 11, refused
    assert _kernel(play) == before


async def _methods(client: BusClient, path: str) -> list[tuple[str, str, list[str]]]:
    xml = await client.call(path, f"{BUS}.Introspectable", "Introspect")
    return [
        (
            interface.attrib["name"],
            method.attrib["name"],
            [a.attrib["type"] for a in method.iter("arg") if a.get("direction") == "in"],
        )
        for interface in ET.fromstring(xml).iter("interface")  # noqa: S314 - the daemon's own
        if interface.attrib["name"].startswith(NAME)
        for method in interface.iter("method")
    ]


async def test_reading_needs_nothing(stage: MakeStage) -> None:
    """An ordinary user sees what root sees: objects, properties, counters and signals."""
    play, path = await _connected(stage)
    [token] = {row[0] for row in await play.subflows()}

    async with await BusClient.connect("alice") as alice:
        await alice.listen()
        assert await alice.managed_objects() == await play.viewer.managed_objects()
        assert await alice.call(ROOT, MANAGER, "GetConnection", "u", token) == path
        assert await alice.get(path, CONNECTION, "Token") == token
        for place, interface in (
            (ROOT, MANAGER),
            (path, CONNECTION),
            (f"{path}/subflow/1", SUBFLOW),
        ):
            assert await alice.call(place, interface, "GetStatistics")
            assert await alice.call(place, f"{BUS}.Properties", "GetAll", "s", interface)
        number, _ = await play.client.call("listen", address="10.0.1.1")
        await alice.signal(lambda heard: heard.member == "ListenerCreated")
        await play.client.call("close", number=number)


@pytest.mark.parametrize("answer", ["approve", "deny"])
async def test_a_dialogue_opens_only_for_a_caller_who_wants_it_and_decides(
    stage: MakeStage, answer: Any
) -> None:
    """Without the flag of the message the agent is not asked at all."""
    play, path = await _connected(stage)
    before = _kernel(play)

    async with (
        await BusClient.connect("alice") as alice,
        Agent(answer, "alice", os.getpid()) as agent,
    ):
        silent = await _refusal(alice, *_command(PATH_MANAGER, path))
        assert silent.name == NEEDS_DIALOGUE
        asked = alice.call(*ADD_ENDPOINT, interactive=True)
        if answer == "approve":
            assert await asked == "/org/mptcpd1/endpoint/1"
        else:
            with pytest.raises(BusError, match=DENIED):
                await asked
        # The first line is of the second command.
        await agent.expect(f"asked {ENDPOINTS} 'Authentication is required to change the")

    endpoints, *others = _kernel(play)
    assert endpoints == ("10.0.2.1 id 1 subflow \n" if answer == "approve" else "")
    assert others == [*before[1:]]


async def test_a_caller_who_leaves_takes_the_question_along(stage: MakeStage) -> None:
    """The agent hears that its dialogue is void, and nothing is done."""
    play = await stage()
    before = _kernel(play)

    async with Agent("hang", "alice", os.getpid()) as agent:
        alice = await BusClient.connect("alice")
        asking = asyncio.ensure_future(alice.call(*ADD_ENDPOINT, interactive=True))
        await agent.expect(f"asked {ENDPOINTS}")
        assert not asking.done()

        alice.close()
        asking.cancel()

        await agent.expect("cancelled")
    assert _kernel(play) == before
    assert await play.viewer.get(ROOT, MANAGER, "ConnectionCount") == 0  # it lives


async def test_what_disappears_during_the_dialogue_is_unknown_after_it(stage: MakeStage) -> None:
    """The approval was for a connection that is gone; nobody else's is hit."""
    play = await stage()
    listener = await play.listener()
    pair, path = await play.connection(listener)

    async with (
        await BusClient.connect("alice") as alice,
        Agent("approve", "alice", os.getpid()) as agent,
    ):
        agent.process.send_signal(signal.SIGSTOP)  # it thinks for a while
        command = _command(CONNECTIONS, path)
        asking = asyncio.ensure_future(_refusal(alice, *command, interactive=True))
        await asyncio.sleep(0)  # the call is sent first
        await alice.call(path, f"{BUS}.Peer", "Ping")  # so it has been taken in, and found its path
        await play.client.call("close", number=pair.client)
        await play.server.call("close", number=pair.server)
        await play.heard("ConnectionClosed")
        _, other = await play.connection(listener)
        assert not asking.done()
        agent.process.send_signal(signal.SIGCONT)

        refusal = await asking
        await agent.expect(f"asked {CONNECTIONS}")

        assert refusal.name == f"{ERROR}UnknownObject"
        await play.agreed()
        assert len(play.sockets()) == 1
        # The control: the same approval for a connection that is still there.
        await alice.call(*_command(CONNECTIONS, other), interactive=True)
    assert len(play.sockets()) == 2


async def test_without_polkit_only_root_commands(stage: MakeStage, bus: PrivateBus) -> None:
    """Who cannot be asked has not allowed it; when polkit is back, it is asked again."""
    play = await stage()
    before = _kernel(play)
    bus.stop("polkitd")

    async with await BusClient.connect("alice") as alice, await BusClient.connect("carol") as carol:
        for client in (alice, carol):
            assert (await _refusal(client, *ADD_ENDPOINT)).name == DENIED
        assert _kernel(play) == before
        await play.viewer.call(*ADD_ENDPOINT)
        assert _kernel(play) != before

        bus.start_polkit()

        assert (await _refusal(alice, *ADD_ENDPOINT)).name == NEEDS_DIALOGUE
        await carol.call("/org/mptcpd1/endpoint/1", ENDPOINT, "Remove", "a{sv}", {})
    assert _kernel(play) == before
    assert play.daemon.log.read_text().count("polkit cannot be asked; so") == 1


@pytest.mark.parametrize("user", ["alice", "carol", None])
async def test_no_property_can_be_set_by_anybody(stage: MakeStage, user: str | None) -> None:
    """Methods carry the interactive flag, which a Set of GDBus cannot."""
    play = await stage()
    before = _kernel(play)
    value = Variant("u", 7)

    async with await BusClient.connect(user) as client:
        refusal = await _refusal(
            client, ROOT, f"{BUS}.Properties", "Set", "ssv", MANAGER, "SubflowLimit", value
        )

    assert refusal.name == f"{ERROR}PropertyReadOnly"
    assert _kernel(play) == before


async def test_the_bus_keeps_strangers_off_the_name_and_off_undeclared_interfaces(
    stage: MakeStage,
) -> None:
    """The policy of the bus, in force while the daemon is not: nobody can stand in for it."""
    play = await stage()
    stray = (ROOT, "org.example.Undeclared", "Call")

    assert (await _refusal(play.viewer, *stray)).name == f"{ERROR}UnknownInterface"  # the control
    async with await BusClient.connect("alice") as alice, await BusClient.connect("carol") as carol:
        for client in (alice, carol):
            assert (await _refusal(client, *stray)).name == DENIED
        await play.daemon.stop()
        for client in (alice, carol):
            with pytest.raises(BusError, match=DENIED):
                await client.bus_call("RequestName", "su", NAME, 0)
        assert await play.viewer.bus_call("RequestName", "su", NAME, 0) == 1

"""Proves on two real kernels what giving up an address and a policy's listener do."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from mptcpd_dbus.core import errors, events
from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.state import State
from mptcpd_dbus.core.subflow_wish import SubflowWish
from mptcpd_dbus.engine import Engine
from mptcpd_dbus.event_reader import EventReader
from mptcpd_dbus.kernel.event_socket import EventSocket
from mptcpd_dbus.kernel.live import LiveKernel
from tests.lab.app import App, Pair, converse
from tests.lab.hosts import SERVER, Host, Lab, address
from tests.lab.wait import eventually

PORT = 4242
OVER_LINK2 = SubflowWish(local_address=address("client", 2))
OVER_LINK3 = SubflowWish(local_address=address("client", 3))


@dataclass
class Play:
    """An engine on one host, and what the kernel of the other one tells."""

    lab: Lab
    engine: Engine
    peer: EventSocket
    client: App
    server: App
    listener: int
    told: list[events.MptcpEvent] = field(default_factory=list)

    async def connect(self) -> tuple[Connection, Pair]:
        """Connect the client to the server; give the connection as the engine has it."""
        pair = await converse(self.client, self.server, self.listener, address=SERVER[4], port=PORT)
        tokens = {pair.token, pair.server_token}
        found = self.engine.state.connections
        (token,) = await eventually(lambda: tokens & set(found))
        assert token is not None
        return found[token], pair

    def heard_by_peer(self) -> list[events.MptcpEvent]:
        """Give all that the peer's kernel has told so far."""
        self.told += self.peer.drain()[0]
        return self.told

    def local_ids(self, connection: Connection) -> list[int]:
        """Give the local IDs of the connection's subflows in the kernel."""
        rows = (row for rows in self.engine.kernel.subflows() for row in rows)
        return sorted(row.local_id for row in rows if row.token == connection.token)


MakePlay = Callable[[Host], Awaitable[Play]]


@pytest.fixture
async def play(lab: Lab) -> AsyncIterator[MakePlay]:
    """Give a maker; this thread stays on the engine's host."""
    async with AsyncExitStack() as stack:

        async def make(host: Host) -> Play:
            other: Host = "server" if host == "client" else "client"
            lab.sysctl(host, "net.mptcp.path_manager", "userspace")
            lab.ip(other, "mptcp", "limits", "set", "subflow", 8, "add_addr_accepted", 8)
            client, server = lab.app("client"), lab.app("server")
            listener, _ = await server.call("listen", address=SERVER[4], port=PORT)
            with lab.inside(other):
                peer = EventSocket()
            stack.callback(peer.close)
            stack.enter_context(lab.inside(host))
            socket = EventSocket()
            stack.callback(socket.close)
            kernel = LiveKernel()
            stack.callback(kernel.close)
            engine = Engine(State(), kernel)
            reader = EventReader(socket, engine)
            reader.start()
            stack.callback(reader.stop)
            return Play(lab, engine, peer, client, server, listener)

        yield make


async def test_an_address_that_is_given_up_is_gone_at_both_ends_and_returns_under_a_fresh_id(
    play: MakePlay,
) -> None:
    stage = await play("client")
    pm = stage.engine.pm
    connection, _ = await stage.connect()
    for wish in (OVER_LINK2, OVER_LINK2, OVER_LINK3):
        await pm.create_subflow(connection, wish)
    assert stage.local_ids(connection) == [0, 1, 1, 2]

    await pm.abandon(connection, 1)

    await eventually(lambda: stage.local_ids(connection) == [0, 2])
    await eventually(lambda: len(connection.subflows) == 2)

    def at_the_peer() -> list[int | str]:
        told: list[int | str] = []
        for event in stage.heard_by_peer():
            if isinstance(event, events.AddressRemoved):
                told.append(event.remote_id)
            elif isinstance(event, events.SubflowClosed):
                told.append(event.four_tuple.remote_address)
        return told

    await eventually(lambda: len(at_the_peer()) >= 3)
    assert at_the_peer() == [1, *[OVER_LINK2.local_address] * 2]

    again = await pm.create_subflow(connection, OVER_LINK2)
    assert again.local_id == 3
    # Control: of a subflow that is only destroyed the peer is not told, and its ID comes again.
    await pm.destroy_subflow(again)
    await eventually(lambda: len(at_the_peer()) == 4)
    assert at_the_peer()[3] == OVER_LINK2.local_address
    assert (await pm.create_subflow(connection, OVER_LINK2)).local_id == 3


async def test_a_connection_whose_last_address_is_given_up_can_be_rescued(play: MakePlay) -> None:
    stage = await play("client")
    connection, pair = await stage.connect()

    await stage.engine.pm.abandon(connection, 0)
    await eventually(lambda: not connection.subflows)
    assert stage.local_ids(connection) == []
    subflow = await stage.engine.pm.create_subflow(connection, OVER_LINK2)

    assert stage.local_ids(connection) == [subflow.local_id] == [1]
    await stage.client.call("send", talk=pair.client, count=1000)
    assert await stage.server.call("recv", talk=pair.server, count=1000) == 1000


async def test_a_join_without_an_answer_ends_when_its_address_is_given_up(play: MakePlay) -> None:
    stage = await play("client")
    connection, _ = await stage.connect()
    stage.lab.drop(2)
    ends = (connection.token, OVER_LINK2.local_address, SERVER[4], PORT)
    wish = SubflowWish(local_address=OVER_LINK2.local_address, interface="")
    stage.lab.ip("client", "rule", "add", "from", wish.local_address, "lookup", 2)
    via = (address("server", 2), "dev", "link2")
    stage.lab.ip("client", "route", "add", SERVER[4], "via", *via, "table", 2)
    join = asyncio.ensure_future(stage.engine.pm.create_subflow(connection, wish))
    await eventually(lambda: stage.engine.kernel.pending_joins(*ends))

    await stage.engine.pm.abandon(connection, 1)

    with pytest.raises(errors.SubflowFailed, match="its local address was given up"):
        await join
    assert stage.engine.kernel.pending_joins(*ends) == []
    stage.lab.restore(2)
    assert (await stage.engine.pm.create_subflow(connection, wish)).local_id == 2


@pytest.mark.parametrize("listening", [True, False])
async def test_a_policys_listener_on_a_port_of_the_kernels_choice_takes_a_join(
    play: MakePlay, listening: bool
) -> None:
    stage = await play("server")
    pm = stage.engine.pm
    connection, _ = await stage.connect()
    place = address("server", 2)
    port = pm.listen("policy", place)
    if not listening:
        pm.unlisten("policy", place, port)

    await pm.announce_address(connection, place, port=port, listener=False)

    def joined() -> bool:
        return any(t[:2] == (place, port) for t in connection.subflows)

    def refused() -> bool:
        return any(
            isinstance(event, events.SubflowClosed) and event.four_tuple[2:] == (place, port)
            for event in stage.heard_by_peer()
        )

    await eventually(lambda: joined() or refused())
    assert joined() is listening
    pm.unlisten_all("policy")
    assert joined() is listening  # the end of the listener is not the subflow's
    await eventually(lambda: (place, port) not in stage.engine.state.listeners)

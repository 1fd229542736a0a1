"""Each of the ten MPTCP events, provoked for real, arrives as its signal and its object."""
# SPDX-License-Identifier: BSD-3-Clause

from typing import Any

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import ADDRESS, CONNECTION, MANAGER, PORT, SUBFLOW, TARGETS, Stage
from tests.lab.client import BUS, ROOT
from tests.lab.hosts import SERVER, address

pytestmark = pytest.mark.also_booted


def _family(kind: str) -> int:
    return 6 if kind == "v6" else 4


@pytest.mark.parametrize("kind", ["v4", "v6", "mapped"])
@pytest.mark.parametrize("path_manager", ["kernel", "userspace"])
async def test_each_event_is_heard_with_its_fields(
    stage: MakeStage, path_manager: str, kind: str
) -> None:
    """Walk a connection through all ten events, on the client's side."""
    play = await stage(path_manager=path_manager)
    family = _family(kind)
    play.lab.ip("server", "mptcp", "limits", "set", "subflow", 8, "add_addr_accepted", 8)
    listener = await play.listener(SERVER[family])

    pair, path = await play.connection(listener, TARGETS[kind])
    token, remote = pair.token, (SERVER[family], PORT)
    own = await play.heard("NewConnection", lambda body: body[1] == token)
    assert own == [
        path,
        token,
        address("client", 1, family),
        pair.local_port,
        *remote,
        False,
        False,
    ]
    assert await play.heard("ConnectionEstablished") == own
    properties = await play.viewer.call(path, f"{BUS}.Properties", "GetAll", "s", CONNECTION)
    assert (properties["State"], properties["PathManager"]) == ("established", path_manager)
    assert properties["Uid"] == 0
    await play.agreed()

    await _a_second_subflow(play, path, path_manager, family)
    await _an_address_of_the_peer(play, path, family)
    await _a_priority_of_the_peer(play, path, own)
    await _the_end_of_a_subflow(play, path, path_manager)
    await _a_listener(play, family)

    await play.client.call("close", number=pair.client)
    assert await play.heard("ConnectionClosed") == [path, token]
    assert path not in await play.viewer.managed_objects()
    assert not await play.subflows()


async def _a_second_subflow(play: Stage, path: str, path_manager: str, family: int) -> None:
    local = address("client", 2, family)
    if path_manager == "userspace":
        subflow = await play.create_subflow(path, LocalAddress=local)
    else:
        await play.command(
            ROOT, MANAGER, "AddEndpoint", "sasa{sv}", local, ["subflow"], {"Interface": "link2"}
        )
    body = await play.heard("NewSubflow")
    assert body[0] == path
    assert body[3] == local
    assert body[5:7] == [SERVER[family], PORT]
    assert body[7:] == [1, 0, False, 12, "link2"]  # the lab gives link2 the index 12
    if path_manager == "userspace":
        assert body[1] == subflow
    await play.agreed()
    p = await play.viewer.call(body[1], f"{BUS}.Properties", "GetAll", "s", SUBFLOW)
    assert (p["Interface"], p["InterfaceIndex"], p["Initial"]) == ("link2", 12, False)


async def _an_address_of_the_peer(play: Stage, path: str, family: int) -> None:
    announced = address("server", 3, family)
    play.lab.ip("server", "mptcp", "endpoint", "add", announced, "id", 7, "signal")
    body = await play.heard("NewAddress")
    assert body[0] == path
    assert body[3:] == [7, announced, PORT]
    found = await play.viewer.call(body[1], f"{BUS}.Properties", "GetAll", "s", ADDRESS)
    assert found == {
        "Connection": path,
        "Id": 7,
        "Address": announced,
        "Port": PORT,
        "Remote": True,
    }

    play.lab.ip("server", "mptcp", "endpoint", "del", "id", 7)
    assert await play.heard("AddressRemoved") == [*body[:2], body[2], 7]
    assert body[1] not in await play.viewer.managed_objects()


async def _a_priority_of_the_peer(play: Stage, path: str, own: list[Any]) -> None:
    remote = own[4]
    play.lab.ip("server", "mptcp", "endpoint", "add", remote, "id", 9)
    play.lab.ip("server", "mptcp", "endpoint", "change", "id", 9, "backup")
    body = await play.heard("SubflowPriority")
    assert body[:3] == [path, f"{path}/subflow/1", own[1]]
    assert body[3:9] == [*own[2:6], 0, 0]
    assert body[9] is True
    assert await play.viewer.get(f"{path}/subflow/1", SUBFLOW, "Backup") is True
    await play.agreed()


async def _the_end_of_a_subflow(play: Stage, path: str, path_manager: str) -> None:
    second = f"{path}/subflow/2"
    if path_manager == "userspace":
        await play.command(second, SUBFLOW, "Destroy", "a{sv}", {})
    else:
        [endpoint] = [
            o for o, i in (await play.viewer.managed_objects()).items() if "endpoint" in o and i
        ]
        await play.command(endpoint, "org.mptcpd1.Endpoint", "Remove", "a{sv}", {})
    body = await play.heard("SubflowClosed")
    assert body[:2] == [path, second]
    assert body[7:9] == [1, 0]
    assert body[10:12] == [12, "link2"]
    assert body[13] == -1
    await play.agreed()


async def _a_listener(play: Stage, family: int) -> None:
    local = address("client", 1, family)
    number, port = await play.client.call("listen", address=local)
    assert await play.heard("ListenerCreated") == [local, port]
    assert [local, port] in await play.viewer.get(ROOT, MANAGER, "Listeners")

    await play.client.call("close", number=number)
    assert await play.heard("ListenerClosed") == [local, port]
    assert [local, port] not in await play.viewer.get(ROOT, MANAGER, "Listeners")


@pytest.mark.parametrize("kind", ["v4", "v6", "mapped"])
@pytest.mark.parametrize("path_manager", ["kernel", "userspace"])
async def test_a_server_hears_its_side_of_the_same(
    stage: MakeStage, path_manager: str, kind: str
) -> None:
    """All ten on the accepting side, also where a dual-stack listener makes all v4-mapped."""
    play = await stage(host="server", path_manager=path_manager)
    family = _family(kind)
    everywhere = "::" if kind == "mapped" else SERVER[family]
    listener = await play.listener(everywhere)
    assert await play.heard("ListenerCreated") == [everywhere, PORT]
    pair, path = await play.connection(listener, SERVER[family])
    token, remote = pair.server_token, [address("client", 1, family), pair.local_port]
    own = await play.heard("NewConnection")
    assert own == [path, token, SERVER[family], PORT, *remote, True, False]
    assert await play.heard("ConnectionEstablished") == own

    # The client's kernel joins from its second address, makes that subflow a backup, and ends it.
    local = address("client", 2, family)
    endpoint = ("mptcp", "endpoint")
    play.lab.ip("client", *endpoint, "add", local, "id", 4, "dev", "link2", "subflow")
    body = await play.heard("NewSubflow")
    assert [body[0], *body[2:6], *body[7:10]] == [path, *own[1:4], local, 0, 4, False]
    await play.agreed()
    play.lab.ip("client", *endpoint, "change", "id", 4, "backup")
    priority = await play.heard("SubflowPriority")
    assert priority == [*body[:9], True, *body[10:]]
    await play.agreed()
    if path_manager == "userspace":  # in the family of the server's own socket
        await play.command(body[1], SUBFLOW, "SetBackup", "ba{sv}", True, {})
        await play.agreed()
        await play.command(body[1], SUBFLOW, "Destroy", "a{sv}", {})
    else:
        play.lab.ip("client", *endpoint, "del", "id", 4)
    assert (await play.heard("SubflowClosed"))[:9] == body[:9]
    await play.agreed()

    # What the client's kernel announces and withdraws.
    other = address("client", 3, family)
    play.lab.ip("client", *endpoint, "add", other, "id", 6, "signal")
    announced = await play.heard("NewAddress")
    assert announced[3:] == [6, other, pair.local_port]
    play.lab.ip("client", *endpoint, "del", "id", 6)
    await play.heard("AddressRemoved", lambda withdrawn: bool(withdrawn[3] == 6))

    await play.server.call("close", number=pair.server)
    assert await play.heard("ConnectionClosed") == [path, token]
    await play.server.call("close", number=listener)
    assert await play.heard("ListenerClosed") == [everywhere, PORT]

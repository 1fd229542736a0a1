"""What the methods that only read answer: counters, look-ups and lists."""
# SPDX-License-Identifier: BSD-3-Clause

from typing import Any

import pytest
from dbus_next import Variant

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import CONNECTION, MANAGER, PORT, SUBFLOW, Stage
from tests.lab import users
from tests.lab.client import ROOT, BusError
from tests.lab.hosts import SERVER
from tests.lab.wait import eventually

pytestmark = pytest.mark.also_booted

SENT = 50_000


async def _listed(play: Stage, offset: int = 0, limit: int = 0, **wanted: Variant) -> list[Any]:
    listed = await play.viewer.call(
        ROOT, MANAGER, "ListConnections", "a{sv}uu", wanted, offset, limit
    )
    return [path for path, _ in listed]


async def test_counters_are_the_kernels_and_grow_with_the_traffic(stage: MakeStage) -> None:
    play = await stage()
    listener = await play.listener()
    pair, path = await play.connection(listener)

    async def counters() -> tuple[dict[str, int], dict[str, int]]:
        return (
            await play.viewer.call(path, CONNECTION, "GetStatistics"),
            await play.viewer.call(f"{path}/subflow/1", SUBFLOW, "GetStatistics"),
        )

    before = await counters()
    await play.client.call("send", talk=pair.client, count=SENT)
    await play.server.call("recv", talk=pair.server, count=SENT)
    after = await counters()

    assert [a["bytes_sent"] - b["bytes_sent"] for a, b in zip(after, before, strict=True)] == [
        SENT,
        SENT,
    ]
    assert after[1]["rtt"] > 0
    own = await play.viewer.call(ROOT, MANAGER, "GetStatistics")
    assert (own["connections"], own["connections_seen"], own["events_lost"]) == (1, 1, 0)


async def test_connections_are_found_by_token_filter_and_page(stage: MakeStage) -> None:
    play = await stage()
    listener = await play.listener()
    made = [await play.connection(listener) for _ in range(3)]
    paths = [path for _, path in made]
    await play.create_subflow(paths[1], Interface="link2")

    for pair, path in made:
        found = await play.viewer.call(ROOT, MANAGER, "GetConnection", "u", pair.token)
        assert found == path
    assert await _listed(play) == paths
    assert await _listed(play, 1, 1) == [paths[1]]
    assert await _listed(play, 3) == []
    assert await _listed(play, Interface=Variant("s", "link2")) == [paths[1]]
    assert await _listed(play, Uid=Variant("u", 0)) == paths
    assert await _listed(play, Uid=Variant("u", 12345)) == []
    assert await _listed(play, RemoteAddress=Variant("s", SERVER[4])) == paths
    assert await _listed(play, RemoteAddress=Variant("s", "10.0.2.2")) == []
    assert await _listed(play, Port=Variant("q", PORT)) == paths
    assert await _listed(play, Port=Variant("q", made[2][0].local_port)) == [paths[2]]
    with pytest.raises(BusError, match=r"NoSuchConnection: .* token 00000001"):
        await play.viewer.call(ROOT, MANAGER, "GetConnection", "u", 1)


async def test_a_join_that_nobody_waits_for_is_told_by_its_signal(stage: MakeStage) -> None:
    play = await stage()
    listener = await play.listener()
    _, path = await play.connection(listener)

    assert await play.create_subflow(path, Interface="link3", Wait=False) == "/"

    body = await play.heard("NewSubflow")
    assert body[0] == path
    assert body[-1] == "link3"
    await play.agreed()


@pytest.mark.usefixtures("people")
async def test_a_connection_shows_whose_it_is(stage: MakeStage) -> None:
    """Its user and its control group, as the kernel has them; the control is root's connection."""
    play = await stage()
    listener = await play.listener()
    pair, roots = await play.connection(listener)
    theirs = play.lab.app("client", user="alice")
    talk, _ = await theirs.call("connect", address=SERVER[4], port=PORT)
    await play.server.call("accept", listener=listener)
    token = await theirs.call("token", talk=talk)

    path = await eventually(lambda: play.path(token), within=1)

    uids = [await play.viewer.get(p, CONNECTION, "Uid") for p in (path, roots)]
    assert uids == [users.PEOPLE["alice"], 0]
    shown = play.lab.ss("client", "-tnHe", "sport", "=", f":{pair.local_port}")
    group = await play.viewer.get(roots, CONNECTION, "ControlGroup")
    assert group > 0
    assert "cgroup:" in shown

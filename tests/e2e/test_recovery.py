"""The daemon rebuilds its state from the kernel whenever it must: restart, loss, a peer's abort."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import json
from functools import partial
from typing import Any

import pytest

from mptcpd_dbus.core.commands import SubflowCreate
from mptcpd_dbus.core.types import AddressEntry
from mptcpd_dbus.kernel.request_socket import RequestSocket
from tests.e2e.conftest import MakeStage
from tests.e2e.stage import ADDRESS, CONNECTION, INTERFACE, MANAGER, SUBFLOW, Stage
from tests.lab.bus import PrivateBus
from tests.lab.client import NAME, ROOT, BusClient
from tests.lab.hosts import SERVER, address
from tests.lab.wait import eventually

LIVE = 200
SMALL_BUFFER = 256 << 10
SWEPT_WITHIN = 5 + 2  # seconds: what README.md states, and time for the sweep itself


def _is(index: int, value: object, body: list[Any]) -> bool:
    return bool(body[index] == value)


async def _kinds(viewer: BusClient) -> dict[str, int]:
    objects = await viewer.managed_objects()
    return {
        kind: sum(kind in interfaces for interfaces in objects.values())
        for kind in (CONNECTION, SUBFLOW, ADDRESS)
    }


@pytest.mark.also_booted
async def test_a_restart_finds_everything_that_lives(stage: MakeStage) -> None:
    """200 connections, 400 subflows and 200 local addresses, complete before the name is owned."""
    play = await stage(host="server")
    play.lab.ip("client", "mptcp", "limits", "set", "subflow", 8, "add_addr_accepted", 8)
    listener = await play.listener()
    talks, accepted = await play.many(listener, LIVE)
    await eventually(lambda: _complete(play.viewer, LIVE, 1, 0))
    paths = [path for path, _ in await _listed(play)]
    for path in paths:
        await play.command(
            path, CONNECTION, "AnnounceAddress", "sa{sv}", address("server", 2), {"Port": 7777}
        )
    # The client's kernel answers each announcement with a join to the announced port.
    await eventually(lambda: _complete(play.viewer, LIVE, 2, 1), within=20)
    before = await play.subflows()
    assert await play.daemon.stop() == 0
    assert len(play.sockets()) == 2 * LIVE

    seen: list[Any] = []
    async with await BusClient.connect() as watcher:
        await watcher.listen("type='signal',member='NameOwnerChanged'")
        await watcher.listen(f"type='signal',path_namespace='{ROOT}'")
        starting = asyncio.ensure_future(play.daemon.start())
        await watcher.signal(
            lambda s: s.member == "NameOwnerChanged" and s.body[0] == NAME and s.body[2] != "",
            within=20,
        )
        assert await _kinds(watcher) == {CONNECTION: LIVE, SUBFLOW: 2 * LIVE, ADDRESS: LIVE}
        await starting
        assert await play.subflows() == before
        await play.agreed()

        # Commands work on what was found: the announced port still takes joins, and the address
        # that was announced before the restart can be withdrawn.
        path, token = (await _listed(play))[0]
        first = next(s for s in await _objects_of(play, path, SUBFLOW) if not s["Initial"])
        assert first["LocalPort"] == 7777
        seen = [s for s in watcher.signals if s.path.startswith(ROOT)]
        assert seen == [], "a signal was sent for what did not change"
        await play.command(path, CONNECTION, "RemoveAddress", "ya{sv}", 1, {})
        await watcher.signal(lambda s: s.member == "SubflowClosed" and s.body[0] == path)
        await play.command(
            path, CONNECTION, "AnnounceAddress", "sa{sv}", address("server", 2), {"Port": 7777}
        )
        await watcher.signal(
            lambda s: s.member == "NewSubflow" and s.body[0] == path and s.body[4] == 7777
        )
    await play.agreed()
    del talks, accepted, token


@pytest.mark.also_booted
async def test_a_join_to_a_port_announced_before_a_restart_is_heard(stage: MakeStage) -> None:
    """The control is the same join while no daemon runs and nothing listens there."""
    play = await stage(host="server")
    play.lab.sysctl("client", "net.mptcp.path_manager", "userspace")
    listener = await play.listener()
    pair, path = await play.connection(listener)
    assert pair.token is not None
    port = {"Port": 7777}
    await play.command(path, CONNECTION, "AnnounceAddress", "sa{sv}", address("server", 2), port)

    async def join() -> None:
        with play.lab.inside("client"):
            kernel = RequestSocket()
        try:
            local = AddressEntry(address("client", 2), 5)
            remote = AddressEntry(address("server", 2), port=7777)
            await kernel.execute(SubflowCreate(pair.token or 0, local, remote))
        finally:
            kernel.close()

    await play.daemon.stop()
    await join()
    assert len(play.sockets()) == 1
    await play.daemon.start()
    assert len(play.sockets()) == 1
    await join()

    body = await play.heard("NewSubflow")
    assert body[3:6] == [address("server", 2), 7777, address("client", 2)]
    await play.agreed()
    [[found, _]] = await _listed(play)
    await play.command(found, CONNECTION, "RemoveAddress", "ya{sv}", 1, {})
    assert "7777" not in play.lab.ss("server", "-tlnH")


async def _listed(play: Stage) -> list[Any]:
    listed = await play.viewer.call(ROOT, MANAGER, "ListConnections", "a{sv}uu", {}, 0, 0)
    assert isinstance(listed, list)
    return listed


async def _objects_of(play: Stage, path: str, kind: str) -> list[dict[str, Any]]:
    objects = await play.viewer.managed_objects()
    return [o[kind] for p, o in objects.items() if p.startswith(f"{path}/") and kind in o]


async def _complete(viewer: BusClient, count: int, subflows: int, addresses: int) -> bool:
    wanted = {CONNECTION: count, SUBFLOW: count * subflows, ADDRESS: count * addresses}
    found = await _kinds(viewer)
    assert found == wanted, f"{found} instead of {wanted}"
    return True


@pytest.mark.also_booted
@pytest.mark.parametrize("small", [False, True], ids=["default-buffer", "small-buffer"])
async def test_nothing_stays_lost_after_a_stop(stage: MakeStage, small: bool) -> None:
    """3,000 connections come and go and 500 stay while the daemon is stopped; the same again.

    The two buffers are each other's control: the small one must have overflowed, the default one
    must not.
    """
    buffer = ("--netlink-buffer", str(SMALL_BUFFER)) if small else ()
    play = await stage("--signal-budget", "0", *buffer)
    listener = await play.listener()
    echo, echo_port = await play.server.call("listen", address=SERVER[4])
    await play.server.call("echo", listener=echo)
    stay: list[int] = []
    for round_ in (1, 2):
        play.daemon.pause()
        talks, _ = await play.many(listener, 250)
        await play.client.call("churn", count=3000, address=SERVER[4], port=echo_port, limit=60)
        more, _ = await play.many(listener, 250)
        stay += talks + more
        play.daemon.resume()

        await eventually(lambda: _same_tokens(play), within=20)
        await play.agreed()
        lost = await play.viewer.get(ROOT, MANAGER, "EventsLost")
        assert lost == (round_ if small else 0)
        if small:
            await play.viewer.signal(lambda s: s.body == ["mptcp_pm"])
            assert _losses(play) == round_
        else:
            assert _losses(play) == 0
        # It hears the next event.
        pair, path = await play.connection(listener)
        await play.client.call("close", number=pair.client)
        await play.server.call("close", number=pair.server)
        await play.heard("ConnectionClosed", partial(_is, 0, path))
    assert len(await play.tokens_shown()) == len(stay) == 1000


async def _same_tokens(play: Stage) -> bool:
    shown, live = await play.tokens_shown(), play.tokens()
    assert shown == live, f"{len(shown - live)} too many, {len(live - shown)} missing"
    return True


def _losses(play: Stage) -> int:
    return sum(s.member == "EventsLost" and s.body == ["mptcp_pm"] for s in play.viewer.signals)


@pytest.mark.also_booted
@pytest.mark.parametrize("small", [False, True], ids=["default-buffer", "small-buffer"])
async def test_links_and_addresses_survive_an_overflow_of_rtnetlink(
    stage: MakeStage, small: bool
) -> None:
    """Hundreds of changes while the daemon is stopped; then objects equal `ip -j`.

    The two buffers are each other's control: only the small one may lose, and it must.
    """
    play = await stage(*(("--netlink-buffer", str(SMALL_BUFFER)) if small else ()))
    for round_ in (1, 2):
        play.daemon.pause()
        changes = [f"address add 10.77.{n // 250}.{n % 250 + 1}/16 dev link3" for n in range(1000)]
        changes += [f"link add extra{round_} type bridge", f"link set extra{round_} up"]
        changes += ["link set link2 down", "route add default via 10.0.1.2 dev link1"]
        play.lab.batch("client", changes)
        play.daemon.resume()

        await eventually(lambda: _same_network(play))
        heard = [s for s in play.viewer.signals if s.body == ["rtnetlink"]]
        assert len(heard) == (round_ if small else 0)
        play.lab.ip("client", "address", "add", f"10.0.1.{round_ + 30}/24", "dev", "link1")
        await play.heard("NewLocalAddress", partial(_is, 3, f"10.0.1.{round_ + 30}"))
        undo = ["address flush dev link3 to 10.77.0.0/16", "route del default", "link set link2 up"]
        play.lab.batch("client", undo)
        await eventually(lambda: _same_network(play))
        play.viewer.signals[:] = heard


async def _same_network(play: Stage) -> bool:
    objects = await play.viewer.managed_objects()
    shown = {
        i["Name"]: (set(i["Addresses"]), i["Up"], i["Running"], "ipv4" in i["DefaultRoutes"])
        for i in (o[INTERFACE] for o in objects.values() if INTERFACE in o)
    }
    links = json.loads(play.lab.ip("client", "-j", "address", "show"))
    routes = json.loads(play.lab.ip("client", "-j", "route", "show", "default"))
    default = {route["dev"] for route in routes}
    real = {
        link["ifname"]: (
            {f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"]},
            "UP" in link["flags"],
            "LOWER_UP" in link["flags"],
            link["ifname"] in default,
        )
        for link in links
    }
    assert shown == real
    return True


@pytest.mark.also_booted
async def test_a_connection_that_its_peer_aborts_is_gone_with_the_sweep(
    stage: MakeStage,
) -> None:
    """The kernel sends no CLOSED for it; the control is a close, which is heard at once."""
    play = await stage()
    listener = await play.listener()
    pairs = [await play.connection(listener) for _ in range(2)]
    loop = asyncio.get_running_loop()

    began = loop.time()
    (closed, closed_path), (aborted, aborted_path) = pairs
    await play.client.call("close", number=closed.client)
    await play.server.call("close", number=closed.server)
    await play.heard("ConnectionClosed", partial(_is, 0, closed_path))
    at_once = loop.time() - began
    began = loop.time()
    await play.server.call("abort", talk=aborted.server)
    await play.heard("ConnectionClosed", partial(_is, 0, aborted_path), SWEPT_WITHIN)
    swept = loop.time() - began

    print(f"\nclosed: heard after {at_once:.3f} s; aborted by the peer: after {swept:.3f} s")
    assert at_once < 1
    assert aborted_path not in await play.viewer.managed_objects()
    await play.agreed()


async def test_a_restart_of_the_bus_costs_nothing_but_the_time_without_it(
    stage: MakeStage, bus: PrivateBus
) -> None:
    """What the kernel would not tell again, an announcement of the peer, is still known."""
    play = await stage()
    listener = await play.listener()
    _, path = await play.connection(listener)
    play.lab.ip("server", "mptcp", "endpoint", "add", "10.0.3.2", "id", 7, "signal")
    announced = (await play.heard("NewAddress"))[1]
    before = await play.viewer.managed_objects()
    play.viewer.close()

    bus.stop("bus")
    talks, accepted = await play.many(listener, 5)
    bus.start_bus()

    async with await BusClient.connect() as viewer:
        await eventually(partial(viewer.owns, NAME), within=10)
        after = await viewer.managed_objects()
        assert announced in after
        assert before.items() <= after.items()
        assert (await _kinds(viewer))[CONNECTION] == 1 + len(talks) == 1 + len(accepted)
        await viewer.call(path, CONNECTION, "CreateSubflow", "sqa{sv}", "", 0, {}, within=25)

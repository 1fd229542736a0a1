"""Proves of the two hosts what other tests take for granted: Multipath TCP, links, losses."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import socket
import struct
import time

import pytest

from tests.lab.app import App, AppError, Pair, converse
from tests.lab.hosts import HOSTS, LINKS, SERVER, Lab, address
from tests.lab.wait import eventually

MEGABYTE = 1_000_000


async def conversation(lab: Lab, **target: object) -> tuple[App, App, Pair]:
    """Return two applications and their connection, to the server's one address by default."""
    client, server = lab.app("client"), lab.app("server")
    listener, port = await server.call("listen", address="0.0.0.0")  # noqa: S104 - all of the lab
    target = {"address": SERVER[4], "port": port} | target
    return client, server, await converse(client, server, listener, **target)


@pytest.mark.parametrize("family", [4, 6])
async def test_a_connection_is_multipath_tcp_in_either_family(lab: Lab, family: int) -> None:
    client, server = lab.app("client"), lab.app("server")
    listener, port = await server.call("listen", address=SERVER[family])

    pair = await converse(client, server, listener, address=SERVER[family], port=port)

    assert f"token:{pair.token:x}" in lab.ss("client", "-Mni")
    assert f"token:{pair.server_token:x}" in lab.ss("server", "-Mni")
    assert pair.token != pair.server_token


@pytest.mark.parametrize(("client_is", "server_is"), [(True, False), (False, True)])
async def test_a_connection_with_plain_tcp_at_one_end_is_not_multipath_tcp(
    lab: Lab, client_is: bool, server_is: bool
) -> None:
    client, server = lab.app("client"), lab.app("server")
    listener, port = await server.call("listen", address=SERVER[4], mptcp=server_is)

    target = {"address": SERVER[4], "port": port, "mptcp": client_is}
    pair = await converse(client, server, listener, **target)

    assert (pair.token, pair.server_token) == (None, None)


@pytest.mark.parametrize("link", LINKS)
async def test_a_connection_bound_to_a_device_travels_over_that_link(lab: Lab, link: int) -> None:
    client, server, pair = await conversation(lab, device=f"link{link}")
    before = {i: lab.counters("client", i)[1] for i in LINKS}

    await client.call("stream", talk=pair.client)
    await server.call("drain", talk=pair.server)
    await received(server, pair.server, MEGABYTE)

    sent = {i: lab.counters("client", i)[1] - before[i] for i in LINKS}
    assert sent[link] > MEGABYTE
    assert all(sent[i] < 10_000 for i in LINKS if i != link)


@pytest.mark.parametrize("family", [4, 6])
async def test_a_join_from_another_link_reaches_the_servers_one_address(
    lab: Lab, family: int
) -> None:
    for host in HOSTS:
        lab.ip(host, "mptcp", "limits", "set", "subflows", 2)
    for link in (2, 3):
        device = ["dev", f"link{link}", "subflow"]
        lab.ip("client", "mptcp", "endpoint", "add", address("client", link, family), *device)
    client, server = lab.app("client"), lab.app("server")
    listener, port = await server.call("listen", address=SERVER[family])
    await converse(client, server, listener, address=SERVER[family], port=port)

    await eventually(lambda: lab.ss("client", "-tn").count("ESTAB") == 3)

    assert all(address("client", link, family) in lab.ss("server", "-tn") for link in LINKS)


async def test_a_connection_bound_to_nothing_travels_over_the_first_link(lab: Lab) -> None:
    await conversation(lab)

    assert f"{address('client', 1)}:" in lab.ss("client", "-tn")


@pytest.mark.parametrize("loss", ["cut", "drop"])
async def test_a_lost_link_stops_the_stream_until_it_is_restored(lab: Lab, loss: str) -> None:
    client, server, pair = await conversation(lab, device="link2")
    await client.call("stream", talk=pair.client)
    await server.call("drain", talk=pair.server)
    await received(server, pair.server, MEGABYTE)

    getattr(lab, loss)(2)

    carrier = "LOWER_UP" in lab.ip("client", "link", "show", "link2")
    assert carrier is (loss == "drop")
    assert "LOWER_UP" in lab.ip("client", "link", "show", "link1")

    async def stalled() -> bool:
        return bool((await server.call("progress", talk=pair.server))["pause"] > 0.3)

    await eventually(stalled)
    stalled_at = (await server.call("progress", talk=pair.server))["received"]
    lab.restore(2)
    await received(server, pair.server, stalled_at + MEGABYTE, within=20)


def test_the_client_hears_of_a_cut_at_once(lab: Lab) -> None:
    kind = (socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    with lab.inside("client"), socket.socket(*kind) as listener:
        listener.settimeout(5)
        listener.bind((0, 1))  # RTMGRP_LINK

        start = time.monotonic()
        lab.cut(2)
        # struct ifinfomsg behind struct nlmsghdr: the index, then the flags
        index, flags = struct.unpack_from("=iI", listener.recv(65536), 16 + 4)

        assert time.monotonic() - start < 0.2
        assert index == socket.if_nametoindex("link2")
        assert not flags & 0x10000  # IFF_LOWER_UP


async def test_hosts_keep_their_addresses_and_routes_over_a_cut(lab: Lab) -> None:
    def state() -> list[str]:
        listings = (["-4", "route"], ["-6", "route"], ["-br", "address"])
        return [lab.ip(host, *listing) for host in HOSTS for listing in listings]

    await eventually(lambda: not any("linkdown" in text for text in state()))
    before = state()
    lab.cut(3)
    assert state() != before
    lab.restore(3)

    await eventually(lambda: sorted_lines(state()) == sorted_lines(before))


async def test_a_bottleneck_limits_the_rate(lab: Lab) -> None:
    lab.bottleneck(1, "8mbit")
    client, server, pair = await conversation(lab)
    await client.call("stream", talk=pair.client)
    await server.call("drain", talk=pair.server)
    loop = asyncio.get_running_loop()

    start = loop.time()
    await received(server, pair.server, MEGABYTE)

    assert 0.8 < loop.time() - start < 3


async def test_an_aborted_connection_is_reset_at_the_other_end(lab: Lab) -> None:
    client, server, pair = await conversation(lab)
    await client.call("abort", talk=pair.client)

    with pytest.raises(AppError, match="ConnectionResetError"):
        await server.call("recv", talk=pair.server)


async def test_a_closed_connection_ends_at_the_other_end(lab: Lab) -> None:
    client, server, pair = await conversation(lab)
    await client.call("close", number=pair.client)

    assert await server.call("recv", talk=pair.server) == 0


async def test_a_conversation_that_falls_silent_fills_up(lab: Lab) -> None:
    client, server, pair = await conversation(lab)
    await client.call("stream", talk=pair.client)
    await server.call("drain", talk=pair.server)
    await received(server, pair.server, MEGABYTE)
    await server.call("silent", talk=pair.server)
    before = (await server.call("progress", talk=pair.server))["received"]

    await eventually(lambda: queued(lab.ss("server", "-Mn", "state", "established")) > 100_000)

    assert (await server.call("progress", talk=pair.server))["received"] == before


async def test_many_connections_are_made_in_a_second_or_two(lab: Lab) -> None:
    client, server = lab.app("client"), lab.app("server")
    listener, port = await server.call("listen", address=SERVER[4])
    target = {"address": SERVER[4], "port": port}

    talks = await client.call("connect_many", count=1000, **target)
    accepted = await server.call("accept_many", listener=listener, count=1000)
    await client.call("send_each", talks=talks)
    await server.call("recv_each", talks=accepted)

    assert len(set(talks)) == len(set(accepted)) == 1000
    assert lab.ss("client", "-Mn").count("ESTAB") == 1000


async def test_churn_opens_and_closes_connections(lab: Lab) -> None:
    client, server = lab.app("client"), lab.app("server")
    listener, port = await server.call("listen", address=SERVER[4])
    await server.call("echo", listener=listener)

    await client.call("churn", count=50, address=SERVER[4], port=port)

    counted = lab.run("server", ["nstat", "-asz", "MPTcpExtMPCapableACKRX"])
    assert counted.split()[-2] == "50"


def test_a_thread_inside_a_host_has_its_sockets_there_and_comes_back(lab: Lab) -> None:
    with lab.inside("server"), socket.create_server((SERVER[4], 0)) as listener:
        assert f":{listener.getsockname()[1]}" in lab.ss("server", "-tln")
    with pytest.raises(OSError, match="Cannot assign"), socket.socket() as homeless:
        homeless.bind((SERVER[4], 0))


def test_two_labs_do_not_meet(lab: Lab) -> None:
    with Lab() as other:
        other.sysctl("client", "net.mptcp.enabled", 0)

        assert lab.sysctl("client", "net.mptcp.enabled") == "1"


async def received(app: App, talk: int, count: int, within: float = 10.0) -> None:
    """Wait until a conversation has received that many bytes."""

    async def enough() -> bool:
        return bool((await app.call("progress", talk=talk))["received"] >= count)

    await eventually(enough, within)


def queued(listing: str) -> int:
    """Return the most bytes that any socket of an `ss` listing holds unread."""
    return max(int(line.split()[0]) for line in listing.splitlines()[1:])


def sorted_lines(texts: list[str]) -> list[list[str]]:
    """Return what the texts say, in whatever order they do."""
    return [sorted(text.split()) for text in texts]

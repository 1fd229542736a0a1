"""sspi, fullmesh and ndiffports bring up the subflows that they promise, each over its own link.

There is no source routing here, so only binding chooses a link.  What is there is asked of ss(8) on
both hosts, and which link carried what, of the links' own counters.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import Stage
from tests.e2e.subflows import (
    arguments_for,
    both_families,
    carriers,
    connect,
    every_plugin,
    exactly,
    seen_at_both_ends,
    source_of,
    stage_with,
    star,
    that_use_all_links,
    welcome,
)
from tests.lab.app import Pair
from tests.lab.daemon import Daemon
from tests.lab.hosts import LINKS, SERVER, address
from tests.lab.wait import eventually

pytestmark = pytest.mark.both_ways

UNBOUND = {
    "sspi": ("interface=interface.name", 'interface=""'),
    "fullmesh": ("self.join(connection, *path)", 'self.join(connection, *path, interface="")'),
    "ndiffports": ("self.join(connection)", 'self.join(connection, interface="")'),
}


# What is promised


async def _promised(
    make: MakeStage, name: str, family: int, source: str = ""
) -> tuple[Stage, Pair]:
    """Have a connection, and wait for exactly the subflows that the plugin promises."""
    it = await stage_with(make, name, source)
    listener = await it.listener(SERVER[family])
    wanted = [(address("client", i, family), SERVER[family]) for i in LINKS]
    client = {}
    if name == "ndiffports":  # all are over one link; so let it not be the first one
        client = {"source": address("client", 2, family), "device": "link2"}
        wanted = 2 * [wanted[1]]
    pair = await connect(it, listener, SERVER[family], **client)
    await exactly(it, pair, wanted)
    later = await connect(it, listener, SERVER[family], **client)
    await exactly(it, later, wanted)
    await exactly(it, pair, wanted)  # and nothing has come to it meanwhile
    return it, pair


@both_families
@every_plugin
async def test_exactly_the_promised_subflows_are_there_and_each_sends_over_its_link(
    stage: MakeStage, name: str, family: int
) -> None:
    it, pair = await _promised(stage, name, family)

    links = [2, 2] if name == "ndiffports" else LINKS
    assert await carriers(it, pair) == [(address("client", i, family), i) for i in links]


@both_families
@every_plugin
async def test_unbound_the_same_subflows_all_send_over_link_1(
    stage: MakeStage, name: str, family: int
) -> None:
    bound, unbound = UNBOUND[name]
    assert bound in source_of(name)

    it, pair = await _promised(stage, name, family, source_of(name).replace(bound, unbound))

    links = [link for _, link in await carriers(it, pair)]
    # The first subflow of ndiffports is bound by the application.
    assert sorted(links) == ([1, 2] if name == "ndiffports" else [1, 1, 1])


@both_families
async def test_without_them_there_is_one_subflow(stage: MakeStage, family: int) -> None:
    it = await stage_with(stage, "foo")
    listener = await it.listener(SERVER[family])

    pair = await connect(it, listener, SERVER[family])

    later = await connect(it, listener, SERVER[family])
    await it.create_subflow(await it.path(later.token or 0), Interface="link2")
    await exactly(it, pair, star(family, [1]))


async def test_fullmesh_makes_no_more_than_its_settings_allow(stage: MakeStage) -> None:
    it = await stage_with(stage, "fullmesh", settings="max-subflows=2\ninterfaces=link[13]")
    listener = await it.listener()

    pair = await connect(it, listener, SERVER[4])

    await exactly(it, pair, star(4, [1, 3]))


async def test_sspi_uses_the_interfaces_of_its_settings(stage: MakeStage) -> None:
    it = await stage_with(stage, "sspi", settings="interfaces=link1, link3")
    listener = await it.listener()

    pair = await connect(it, listener, SERVER[4])

    await exactly(it, pair, star(4, [1, 3]))


async def test_ndiffports_makes_as_many_as_its_settings_say(stage: MakeStage) -> None:
    it = await stage_with(stage, "ndiffports", settings="subflows=3")
    listener = await it.listener()

    pair = await connect(it, listener, SERVER[4])

    await exactly(it, pair, 3 * [*star(4, [1])])


# A server that announces


def _announces(stage: Stage, family: int, *links: int) -> None:
    """Have the server's own path manager announce its addresses on these links."""
    welcome(stage)
    for i in links:
        local = address("server", i, family)
        stage.lab.ip("server", "mptcp", "endpoint", "add", local, "signal")


@both_families
async def test_sspi_keeps_to_one_subflow_per_interface_when_the_server_announces(
    stage: MakeStage, family: int
) -> None:
    it = await stage_with(stage, "sspi")
    _announces(it, family, 2, 3)
    listener = await it.listener("::" if family == 6 else "0.0.0.0")  # noqa: S104 # so joins are heard

    pair = await connect(it, listener, SERVER[family])

    await it.heard("NewAddress", within=5)
    await exactly(it, pair, star(family))
    assert [link for _, link in await carriers(it, pair)] == [1, 2, 3]


@both_families
async def test_fullmesh_adds_what_the_server_announces(stage: MakeStage, family: int) -> None:
    it = await stage_with(stage, "fullmesh")
    _announces(it, family, 2)
    listener = await it.listener("::" if family == 6 else "0.0.0.0")  # noqa: S104 # so joins are heard

    pair = await connect(it, listener, SERVER[family])

    # An IPv4 socket bound to a device takes every address to be on that link; IPv6 wants a route.
    links = LINKS if family == 4 else [2]
    announced = {(address("client", i, family), address("server", 2, family)) for i in links}
    await exactly(it, pair, star(family) | announced)
    over = [(address("client", i, family), i) for i in (*LINKS, *links)]
    assert await carriers(it, pair) == sorted(over)


@both_families
async def test_ndiffports_makes_no_more_when_the_server_announces(
    stage: MakeStage, family: int
) -> None:
    it = await stage_with(stage, "ndiffports")
    _announces(it, family, 2, 3)
    listener = await it.listener("::" if family == 6 else "0.0.0.0")  # noqa: S104 # so joins are heard

    pair = await connect(it, listener, SERVER[family])

    await it.heard("NewAddress", lambda body: address("server", 2, family) in body, within=5)
    await it.heard("NewAddress", lambda body: address("server", 3, family) in body, within=5)
    later = await connect(it, listener, SERVER[family])
    for each in (later, pair):
        await exactly(it, each, 2 * [*star(family, [1])])
    assert await carriers(it, pair) == 2 * [(address("client", 1, family), 1)]


@both_families
async def test_sspi_joins_what_was_announced_where_the_first_address_takes_no_joins(
    stage: MakeStage, family: int
) -> None:
    it = await stage_with(stage, "sspi")
    it.lab.sysctl("server", "net.mptcp.allow_join_initial_addr_port", 0)
    _announces(it, family, 2, 3)
    listener = await it.listener("::" if family == 6 else "0.0.0.0")  # noqa: S104 # so joins are heard

    pair = await connect(it, listener, SERVER[family])

    async def joined() -> bool:
        seen = seen_at_both_ends(it, pair)
        assert {local for local, _ in seen} == {address("client", i, family) for i in LINKS}
        assert seen[address("client", 1, family), SERVER[family]] == 1
        assert {remote for _, remote in seen} <= {
            SERVER[family],
            *(address("server", i, family) for i in (2, 3)),
        }
        return len(seen) == 3 and seen.total() == 3

    await eventually(joined)
    assert [link for _, link in await carriers(it, pair)] == [1, 2, 3]


@both_families
@that_use_all_links
async def test_on_a_server_they_announce_and_the_client_joins(
    stage: MakeStage, name: str, family: int
) -> None:
    it = await stage_with(stage, name, host="server")
    it.lab.sysctl("client", "net.mptcp.path_manager", "kernel")
    it.lab.ip("client", "mptcp", "limits", "set", "subflows", 8, "add_addr_accepted", 8)
    second, length = ("10.0.2.9", 24) if family == 4 else ("dead:beef:2::9", 64)
    it.lab.ip("server", "address", "add", f"{second}/{length}", "dev", "link2")
    own = address("server", 1, family)
    listener = await it.listener(own)  # so that nothing of the application's hears joins elsewhere

    pair = await connect(it, listener, own)

    announced = [(2, address("server", 2, family)), (3, address("server", 3, family))]
    if name == "fullmesh":
        announced.append((2, second))
    joined = {(address("client", i, family), remote) for i, remote in announced}
    first = {(address("client", 1, family), own)}
    await exactly(it, pair, first | joined)
    it.lab.cut(2)
    await exactly(
        it, pair, first | {ends for ends in joined if ends[0] == address("client", 3, family)}
    )
    it.lab.restore(2)
    await exactly(it, pair, first | joined)


@both_families
@that_use_all_links
async def test_with_the_same_plugin_on_both_hosts_all_of_it_is_there(
    stage: MakeStage, daemon: Callable[..., Daemon], name: str, family: int
) -> None:
    it = await stage_with(stage, name)
    it.lab.sysctl("server", "net.mptcp.path_manager", "userspace")
    other = daemon("server")
    bus = other.log.with_suffix(".bus")  # of its own: there is one org.mptcpd1 on a bus
    argv = ["dbus-daemon", "--session", "--nofork", f"--address=unix:path={bus}"]
    it.lab.popen("server", argv)
    await eventually(bus.exists)
    await other.start("--bus", f"unix:path={bus}", *arguments_for(name), root=True)
    await eventually(lambda: "serves" in other.log.read_text(), within=15)
    own = address("server", 1, family)
    listener = await it.listener(own)

    pair = await connect(it, listener, own)

    if name == "sspi":
        # Over IPv6 there is no way to one server's address from the other's links.
        def one_each() -> bool:
            seen = seen_at_both_ends(it, pair)
            return sorted(local for local, _ in seen.elements()) == [
                address("client", i, family) for i in LINKS
            ]

        await eventually(one_each)
    else:
        ways = [(i, k) for i in LINKS for k in LINKS if family == 4 or i == k]
        paths = {(address("client", i, family), address("server", k, family)) for i, k in ways}

        def full() -> bool:
            seen = seen_at_both_ends(it, pair)
            return seen.keys() <= paths and seen.total() == min(len(paths), 8)

        await eventually(full)
    links = {address("client", i, family): i for i in LINKS}
    assert all(links[local] == link for local, link in await carriers(it, pair))

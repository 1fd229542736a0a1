"""sspi, fullmesh and ndiffports bring up the subflows that they promise, each over its own link.

There is no source routing here, so only binding chooses a link.  What is there is asked of ss(8) on
both hosts, and which link carried what, of the links' own counters.
"""
# SPDX-License-Identifier: BSD-3-Clause

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from mptcpd_dbus.core.events import SubflowClosed
from tests.e2e.conftest import MakeStage
from tests.e2e.observer import Observer
from tests.lab.plugin_files import PluginFiles
from tests.e2e.stage import INTERFACE, PORT, SUBFLOW, Stage
from tests.lab.app import Pair, converse, exchange
from tests.lab.hosts import LINKS, SERVER, Host, address
from tests.lab.sandbox import REPOSITORY
from tests.lab.wait import eventually

PORTION = 300_000
"""Bytes; what the other links carry meanwhile is less than a tenth of it."""

REFUSAL = """
table inet refusal {
    chain arriving {
        type filter hook input priority 0
        tcp flags syn tcp option mptcp subtype 1 reject with tcp reset
    }
}
"""
"""Of every MP_JOIN (RFC 8684, section 3.2)."""

Ends = Counter[tuple[str, str]]

UNBOUND = {
    "sspi": ("interface=interface.name", 'interface=""'),
    "fullmesh": ("local_address=path.local", 'local_address=path.local, interface=""'),
    "ndiffports": ("create_subflow(connection)", 'create_subflow(connection, interface="")'),
}

both_families = pytest.mark.parametrize("family", [4, 6])
every_plugin = pytest.mark.parametrize("name", ["sspi", "fullmesh", "ndiffports"])
that_use_all_links = pytest.mark.parametrize("name", ["sspi", "fullmesh"])


def _source(name: str) -> str:
    return Path(REPOSITORY, "plugins", f"{name}.py").read_text()


async def _stage(
    make: MakeStage, name: str, source: str = "", host: Host = "client", settings: str = ""
) -> Stage:
    """Have the plugin *name* decide for all connections."""
    files = PluginFiles()
    files.write(name, source or _source(name))
    config = files.path / "mptcpd-dbus.conf"
    config.write_text(f"[core]\npath-manager={name}\n[plugin {name}]\n{settings}\n")
    config.chmod(0o644)
    return await make("--plugin-dir", str(files.path), "--config", str(config), host=host)


async def _connect(stage: Stage, listener: int, target: str, **client: str) -> Pair:
    pair = await converse(stage.client, stage.server, listener, address=target, port=PORT, **client)
    assert pair.token, "the connection is not Multipath TCP"
    return pair


def _seen(stage: Stage, pair: Pair) -> Ends:
    """Give from where to where subflows go that are established at both ends."""
    ends = {}
    for host, token in (("client", pair.token), ("server", pair.server_token)):
        rows = replace(stage, host=host).sockets()
        ends[host] = {(local, remote) for known, local, remote, *_ in rows if known == token}
    mirrored = {(local, remote) for remote, local in ends["server"]}
    assert ends["client"] == mirrored, f"client {ends['client']}, server {mirrored}"
    return Counter((local[0], remote[0]) for local, remote in ends["client"])


async def _exactly(stage: Stage, pair: Pair, wanted: Iterable[tuple[str, str]]) -> None:
    """Wait until the subflows at both ends are those *wanted*."""
    expected = Counter(wanted)

    def same() -> bool:
        seen = _seen(stage, pair)
        assert seen == expected, f"missing {expected - seen}, unwanted {seen - expected}"
        return True

    await eventually(same)


def _star(family: int, links: Iterable[int] = LINKS) -> set[tuple[str, str]]:
    """Give the paths from these links to the server's one address."""
    return {(address("client", link, family), SERVER[family]) for link in links}


async def _carriers(stage: Stage, pair: Pair) -> list[tuple[str, int]]:
    """Let each subflow alone carry data to the server; give its local address and the link."""
    objects = await stage.viewer.managed_objects()
    connection = await stage.path(pair.token or 0)
    subflows = {
        path: known[SUBFLOW]["LocalAddress"]
        for path, known in objects.items()
        if SUBFLOW in known and known[SUBFLOW]["Connection"] == connection
    }
    found = []
    for alone, local in subflows.items():
        for path in sorted(subflows, key=alone.__ne__):  # at no time are all of them backup
            await stage.command(path, SUBFLOW, "SetBackup", "ba{sv}", path != alone, {})
        before = {link: stage.lab.counters("client", link)[1] for link in LINKS}
        await stage.client.call("send", talk=pair.client, count=PORTION)
        await stage.server.call("recv", talk=pair.server, count=PORTION)
        sent = {link: stage.lab.counters("client", link)[1] - before[link] for link in LINKS}
        [link] = [link for link in LINKS if sent[link] > PORTION / 10]
        assert sent[link] > PORTION
        found.append((local, link))
    return sorted(found)


def _welcome(stage: Stage) -> None:
    """Have the server take as many joins as its path manager can; by default it takes two."""
    stage.lab.ip("server", "mptcp", "limits", "set", "subflows", 8)


async def _silent_link(stage: Stage, link: int) -> None:
    """Wait until the daemon knows that the link has no carrier."""

    async def known() -> bool:
        objects = await stage.viewer.managed_objects()
        shown = [o[INTERFACE] for o in objects.values() if INTERFACE in o]
        return next(not i["Running"] for i in shown if i["Name"] == f"link{link}")

    await eventually(known)


# What is promised


async def _promised(
    make: MakeStage, name: str, family: int, source: str = ""
) -> tuple[Stage, Pair]:
    """Have a connection, and wait for exactly the subflows that the plugin promises."""
    it = await _stage(make, name, source)
    listener = await it.listener(SERVER[family])
    wanted = [(address("client", i, family), SERVER[family]) for i in LINKS]
    client = {}
    if name == "ndiffports":  # all are over one link; so let it not be the first one
        client = {"source": address("client", 2, family), "device": "link2"}
        wanted = 2 * [wanted[1]]
    pair = await _connect(it, listener, SERVER[family], **client)
    await _exactly(it, pair, wanted)
    later = await _connect(it, listener, SERVER[family], **client)
    await _exactly(it, later, wanted)
    await _exactly(it, pair, wanted)  # and nothing has come to it meanwhile
    return it, pair


@both_families
@every_plugin
async def test_exactly_the_promised_subflows_are_there_and_each_sends_over_its_link(
    stage: MakeStage, name: str, family: int
) -> None:
    it, pair = await _promised(stage, name, family)

    links = [2, 2] if name == "ndiffports" else LINKS
    assert await _carriers(it, pair) == [(address("client", i, family), i) for i in links]


@both_families
@every_plugin
async def test_unbound_the_same_subflows_all_send_over_link_1(
    stage: MakeStage, name: str, family: int
) -> None:
    bound, unbound = UNBOUND[name]
    assert bound in _source(name)

    it, pair = await _promised(stage, name, family, _source(name).replace(bound, unbound))

    links = [link for _, link in await _carriers(it, pair)]
    # The first subflow of ndiffports is bound by the application.
    assert sorted(links) == ([1, 2] if name == "ndiffports" else [1, 1, 1])


@both_families
async def test_without_them_there_is_one_subflow(stage: MakeStage, family: int) -> None:
    it = await _stage(stage, "foo")
    listener = await it.listener(SERVER[family])

    pair = await _connect(it, listener, SERVER[family])

    later = await _connect(it, listener, SERVER[family])
    await it.create_subflow(await it.path(later.token or 0), Interface="link2")
    await _exactly(it, pair, _star(family, [1]))


async def test_fullmesh_makes_no_more_than_its_settings_allow(stage: MakeStage) -> None:
    it = await _stage(stage, "fullmesh", settings="max-subflows=2\ninterfaces=link[13]")
    listener = await it.listener()

    pair = await _connect(it, listener, SERVER[4])

    await _exactly(it, pair, _star(4, [1, 3]))


async def test_sspi_uses_the_interfaces_of_its_settings(stage: MakeStage) -> None:
    it = await _stage(stage, "sspi", settings="interfaces=link1, link3")
    listener = await it.listener()

    pair = await _connect(it, listener, SERVER[4])

    await _exactly(it, pair, _star(4, [1, 3]))


async def test_ndiffports_makes_as_many_as_its_settings_say(stage: MakeStage) -> None:
    it = await _stage(stage, "ndiffports", settings="subflows=3")
    listener = await it.listener()

    pair = await _connect(it, listener, SERVER[4])

    await _exactly(it, pair, 3 * [*_star(4, [1])])


# A server that announces


def _announces(stage: Stage, family: int, *links: int) -> None:
    """Have the server's own path manager announce its addresses on these links."""
    _welcome(stage)
    for i in links:
        local = address("server", i, family)
        stage.lab.ip("server", "mptcp", "endpoint", "add", local, "signal")


@both_families
async def test_sspi_keeps_to_one_subflow_per_interface_when_the_server_announces(
    stage: MakeStage, family: int
) -> None:
    it = await _stage(stage, "sspi")
    _announces(it, family, 2, 3)
    listener = await it.listener("::" if family == 6 else "0.0.0.0")  # noqa: S104 # so joins are heard

    pair = await _connect(it, listener, SERVER[family])

    await it.heard("NewAddress", within=5)
    await _exactly(it, pair, _star(family))
    assert [link for _, link in await _carriers(it, pair)] == [1, 2, 3]


@both_families
async def test_fullmesh_adds_what_the_server_announces(stage: MakeStage, family: int) -> None:
    it = await _stage(stage, "fullmesh")
    _announces(it, family, 2)
    listener = await it.listener("::" if family == 6 else "0.0.0.0")  # noqa: S104 # so joins are heard

    pair = await _connect(it, listener, SERVER[family])

    # An IPv4 socket bound to a device takes every address to be on that link; IPv6 wants a route.
    links = LINKS if family == 4 else [2]
    announced = {(address("client", i, family), address("server", 2, family)) for i in links}
    await _exactly(it, pair, _star(family) | announced)


@both_families
async def test_sspi_joins_what_was_announced_where_the_first_address_takes_no_joins(
    stage: MakeStage, family: int
) -> None:
    it = await _stage(stage, "sspi")
    it.lab.sysctl("server", "net.mptcp.allow_join_initial_addr_port", 0)
    _announces(it, family, 2, 3)
    listener = await it.listener("::" if family == 6 else "0.0.0.0")  # noqa: S104 # so joins are heard

    pair = await _connect(it, listener, SERVER[family])

    async def joined() -> bool:
        seen = _seen(it, pair)
        assert {local for local, _ in seen} == {address("client", i, family) for i in LINKS}
        assert seen[address("client", 1, family), SERVER[family]] == 1
        assert {remote for _, remote in seen} <= {
            SERVER[family],
            *(address("server", i, family) for i in (2, 3)),
        }
        return len(seen) == 3 and seen.total() == 3

    await eventually(joined)
    assert [link for _, link in await _carriers(it, pair)] == [1, 2, 3]


@both_families
@that_use_all_links
async def test_on_a_server_they_announce_and_the_client_joins(
    stage: MakeStage, name: str, family: int
) -> None:
    it = await _stage(stage, name, host="server")
    it.lab.sysctl("client", "net.mptcp.path_manager", "kernel")
    it.lab.ip("client", "mptcp", "limits", "set", "subflows", 8, "add_addr_accepted", 8)
    second, length = ("10.0.2.9", 24) if family == 4 else ("dead:beef:2::9", 64)
    it.lab.ip("server", "address", "add", f"{second}/{length}", "dev", "link2")
    own = address("server", 1, family)
    listener = await it.listener(own)  # so that nothing of the application's hears joins elsewhere

    pair = await _connect(it, listener, own)

    announced = [(2, address("server", 2, family)), (3, address("server", 3, family))]
    if name == "fullmesh":
        announced.append((2, second))
    joined = {(address("client", i, family), remote) for i, remote in announced}
    first = {(address("client", 1, family), own)}
    await _exactly(it, pair, first | joined)
    it.lab.cut(2)
    await _exactly(
        it, pair, first | {ends for ends in joined if ends[0] == address("client", 3, family)}
    )
    it.lab.restore(2)
    await _exactly(it, pair, first | joined)


# Links that come and go


@both_families
@that_use_all_links
async def test_a_link_that_comes_is_used_and_one_that_goes_is_given_up(
    stage: MakeStage, name: str, family: int
) -> None:
    it = await _stage(stage, name)
    _welcome(it)
    it.lab.cut(3)
    listener = await it.listener(SERVER[family])
    pair = await _connect(it, listener, SERVER[family])
    await _exactly(it, pair, _star(family, [1, 2]))

    it.lab.restore(3)
    await _exactly(it, pair, _star(family))
    it.lab.cut(1)  # that of the first subflow
    await _exactly(it, pair, _star(family, [2, 3]))
    it.lab.restore(1)
    await _exactly(it, pair, _star(family))
    it.lab.cut(2)
    await _exactly(it, pair, _star(family, [1, 3]))


@that_use_all_links
async def test_an_address_that_comes_is_used_and_one_that_goes_is_given_up(
    stage: MakeStage, name: str
) -> None:
    it = await _stage(stage, name)
    listener = await it.listener()
    pair = await _connect(it, listener, SERVER[4])
    await _exactly(it, pair, _star(4))

    it.lab.ip("client", "address", "del", "10.0.3.1/24", "dev", "link3")
    await _exactly(it, pair, _star(4, [1, 2]))
    it.lab.ip("client", "address", "add", "10.0.3.7/24", "dev", "link3")
    await _exactly(it, pair, _star(4, [1, 2]) | {("10.0.3.7", SERVER[4])})


async def test_without_them_a_link_that_goes_is_not_given_up(stage: MakeStage) -> None:
    it = await _stage(stage, "foo")
    listener = await it.listener()
    pair = await _connect(it, listener, SERVER[4])
    await it.create_subflow(await it.path(pair.token or 0), Interface="link2")
    await _exactly(it, pair, _star(4, [1, 2]))

    it.lab.cut(2)

    await _silent_link(it, 2)
    waited = time.monotonic() + 1  # twenty times what it takes them
    await eventually(lambda: time.monotonic() > waited)
    await _exactly(it, pair, _star(4, [1, 2]))


@that_use_all_links
async def test_the_last_subflow_outlives_the_loss_of_its_link(stage: MakeStage, name: str) -> None:
    it = await _stage(stage, name)
    _welcome(it)
    listener = await it.listener()
    pair = await _connect(it, listener, SERVER[4])
    await _exactly(it, pair, _star(4))
    for link in (3, 2):
        it.lab.cut(link)
        await _exactly(it, pair, _star(4, range(1, link)))

    it.lab.cut(1)

    await _silent_link(it, 1)
    await _exactly(it, pair, _star(4, [1]))
    it.lab.restore(2)
    await _exactly(it, pair, _star(4, [2]))
    await exchange(it.client, pair.client, it.server, pair.server)


# What is lost, refused, or too much


async def test_sspi_closes_a_second_subflow_on_an_interface(stage: MakeStage) -> None:
    it = await _stage(stage, "sspi")
    _welcome(it)
    listener = await it.listener()
    pair = await _connect(it, listener, SERVER[4])
    await _exactly(it, pair, _star(4))
    before = it.sockets()

    await it.create_subflow(await it.path(pair.token or 0), Interface="link2", LocalPort=50000)

    await it.heard("SubflowClosed", lambda body: 50000 in body)
    await eventually(lambda: it.sockets() == before)


async def test_ndiffports_makes_a_lost_subflow_anew(stage: MakeStage) -> None:
    it = await _stage(stage, "ndiffports")
    listener = await it.listener()
    pair = await _connect(it, listener, SERVER[4])
    await _exactly(it, pair, 2 * [*_star(4, [1])])
    objects = await it.viewer.managed_objects()
    first = next(path for path, o in objects.items() if SUBFLOW in o)

    await it.command(first, SUBFLOW, "Destroy", "a{sv}", {})

    await _exactly(it, pair, _star(4, [1]))
    await _exactly(it, pair, 2 * [*_star(4, [1])])


@every_plugin
async def test_refused_joins_are_tried_again_after_longer_and_longer_waits(
    stage: MakeStage, name: str
) -> None:
    it = await _stage(stage, name)
    it.lab.run("server", ["nft", "-f", "-"], input=REFUSAL)
    listener = await it.listener()
    local = address("client", 1 if name == "ndiffports" else 2)

    with Observer(it.lab) as observer:
        pair = await _connect(it, listener, SERVER[4])

        def refused() -> list[float]:
            ended = observer.of(SubflowClosed)
            return [when for when, event in ended if event.four_tuple.local_address == local]

        await eventually(lambda: len(refused()) == 3)
        it.lab.run("server", ["nft", "delete", "table", "inet", "refusal"])
        links = [1, 1] if name == "ndiffports" else LINKS
        await _exactly(it, pair, [(address("client", i), SERVER[4]) for i in links])
    first, second, third = refused()
    assert 1 <= second - first < 1.5
    assert 2 <= third - second < 2.5

"""For the tests of plugins that make subflows: a stage with one, and what ss(8) and links show."""
# SPDX-License-Identifier: BSD-3-Clause

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import INTERFACE, PORT, SUBFLOW, Stage
from tests.lab.app import Pair, converse
from tests.lab.hosts import HOSTS, LINKS, SERVER, Host, address
from tests.lab.plugin_files import PluginFiles
from tests.lab.sandbox import REPOSITORY
from tests.lab.wait import eventually

PORTION = 300_000
"""Bytes; what the other links carry meanwhile is less than a tenth of it."""

Ends = Counter[tuple[str, str]]

both_families = pytest.mark.parametrize("family", [4, 6])
every_plugin = pytest.mark.parametrize("name", ["sspi", "fullmesh", "ndiffports"])
that_use_all_links = pytest.mark.parametrize("name", ["sspi", "fullmesh"])


def source_of(name: str) -> str:
    """Give the text of a plugin of ours."""
    return (REPOSITORY / f"plugins/{name}.py").read_text()


async def stage_with(
    make: MakeStage, name: str, source: str = "", host: Host = "client", settings: str = ""
) -> Stage:
    """Have the plugin *name* decide for all connections."""
    return await make(*arguments_for(name, source, settings), host=host)


def arguments_for(name: str, source: str = "", settings: str = "") -> list[str]:
    """Give the daemon's arguments that make it so."""
    files = PluginFiles()
    files.write(name, source or source_of(name))
    config = files.path / "mptcpd-dbus.conf"
    config.write_text(f"[core]\npath-manager={name}\n[plugin {name}]\n{settings}\n")
    config.chmod(0o644)
    return ["--plugin-dir", str(files.path), "--config", str(config)]


async def connect(stage: Stage, listener: int, target: str, **client: str) -> Pair:
    """Connect the client to *target*; *client* says how."""
    pair = await converse(stage.client, stage.server, listener, address=target, port=PORT, **client)
    assert pair.token, "the connection is not Multipath TCP"
    return pair


def seen_at_both_ends(stage: Stage, pair: Pair) -> Ends:
    """Give from where to where subflows go that are established at both ends."""
    tokens = {"client": pair.token, "server": pair.server_token}
    client, server = (
        {ends[1:3] for ends in replace(stage, host=host).sockets() if ends[0] == tokens[host]}
        for host in HOSTS
    )
    assert client == {(there, here) for here, there in server}, f"client {client}, server {server}"
    return Counter((here[0], there[0]) for here, there in client)


async def exactly(stage: Stage, pair: Pair, wanted: Iterable[tuple[str, str]]) -> None:
    """Wait until the subflows at both ends are those *wanted*."""
    expected = Counter(wanted)

    def same() -> bool:
        seen = seen_at_both_ends(stage, pair)
        assert seen == expected, f"missing {expected - seen}, unwanted {seen - expected}"
        return True

    await eventually(same)


def star(family: int, links: Iterable[int] = LINKS) -> set[tuple[str, str]]:
    """Give the paths from these links to the server's one address."""
    return {(address("client", link, family), SERVER[family]) for link in links}


def new_link(stage: Stage, link: int) -> None:
    """Join the hosts by one more link, with all that the others have."""
    name, lab = f"link{link}", stage.lab
    peer = ["peer", "name", name, "index", 20 + link, "netns", lab.namespaces["server"]]
    lab.ip("client", "link", "add", name, "index", 10 + link, "type", "veth", *peer)
    for host in reversed(HOSTS):  # the client's end has a carrier when its routes come
        lab.batch(
            host,
            [
                f"link set {name} up",
                f"address add {address(host, link)}/24 dev {name}",
                f"address add {address(host, link, 6)}/64 dev {name} nodad",
            ],
        )
    ways = {family: address("server", link, family) for family in SERVER}
    lab.batch(
        "client",
        [
            f"route add {SERVER[f]} via {way} dev {name} metric {100 * link}"
            for f, way in ways.items()
        ],
    )


async def carriers(stage: Stage, pair: Pair, links: Sequence[int] = LINKS) -> list[tuple[str, int]]:
    """Let each subflow alone carry data to the server; give its local address and the link."""
    await stage.agreed()
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
        before = {link: stage.lab.counters("client", link)[1] for link in links}
        await stage.client.call("send", talk=pair.client, count=PORTION)
        await stage.server.call("recv", talk=pair.server, count=PORTION)
        sent = {link: stage.lab.counters("client", link)[1] - before[link] for link in links}
        busiest = max(links, key=sent.__getitem__)
        assert sent[busiest] > PORTION > 10 * (sum(sent.values()) - sent[busiest]), sent
        found.append((local, busiest))
    return sorted(found)


def welcome(stage: Stage) -> None:
    """Have the server take as many joins as its path manager can; by default it takes two."""
    stage.lab.ip("server", "mptcp", "limits", "set", "subflows", 8)


async def without_carrier(stage: Stage, link: int) -> None:
    """Wait until the daemon knows that the link has no carrier."""

    async def known() -> bool:
        objects = await stage.viewer.managed_objects()
        shown = [o[INTERFACE] for o in objects.values() if INTERFACE in o]
        return next(not i["Running"] for i in shown if i["Name"] == f"link{link}")

    await eventually(known)

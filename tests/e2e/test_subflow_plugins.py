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
from tests.e2e.plugin_files import PluginFiles
from tests.e2e.stage import PORT, SUBFLOW, Stage
from tests.lab.app import Pair, converse
from tests.lab.hosts import LINKS, SERVER, Host, address
from tests.lab.sandbox import REPOSITORY
from tests.lab.wait import eventually

PORTION = 300_000
"""Bytes; what the other links carry meanwhile is less than a tenth of it."""

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
    pair = await converse(
        stage.client, stage.server, listener, address=target, port=PORT, **client
    )
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


async def _carriers(stage: Stage, pair: Pair) -> dict[tuple[str, int], int]:
    """Let each subflow alone carry data to the server; give the link that carried it."""
    objects = await stage.viewer.managed_objects()
    subflows = {
        path: (o[SUBFLOW]["LocalAddress"], o[SUBFLOW]["LocalPort"])
        for path, o in objects.items()
        if SUBFLOW in o
    }
    found = {}
    for alone, end in subflows.items():
        for path in sorted(subflows, key=alone.__ne__):  # at no time are all of them backup
            await stage.command(path, SUBFLOW, "SetBackup", "ba{sv}", path != alone, {})
        before = {link: stage.lab.counters("client", link)[1] for link in LINKS}
        await stage.client.call("send", talk=pair.client, count=PORTION)
        await stage.server.call("recv", talk=pair.server, count=PORTION)
        sent = {link: stage.lab.counters("client", link)[1] - before[link] for link in LINKS}
        [found[end]] = [link for link in LINKS if sent[link] > PORTION / 10]
        assert sent[found[end]] > PORTION
    return found


# What is promised


@both_families
@that_use_all_links
async def test_every_link_has_its_subflow(stage: MakeStage, name: str, family: int) -> None:
    it = await _stage(stage, name)
    listener = await it.listener(SERVER[family])

    pair = await _connect(it, listener, SERVER[family])

    await _exactly(it, pair, _star(family))
    later = await _connect(it, listener, SERVER[family])
    await _exactly(it, later, _star(family))
    await _exactly(it, pair, _star(family))  # and nothing has come in the meantime
    await it.client.call("close", number=later.client)
    await it.server.call("close", number=later.server)
    carriers = await eventually(lambda: _carriers(it, pair))
    assert {local for local, _ in carriers} == {address("client", i, family) for i in LINKS}
    for (local, _), link in carriers.items():
        assert local == address("client", link, family)

"""Endpoints follow the addresses of the host, beside those that somebody else has set by ip(8).

All is seen as `ip mptcp endpoint` shows it.  The kernel gives an endpoint that is added again
another ID, so an ID that stays tells that the endpoint was there all the time; a flap is the
control of that.
"""
# SPDX-License-Identifier: BSD-3-Clause

import itertools
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mptcpd_dbus.core.events import NewSubflow, SubflowClosed
from tests.e2e.conftest import MakeStage
from tests.e2e.observer import Observer
from tests.e2e.stage import MANAGER, Stage
from tests.lab.carrier import Carrier
from tests.lab.client import ROOT
from tests.lab.hosts import LINKS, address
from tests.lab.plugin_files import PluginFiles
from tests.lab.sandbox import REPOSITORY, SCRATCH
from tests.lab.wait import eventually

PLUGIN = REPOSITORY / "plugins/addr_adv.py"
OF = {link: {address("client", link, family) for family in (4, 6)} for link in LINKS}
ALL = OF[1] | OF[2] | OF[3]
NOWHERE = "10.0.99.1"  # on no interface
SWEEP = 8.0  # seconds in which the daemon sees what others did, while there are connections
FLAGS = ("signal", "subflow", "backup", "fullmesh", "implicit")
_numbers = itertools.count(1)

both_ways = pytest.mark.both_ways  # but what is about the daemon's own restart and settings


class Shown(NamedTuple):
    """An endpoint as ip(8) shows it."""

    id: int
    device: str
    flags: frozenset[str]


def _flags(shown: dict[str, Any]) -> frozenset[str]:
    raw = int(shown.get("rawflags", "0"), 16)  # of what iproute2 6.1 has no word for
    return frozenset([f for f in FLAGS if shown.get(f)] + (["implicit"] if raw & 16 else []))


class Play:
    """A stage, and the endpoints of its client."""

    def __init__(self, stage: Stage, arguments: tuple[str, ...]) -> None:
        self.stage, self.lab, self._arguments = stage, stage.lab, arguments

    def ip(self, *words: object) -> str:
        """Do or ask something on the client."""
        return self.lab.ip("client", *words)

    def endpoints(self) -> dict[str, Shown]:
        """Give all endpoints by address."""
        return {
            e["address"]: Shown(e["id"], e.get("dev", ""), _flags(e))
            for e in json.loads(self.ip("-json", "mptcp", "endpoint", "show"))
        }

    def foreign(self, *words: object) -> Shown:
        """Add an endpoint as NetworkManager or an administrator does; give it."""
        self.ip("mptcp", "endpoint", "add", *words)
        return self.endpoints()[str(words[0])]

    def limits(self) -> tuple[int, int]:
        """Give the kernel's limits: of subflows and of accepted addresses."""
        words = self.ip("mptcp", "limits", "show").split()
        limits = dict(zip(words[::2], map(int, words[1::2]), strict=True))
        return limits["subflows"], limits["add_addr_accepted"]

    async def shows(self, addresses: set[str], within: float = 2) -> dict[str, Shown]:
        """Wait until just these addresses have endpoints."""

        def same() -> dict[str, Shown]:
            found = self.endpoints()
            assert found.keys() == addresses, f"{found.keys() ^ addresses} of {found}"
            return found

        return await eventually(same, within)

    async def settled(self, link: str = "link1") -> None:
        """Wait until the plugin has answered all that happened: what happens last is seen last."""
        self.ip("address", "add", "10.0.250.1/24", "dev", link)
        await eventually(lambda: "10.0.250.1" in self.endpoints(), 2)
        self.ip("address", "delete", "10.0.250.1/24", "dev", link)
        await eventually(lambda: "10.0.250.1" not in self.endpoints(), 2)

    async def connect(self) -> None:
        """Have a connection: with any, the daemon looks for others' doings every five seconds."""
        await self.stage.connection(await self.stage.listener())

    async def start_again(self, *other: str) -> None:
        """Start the daemon after its end, with other arguments added."""
        await self.stage.daemon.start(*self._arguments, *other)


MakePlay = Callable[..., Awaitable[Play]]


@pytest.fixture
def plugin_files() -> PluginFiles:
    """Give a directory with the plugin and no other."""
    files = PluginFiles()
    files.write("addr_adv", PLUGIN.read_text())
    return files


@pytest.fixture
def play(stage: MakeStage, plugin_files: PluginFiles, memory: Path) -> MakePlay:
    """Give a maker of plays, with the plugin's directory or another one and more arguments."""
    del memory  # the environment has it

    async def make(*more: str, plugins: Path = plugin_files.path) -> Play:
        arguments = ("--plugin-dir", str(plugins), *more)
        return Play(await stage(*arguments, path_manager="kernel"), arguments)

    return make


@pytest.fixture
async def bare(play: MakePlay) -> Play:
    """Give a play whose daemon has no plugin, and has ended: to set the scene before it starts."""
    scene = await play(plugins=PluginFiles().path)
    assert await scene.stage.daemon.stop() == 0
    return scene


# Who gets an endpoint


@both_ways
async def test_every_address_of_the_links_has_an_endpoint(play: MakePlay) -> None:
    it = await play()

    found = await it.shows(ALL)

    for link in LINKS:
        assert {found[a][1:] for a in OF[link]} == {(f"link{link}", frozenset({"subflow"}))}
    assert it.limits() == (6, 6)


async def test_without_the_plugin_none_has(play: MakePlay) -> None:
    """The control of all tests here: nobody else adds any."""
    it = await play(plugins=PluginFiles().path)

    it.lab.cut(2)
    await it.stage.heard("UpdateInterface", lambda body: body[2] == "link2" and not body[5])
    it.lab.restore(2)
    await it.stage.heard("UpdateInterface", lambda body: body[2] == "link2" and body[5])

    assert it.endpoints() == {}
    assert it.limits() == (2, 0)


@both_ways
async def test_a_deprecated_address_has_none(play: MakePlay) -> None:
    it = await play()
    await it.shows(ALL)
    lifetime = ("valid_lft", 1000, "preferred_lft")

    it.ip("address", "add", "dead:beef:22::1/64", "dev", "link2", "nodad", *lifetime, 0)
    await it.settled()
    assert it.endpoints().keys() == ALL

    it.ip("address", "add", "dead:beef:23::1/64", "dev", "link2", "nodad", *lifetime, 900)
    await it.shows(ALL | {"dead:beef:23::1"})


@both_ways
async def test_limits_that_others_have_raised_are_never_lowered(play: MakePlay) -> None:
    it = await play()
    await it.shows(ALL)

    it.ip("mptcp", "limits", "set", "subflows", 8, "add_addr_accepted", 1)
    it.ip("address", "add", "10.0.22.1/24", "dev", "link2")
    await it.shows(ALL | {"10.0.22.1"})

    assert it.limits() == (8, 7)


# How they follow


@both_ways
async def test_a_flap_costs_the_endpoints_of_the_link_and_no_others(play: MakePlay) -> None:
    it = await play()
    before = await it.shows(ALL)

    it.lab.cut(2)
    await it.shows(OF[1] | OF[3])
    it.lab.restore(2)
    after = await it.shows(ALL)

    assert {a for a in ALL if after[a].id == before[a].id} == OF[1] | OF[3]
    assert {after[a].device for a in OF[2]} == {"link2"}


@both_ways
async def test_an_outage_of_all_links_costs_no_connection(play: MakePlay) -> None:
    """The endpoint of its last path stays: with it the kernel would close the last subflow."""
    it = await play()
    await it.shows(ALL)
    pair, _ = await it.stage.connection(await it.stage.listener())
    it.lab.cut(1)
    it.lab.cut(2)
    last = (await it.shows(OF[3]))[address("client", 3)]

    it.lab.cut(3)
    await it.stage.heard("UpdateInterface", lambda body: body[2] == "link3" and not body[5])
    it.ip("address", "delete", f"{address('client', 1)}/24", "dev", "link1")
    await it.shows({address("client", 3)})
    it.lab.restore(3)
    await it.settled("link3")

    assert (await it.shows(OF[3]))[address("client", 3)] == last
    await it.stage.client.call("send", talk=pair.client, count=1000)
    assert await it.stage.server.call("recv", talk=pair.server, count=1000) == 1000


@both_ways
async def test_a_connection_with_one_path_outlives_a_flap_of_it(play: MakePlay) -> None:
    """As it would without the plugin, though the host has other links: the peer takes no joins."""
    it = await play()
    await it.shows(ALL)
    it.lab.ip("server", "mptcp", "limits", "set", "subflows", 0)
    pair, _ = await it.stage.connection(await it.stage.listener())

    it.lab.cut(1)
    await it.shows(OF[2] | OF[3] | {address("client", 1)})
    it.lab.restore(1)
    await it.shows(ALL)

    await it.stage.client.call("send", talk=pair.client, count=1000)
    assert await it.stage.server.call("recv", talk=pair.server, count=1000) == 1000


@both_ways
async def test_an_address_that_goes_takes_its_endpoint_along_and_a_new_one_brings_one(
    play: MakePlay,
) -> None:
    it = await play()
    before = await it.shows(ALL)

    it.ip("address", "delete", "10.0.2.1/24", "dev", "link2")
    await it.shows(ALL - {"10.0.2.1"})
    it.ip("address", "add", "10.0.22.1/24", "dev", "link2")
    await it.shows(ALL - {"10.0.2.1"} | {"10.0.22.1"})
    it.ip("address", "add", "10.0.2.1/24", "dev", "link3")  # it moves to another link
    after = await it.shows(ALL | {"10.0.22.1"})

    assert after["10.0.2.1"].device == "link3"
    kept = ALL - {"10.0.2.1"}
    assert {a: after[a] for a in kept} == {a: before[a] for a in kept}

    it.ip("link", "delete", "link3")
    await it.shows(OF[1] | {"10.0.22.1", address("client", 2, 6)})


@both_ways
async def test_of_twelve_addresses_eight_have_an_endpoint_and_the_others_wait(
    play: MakePlay,
) -> None:
    it = await play()
    await it.shows(ALL)
    there = it.foreign(NOWHERE)
    more = {f"10.0.3{i}.1" for i in range(6)}
    it.lab.batch("client", [f"address add {a}/24 dev link3" for a in sorted(more)])

    def full() -> set[str]:
        found = it.endpoints().keys()
        assert len(found) == 8
        return set(found)

    first = await eventually(full, 2)
    assert first > ALL | {NOWHERE}

    it.ip("address", "delete", "10.0.2.1/24", "dev", "link2")
    await eventually(lambda: "10.0.2.1" not in it.endpoints(), 2)
    second = await eventually(full, 2)
    assert second > first - {"10.0.2.1"}

    # A slot that somebody else leaves is found by the sweep.
    await it.connect()
    assert it.endpoints()[NOWHERE] == there
    it.ip("mptcp", "endpoint", "delete", "id", there.id)
    await eventually(lambda: NOWHERE not in full(), SWEEP)
    assert full() > second - {NOWHERE}
    assert it.limits() == (8, 8)

    it.lab.cut(2)
    it.lab.cut(1)
    await it.shows(OF[3] | more)


# The daemon starts again


async def test_a_restart_finds_its_endpoints_and_does_only_what_has_changed(
    play: MakePlay,
) -> None:
    it = await play()
    before = await it.shows(ALL)
    await it.connect()
    await eventually(lambda: len(it.stage.sockets()) == 3)
    sockets = it.stage.sockets()

    it.stage.daemon.kill()
    await it.start_again()
    await it.settled()
    assert it.endpoints() == before
    assert it.stage.sockets() == sockets

    assert await it.stage.daemon.stop() == 0
    it.ip("address", "delete", "10.0.2.1/24", "dev", "link2")
    it.ip("address", "add", "10.0.22.1/24", "dev", "link2")
    await it.start_again()
    after = await it.shows(ALL - {"10.0.2.1"} | {"10.0.22.1"})
    assert all(after[a] == before[a] for a in ALL - {"10.0.2.1"})


async def test_without_its_memory_it_would_leave_what_it_had_added(
    play: MakePlay, memory: Path
) -> None:
    """The control: what is not known to be ours is somebody else's."""
    it = await play()
    before = await it.shows(ALL)

    assert await it.stage.daemon.stop() == 0
    (memory / "own-endpoints").unlink()
    it.ip("address", "delete", "10.0.2.1/24", "dev", "link2")
    await it.start_again()
    await it.settled()

    assert it.endpoints() == before


async def test_the_note_is_the_daemons_alone(play: MakePlay, memory: Path) -> None:
    it = await play()
    await it.shows(ALL)

    note = memory / "own-endpoints"
    found = await eventually(lambda: (n := json.loads(note.read_text())["endpoints"])[5:] and n)
    assert {entry["address"] for entry in found} == ALL
    assert {entry["by"] for entry in found} == {"addr_adv"}
    assert note.stat().st_mode & 0o777 == 0o600


async def test_flags_follow_the_configuration_in_place_where_the_kernel_can(
    play: MakePlay,
) -> None:
    it = await play()
    before = await it.shows(ALL)
    there = it.foreign(NOWHERE, "backup")

    for flags, stays in (("subflow,backup", True), ("subflow,fullmesh", True), ("signal", False)):
        assert await it.stage.daemon.stop() == 0
        await it.start_again(f"--addr-flags={flags}")
        await it.settled()
        after = await it.shows(ALL | {NOWHERE})
        assert after.pop(NOWHERE) == there
        assert {e.flags for e in after.values()} == {frozenset(flags.split(","))}
        assert all((after[a].id == before[a].id) == stays for a in ALL)


async def test_a_reload_brings_other_flags(play: MakePlay) -> None:
    config = SCRATCH / f"addr-adv-{next(_numbers)}.conf"
    config.write_text("[core]\naddr-flags=subflow\n")
    it = await play("--config", str(config))
    before = await it.shows(ALL)

    config.write_text("[core]\naddr-flags=subflow,backup\n")
    it.stage.daemon.reload()
    wanted = {frozenset({"subflow", "backup"})}
    await eventually(lambda: {e.flags for e in it.endpoints().values()} == wanted)

    assert {a: e.id for a, e in it.endpoints().items()} == {a: e.id for a, e in before.items()}


# Others


async def test_ours_follow_the_addresses_and_the_foreign_ones_are_never_touched(
    bare: Play, plugin_files: PluginFiles
) -> None:
    """One has an address of no interface, the other one that ours would want."""
    it = bare
    theirs = {
        NOWHERE: it.foreign(NOWHERE, "id", 77, "backup"),
        "10.0.3.1": it.foreign("10.0.3.1", "dev", "link3", "signal"),
    }
    arguments = ("--plugin-dir", str(plugin_files.path))

    async def shows(ours: set[str]) -> dict[str, Shown]:
        found = await it.shows(ours | theirs.keys())
        assert {a: found.pop(a) for a in theirs} == theirs
        return found

    ours = ALL - {"10.0.3.1"}
    await it.start_again(*arguments)
    before = await shows(ours)

    for link in (3, 2):
        it.lab.cut(link)
        await shows(ours - OF[link])
        it.lab.restore(link)
        await shows(ours)

    it.ip("address", "delete", "10.0.3.1/24", "dev", "link3")
    it.ip("address", "delete", "10.0.2.1/24", "dev", "link2")
    it.ip("address", "add", "10.0.22.1/24", "dev", "link2")
    await shows(ours - {"10.0.2.1"} | {"10.0.22.1"})
    it.ip("address", "add", "10.0.3.1/24", "dev", "link3")
    it.ip("address", "delete", "10.0.22.1/24", "dev", "link2")
    it.ip("address", "add", "10.0.2.1/24", "dev", "link2")
    await shows(ours)

    more = [f"10.0.3{i}.1" for i in range(6)]
    it.lab.batch("client", [f"address add {a}/24 dev link3" for a in more])
    await eventually(lambda: len(it.endpoints()) == 8, 2)
    assert {a: it.endpoints()[a] for a in theirs} == theirs
    it.lab.batch("client", [f"address delete {a}/24 dev link3" for a in more])
    await it.settled()  # a slot that one of them leaves may go to the next for a moment
    after = await shows(ours)

    it.stage.daemon.kill()
    await it.start_again(*arguments)
    assert await shows(ours) == after
    assert await it.stage.daemon.stop() == 0
    await it.start_again(*arguments, "--addr-flags=signal")
    await it.settled()
    changed = await shows(ours)
    assert {e.flags for e in changed.values()} == {frozenset({"signal"})}
    assert all(after[a] == before[a] for a in OF[1])

    # When theirs goes, ours comes.
    await it.connect()
    it.ip("mptcp", "endpoint", "delete", "id", theirs.pop("10.0.3.1").id)
    await eventually(lambda: "10.0.3.1" in it.endpoints(), SWEEP)
    assert it.endpoints()["10.0.3.1"].device == "link3"
    await shows(ALL)


@both_ways
async def test_an_endpoint_added_on_the_bus_is_not_the_plugins(play: MakePlay) -> None:
    it = await play()
    await it.shows(ALL)
    await it.stage.command(ROOT, MANAGER, "AddEndpoint", "sasa{sv}", NOWHERE, ["subflow"], {})
    theirs = it.endpoints()[NOWHERE]

    await it.settled()
    it.stage.daemon.kill()
    await it.start_again()
    await it.settled()

    assert it.endpoints()[NOWHERE] == theirs


@both_ways
async def test_what_others_delete_comes_back_but_not_for_ever(play: MakePlay) -> None:
    it = await play()
    await it.shows(ALL)
    await it.connect()

    it.ip("mptcp", "endpoint", "flush")
    await eventually(lambda: it.endpoints().keys() == ALL, SWEEP)

    for left in (ALL, set[str]()):  # the daemon sees at once what is done through it
        await it.stage.command(ROOT, MANAGER, "FlushEndpoints", "a{sv}", {})
        await it.settled()
        assert it.endpoints().keys() == left
    assert it.stage.daemon.log.read_text().count("left so") == len(ALL)

    # A new address has not been fought for, and an address that goes and comes begins anew.
    it.lab.ip("client", "address", "add", "10.0.22.1/24", "dev", "link2")
    it.lab.ip("client", "address", "delete", "10.0.2.1/24", "dev", "link2")
    await it.shows({"10.0.22.1"})
    it.lab.ip("client", "address", "add", "10.0.2.1/24", "dev", "link2")
    await it.shows({"10.0.22.1", "10.0.2.1"})


async def test_an_endpoint_that_the_kernel_made_by_itself_gives_way(
    bare: Play, plugin_files: PluginFiles
) -> None:
    """It makes one for the address from which it joins an address that the peer announced."""
    it = bare
    it.ip("mptcp", "limits", "set", "add_addr_accepted", 2)
    it.lab.ip("server", "mptcp", "endpoint", "add", address("server", 2), "signal")
    await it.start_again("--plugin-dir", str(PluginFiles().path))
    await it.stage.connection(await it.stage.listener("0.0.0.0"))  # noqa: S104 # a lab's host

    def implicit() -> Shown:
        assert it.endpoints().keys() == {"10.0.2.1"}
        return it.endpoints()["10.0.2.1"]

    made = await eventually(implicit)
    assert made.flags == {"implicit"}

    assert await it.stage.daemon.stop() == 0
    await it.start_again("--plugin-dir", str(plugin_files.path))
    found = await it.shows(ALL)

    assert found["10.0.2.1"][1:] == ("link2", frozenset({"subflow"}))


# What it is for


@both_ways
async def test_a_connection_gets_a_subflow_over_each_link_and_loses_it_on_a_cut(
    play: MakePlay,
) -> None:
    it = await play()
    await it.shows(ALL)

    def links() -> set[str]:
        return {local[0] for _, local, *_ in it.stage.sockets()}

    every = {address("client", link) for link in LINKS}
    with Observer(it.lab) as observer, Carrier(it.lab, 2) as carrier:
        await it.connect()
        await eventually(lambda: links() == every, 2)
        cut = await carrier.change(it.lab.cut, 2, up=False)
        await eventually(lambda: links() == every - {"10.0.2.1"}, 1)
        (closed,) = [w for w, e in observer.of(SubflowClosed) if e.four_tuple[0] == "10.0.2.1"]

        # A link that is back passes nothing for half a second, and a SYN is repeated after one.
        back = await carrier.change(it.lab.restore, 2, up=True)
        await eventually(lambda: links() == every, 3)
        joined = [w for w, e in observer.of(NewSubflow) if e.four_tuple[0] == "10.0.2.1"][-1]

    print(f"\nclosed after {(closed - cut) * 1e3:.1f} ms, there again after {joined - back:.2f} s")
    assert closed - cut < 0.1


async def test_without_endpoints_it_has_one(play: MakePlay) -> None:
    """The control of the test above."""
    it = await play(plugins=PluginFiles().path)
    await it.connect()

    it.lab.cut(2)
    await it.stage.heard("UpdateInterface", lambda body: body[2] == "link2" and not body[5])

    assert len(it.stage.sockets()) == 1

"""Who has the socket of a connection steers that connection, and no other; no rule allows it.

alice is anybody: what she may here she may by her sockets; the kernel shows whether it was done.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mptcpd_dbus.bus.names import CLOSERS
from tests.conftest import LOGS
from tests.documents import OWN, blocks
from tests.e2e.conftest import MakeStage
from tests.e2e.stage import CONNECTION, MANAGER, PORT, SUBFLOW, TARGETS, Stage
from tests.lab.app import App, converse
from tests.lab.bus import PrivateBus, installed_kinds
from tests.lab.client import BUS, NAME, ROOT
from tests.lab.hosts import Host
from tests.lab.sandbox import readable_repository
from tests.lab.wait import eventually

NEEDS_DIALOGUE = f"{BUS}.Error.InteractiveAuthorizationRequired"
DENIED, UNKNOWN = f"{BUS}.Error.AccessDenied", f"{BUS}.Error.UnknownObject"
GONE = f"{NAME}.Error.NoSuchConnection"
NOT_MULTIPATH, FOREIGN = f"{NAME}.Error.NotMultipath", f"{NAME}.Error.ForeignNamespace"
LINGER = 3  # seconds

pytestmark = pytest.mark.usefixtures("people")


@pytest.fixture(params=installed_kinds())
def bus(request: pytest.FixtureRequest, people: None) -> Iterator[PrivateBus]:
    """Give each kind of bus with our policy and actions, and polkitd."""
    del people  # they must only be there
    repository = readable_repository()
    with PrivateBus(
        kind=request.param,
        policies=sorted((repository / "dbus").glob("*.conf")),
        polkit=True,
        actions=sorted((repository / "polkit").glob("*.policy")),
    ) as private:
        request.node.stash.setdefault(LOGS, {})["bus"] = private.logs
        yield private


@dataclass
class Program:
    """A program of a user, with one connection to the bus."""

    play: Stage
    app: App
    bus: int = 0

    async def show(self, number: int, bus: int = 0) -> str:
        """Show a socket."""
        return str(await self.app.call("show", bus=bus, number=number))

    async def ask(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str,
        *arguments: Any,
        bus: int = 0,
        **options: tuple[str, Any],
    ) -> str:
        """Command; give what came of it."""
        call = {"path": path, "interface": interface, "member": member, "signature": signature}
        more = {"arguments": arguments, "options": options}
        return str(await self.app.call("ask", bus=bus, limit=30, **call, **more))

    async def join(self, path: str, bus: int = 0, **options: tuple[str, Any]) -> str:
        """Add a subflow over the second link."""
        asked: dict[str, tuple[str, Any]] = {"Interface": ("s", "link2"), **options}
        return await self.ask(path, CONNECTION, "CreateSubflow", "sqa{sv}", "", 0, bus=bus, **asked)


async def _program(play: Stage, user: str = "alice", host: Host = "client") -> Program:
    repository = readable_repository()
    argv = ["env", f"PYTHONPATH={repository}", "PYTHONDONTWRITEBYTECODE=1"]
    argv += [f"{repository}/.venv/bin/python", "-m", "tests.e2e.owner"]
    program = Program(play, play.lab.app(host, user, argv))
    await program.app.call("enter")
    return program


class Connected(NamedTuple):
    """A connection of a program: its conversation, the server's, and its object."""

    talk: int
    peer: int
    path: str


async def _connected(program: Program, target: str = TARGETS["v4"]) -> Connected:
    play = program.play
    host = "::" if ":" in target else target
    listener, port = await play.server.call("listen", address=host)
    pair = await converse(program.app, play.server, listener, address=target, port=port)
    token = pair.token
    assert token, "the connection is not Multipath TCP"
    path = await eventually(lambda: play.path(token))
    return Connected(pair.client, pair.server, path)


@pytest.mark.parametrize("target", TARGETS)
async def test_a_program_steers_the_connection_whose_socket_it_shows(
    stage: MakeStage, target: str
) -> None:
    """A subflow more, made a backup, and gone; before the proof each is refused."""
    play = await stage()
    alice = await _program(play)
    talk, _, path = await _connected(alice, TARGETS[target])

    assert await alice.join(path) == NEEDS_DIALOGUE
    assert await alice.show(talk) == path
    subflow = await alice.join(path)
    assert subflow.startswith(f"{path}/subflow/")
    await play.agreed()
    assert len(play.sockets()) == 2
    assert await alice.ask(subflow, SUBFLOW, "SetBackup", "ba{sv}", True) == ""
    assert [row[4] for row in play.sockets()].count((True, False)) == 1
    assert await alice.ask(subflow, SUBFLOW, "Destroy", "a{sv}") == ""
    await eventually(lambda: len(play.sockets()) == 1)


async def test_steering_ones_own_connection_is_no_news(stage: MakeStage, bus: PrivateBus) -> None:
    """What is refused before the socket is shown is a line."""
    play = await stage("--log", "journal")
    alice = await _program(play)
    talk, _, path = await _connected(alice)

    assert await alice.join(path) == NEEDS_DIALOGUE
    assert await alice.show(talk) == path
    assert (await alice.join(path)).startswith(f"{path}/subflow/")
    assert await play.daemon.stop() == 0

    results = [entry["MPTCP_RESULT"] for entry in bus.entries if "MPTCP_RESULT" in entry]
    assert results == [NEEDS_DIALOGUE]


async def test_a_program_is_refused_for_every_connection_but_its_own(stage: MakeStage) -> None:
    """Another one of its user, and that of another user; its own is the control."""
    play = await stage()
    alice, bob = await _program(play), await _program(play, "bob")
    shown, kept, bobs = [await _connected(program) for program in (alice, alice, bob)]
    assert await alice.show(shown.talk) == shown.path

    for other in (kept, bobs):
        path = other.path
        assert await alice.join(path) == NEEDS_DIALOGUE
        for member, signature, *arguments in (
            ("AnnounceAddress", "sa{sv}", "10.0.2.1"),
            ("RemoveAddress", "ya{sv}", 1),
            ("SetOwner", "sa{sv}", "sspi"),
        ):
            refused = await alice.ask(path, CONNECTION, member, signature, *arguments)
            assert refused == NEEDS_DIALOGUE
        subflow = f"{path}/subflow/1"
        assert await alice.ask(subflow, SUBFLOW, "SetBackup", "ba{sv}", True) == NEEDS_DIALOGUE
        assert await alice.ask(subflow, SUBFLOW, "Destroy", "a{sv}") == NEEDS_DIALOGUE
    flush = await alice.ask(ROOT, MANAGER, "FlushEndpoints", "a{sv}")
    assert flush == NEEDS_DIALOGUE
    await play.agreed()
    assert len(play.sockets()) == 3

    assert await bob.show(bobs.talk) == bobs.path
    assert (await alice.join(shown.path)).startswith(shown.path)
    assert (await bob.join(bobs.path)).startswith(bobs.path)


async def test_only_the_bus_connection_that_showed_it_owns_it_and_no_longer_than_it_lives(
    stage: MakeStage,
) -> None:
    """Another one of the same process, and one that comes after it."""
    play = await stage()
    alice = await _program(play)
    talk, _, path = await _connected(alice)
    assert await alice.show(talk) == path

    other = await alice.app.call("enter")
    assert await alice.join(path, bus=other) == NEEDS_DIALOGUE
    subflow = await alice.join(path)
    assert subflow.startswith(path)

    await alice.app.call("leave", bus=0)
    after = await alice.app.call("enter")
    for bus in (other, after):
        destroy = await alice.ask(subflow, SUBFLOW, "Destroy", "a{sv}", bus=bus)
        assert destroy == NEEDS_DIALOGUE
    assert await alice.show(talk, bus=after) == path
    assert await alice.ask(subflow, SUBFLOW, "Destroy", "a{sv}", bus=after) == ""


async def test_the_end_of_a_connection_ends_what_its_socket_proved(stage: MakeStage) -> None:
    """The next one must be shown again."""
    play = await stage()
    alice = await _program(play)
    talk, peer, path = await _connected(alice)
    assert await alice.show(talk) == path

    await alice.app.call("close", number=talk)
    await play.server.call("close", number=peer)
    await play.heard("ConnectionClosed")
    assert await alice.join(path) == UNKNOWN
    talk, _, path = await _connected(alice)
    assert await alice.join(path) == NEEDS_DIALOGUE
    assert await alice.show(talk) == path
    assert (await alice.join(path)).startswith(path)


async def test_a_socket_that_shows_no_connection_of_the_host_is_refused_by_name(
    stage: MakeStage,
) -> None:
    """Of other kinds, in other states, of another network namespace."""
    play = await stage()
    alice, abroad = await _program(play), await _program(play, host="server")
    talk, peer, path = await _connected(alice)
    plain, _ = await play.server.call("listen", address=TARGETS["v4"], port=PORT + 1, mptcp=False)
    there = {"address": TARGETS["v4"], "port": PORT + 1}

    for kind in ("file", "pipe", "datagrams", "local", "unconnected"):
        assert await alice.app.call("show_other", bus=0, kind=kind) == NOT_MULTIPATH, kind
    for mptcp in (False, True):  # it never spoke MPTCP, and it has fallen back
        other, _ = await alice.app.call("connect", **there, mptcp=mptcp)
        await play.server.call("accept", listener=plain)
        assert await alice.show(other) == NOT_MULTIPATH
    listener, _ = await alice.app.call("listen", address="10.0.1.1")
    assert await alice.show(listener) == NOT_MULTIPATH
    foreign, _ = await abroad.app.call("listen", address="10.0.2.2")
    assert await abroad.show(foreign) == FOREIGN

    assert await alice.show(talk) == path  # the control
    await play.server.call("abort", talk=peer)

    async def aborted() -> bool:
        return await alice.show(talk) == NOT_MULTIPATH

    await eventually(aborted)
    # The kernel tells nobody of an abort by the peer; the sweep would find out after seconds.
    assert await alice.join(path) in {UNKNOWN, GONE}


async def test_closing_a_passed_socket_holds_up_nobody(stage: MakeStage) -> None:
    """The daemon has the last copies of more sockets than it has threads to close them.

    Each wants its close to wait until the server has read all; the control is one that its owner
    closes.
    """
    play = await stage()
    alice = await _program(play)
    [waits, *talks] = [(await _connected(alice)).talk for _ in range(CLOSERS + 3)]
    for talk in (waits, *talks):
        await alice.app.call("stream", talk=talk)
    await eventually(lambda: _stuck(alice, (waits, *talks)))
    before = _threads(play)
    assert await alice.app.call("close_slowly", talk=waits, seconds=1) >= 0.9

    play.daemon.pause()
    for talk in talks:
        await alice.app.call("abandon", bus=0, talk=talk, seconds=LINGER)
    play.daemon.resume()

    began = time.monotonic()
    await eventually(lambda: _threads(play) > before)
    while _threads(play) > before:
        asked = time.monotonic()
        await play.viewer.call(ROOT, f"{BUS}.Peer", "Ping")
        assert time.monotonic() - asked < 0.5
        await asyncio.sleep(0.02)
    assert LINGER / 2 < time.monotonic() - began < 2 * LINGER


async def _stuck(program: Program, talks: Iterable[int]) -> bool:
    """Whether nothing more goes into any of the conversations."""
    before = [(await program.app.call("progress", talk=talk))["sent"] for talk in talks]
    await asyncio.sleep(0.1)
    return before == [(await program.app.call("progress", talk=talk))["sent"] for talk in talks]


def _threads(play: Stage) -> int:
    return len(list(Path(f"/proc/{play.daemon.pid}/task").iterdir()))


async def test_what_is_the_hosts_is_not_the_owners(stage: MakeStage) -> None:
    """A reserved port, and a listener of the daemon; each without it is the control."""
    play = await stage()
    alice = await _program(play)
    talk, _, path = await _connected(alice)
    assert await alice.show(talk) == path

    assert await alice.join(path, LocalPort=("q", 1023)) == NEEDS_DIALOGUE
    assert (await alice.join(path, LocalPort=("q", 1024))).startswith(path)
    announce = (path, CONNECTION, "AnnounceAddress", "sa{sv}", "10.0.3.1")
    assert await alice.ask(*announce) == NEEDS_DIALOGUE
    announced = await alice.ask(*announce, Listener=("b", False))
    assert announced.startswith(f"{path}/address/local/")


async def test_without_polkit_the_socket_is_the_proof(stage: MakeStage, bus: PrivateBus) -> None:
    """Of its own connection, and of no other."""
    play = await stage()
    alice = await _program(play)
    shown, kept = [await _connected(alice) for _ in range(2)]
    bus.stop("polkitd")

    assert await alice.show(shown.talk) == shown.path
    assert (await alice.join(shown.path)).startswith(shown.path)
    assert await alice.join(kept.path) == DENIED


async def test_a_rule_can_forbid_it(stage: MakeStage) -> None:
    """As everything that polkit is asked about."""
    play = await stage()
    alice = await _program(play)
    talk, _, path = await _connected(alice)
    other = await alice.app.call("enter")

    async def denied() -> bool:
        return await alice.show(talk) == DENIED

    async def allowed() -> bool:
        return await alice.show(talk) == path

    with _rule(f'if (action.id == "{NAME}.control-own-connections") return polkit.Result.NO;'):
        await eventually(denied)
        assert await alice.show(talk, bus=other) == DENIED
        assert await alice.join(path, bus=other) == NEEDS_DIALOGUE
    await eventually(allowed)
    assert (await alice.join(path)).startswith(path)


@contextmanager
def _rule(body: str) -> Iterator[None]:
    """Have polkitd follow a rule; it notices files that come and go."""
    rule = Path("/etc/polkit-1/rules.d/10-forbidden.rules")
    rule.write_text(f"polkit.addRule(function(action, subject) {{ {body} }});")
    try:
        yield
    finally:
        rule.unlink()


async def test_the_program_of_the_document_works_as_it_stands(stage: MakeStage) -> None:
    """With another D-Bus library than ours."""
    play = await stage()
    listener = await play.listener()
    (text,) = blocks(OWN, "python")
    running = asyncio.create_task(
        asyncio.to_thread(play.lab.run, "client", ["/usr/bin/python3", "-c", text], "alice")
    )
    talk = await play.server.call("accept", listener=listener)
    await play.server.call("recv", talk=talk, count=5)
    await play.server.call("send", talk=talk)

    assert (await running).startswith(f"{ROOT}/connection/1/subflow/")

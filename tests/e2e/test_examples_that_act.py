"""The examples that act do in the kernel what they say, and leave alone what is not theirs."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from dbus_next import Variant

from tests.conftest import show_on_failure
from tests.documents import EXAMPLES
from tests.e2e.conftest import MakeStage
from tests.e2e.examples import SPARE, argv_of, spares
from tests.e2e.stage import MANAGER, PORT, Stage
from tests.lab import dispatcher, network_manager
from tests.lab.app import converse
from tests.lab.client import BUS, NAME, ROOT
from tests.lab.dispatcher import Dispatcher
from tests.lab.hosts import SERVER
from tests.lab.network_manager import NetworkManager
from tests.lab.program import Program
from tests.lab.wait import eventually

# own_connection.py


class Download:
    """own_connection.py on the client, and the server's side of its connection."""

    def __init__(self, it: Stage, directory: Path) -> None:
        self.it = it
        self.copy, self.told = directory / "copy", directory / "told"

    async def start(self, listener: int, *environment: str) -> None:
        """Have it connect, and send it the first bytes."""
        example = argv_of("own_connection.py", SERVER[4], str(PORT), "link2", user=None)
        argv = ["env", *environment, *example]
        with self.copy.open("wb") as out, self.told.open("wb") as told:
            self.process = self.it.lab.popen("client", argv, "alice", stdout=out, stderr=told)
        self.talk = await self.it.server.call("accept", listener=listener)
        await self.send(100)

    async def send(self, count: int) -> None:
        """Send it bytes, and wait until it has them."""
        wanted = self.copy.stat().st_size + count
        await self.it.server.call("send", talk=self.talk, count=count)
        await eventually(lambda: self.copy.stat().st_size == wanted)

    async def end(self) -> None:
        """Have nothing more to send."""
        await self.it.server.call("close", number=self.talk)
        assert await asyncio.to_thread(self.process.wait, 10) == 0


@pytest.mark.usefixtures("people")
async def test_an_application_has_a_spare_path_of_its_own_making(
    stage: MakeStage, tmp_path: Path
) -> None:
    """Another connection has none.  A daemon that is back is shown the socket again."""
    it = await stage()
    listener = await it.listener()
    await it.connection(listener)
    mine = Download(it, tmp_path)
    await mine.start(listener)
    await eventually(lambda: len(spares(it)) == 1)
    await it.agreed()
    ((token, backup),) = spares(it)
    assert backup
    assert len(it.sockets()) == 3

    it.daemon.kill()
    await it.daemon.start()
    await mine.send(100)
    await it.agreed()
    assert spares(it) == [(token, True)]

    it.daemon.kill()
    it.lab.run("client", ["ss", "-K", "src", SPARE])
    await eventually(lambda: spares(it) == [])
    await it.daemon.start()
    await eventually(lambda: spares(it) == [(token, True)])

    await mine.send(100)
    await mine.end()
    assert "no second path" not in mine.told.read_text()


WITHOUT = {
    "no daemon": f"{BUS}.Error.ServiceUnknown: ",
    "no bus": "no system bus: ",
    "no Multipath TCP": f"{NAME}.Error.NotMultipath: ",
}


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("lacking", WITHOUT)
async def test_an_application_works_without(stage: MakeStage, tmp_path: Path, lacking: str) -> None:
    it = await stage()
    if lacking == "no daemon":
        await it.daemon.stop()
    mptcp = lacking != "no Multipath TCP"
    listener, _ = await it.server.call("listen", address=SERVER[4], port=PORT, mptcp=mptcp)
    mine = Download(it, tmp_path)
    nowhere = ["DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere"] if lacking == "no bus" else []
    await mine.start(listener, *nowhere)
    await eventually(lambda: f"no second path: {WITHOUT[lacking]}" in mine.told.read_text())
    await mine.send(100)
    await mine.end()


# policy.py


@pytest.mark.usefixtures("people")
async def test_the_policy_keeps_a_spare_path_for_connections_to_its_ports(
    stage: MakeStage,
) -> None:
    """Others have none.  It goes on with a daemon that is back, and joins nothing twice."""
    it = await stage()
    listener, other = await it.listener(), await it.listener(port=PORT + 1)
    old, _ = await it.connection(listener)
    argv = argv_of("policy.py", "link2", str(PORT), user="dora")

    async with await Program.start(*argv) as policy:
        await eventually(lambda: spares(it) == [(old.token, True)])
        new, _ = await it.connection(listener)
        await it.connection(other, port=PORT + 1)
        both = sorted([(old.token, True), (new.token, True)])
        await eventually(lambda: spares(it) == both)
        await it.agreed()
        assert len(it.sockets()) == 5

        it.daemon.kill()
        await it.daemon.start()
        third, _ = await it.connection(listener)
        all_three = sorted([*both, (third.token, True)])
        await eventually(lambda: spares(it) == all_three)
        await it.agreed()
        assert len(it.sockets()) == 7

        await it.command(f"{ROOT}/plugin/spare", f"{NAME}.Plugin", "Disable", "a{sv}", {})
        assert await policy.ended() == 1
    assert policy.said[-1].startswith("policy.py ends: ")


@pytest.mark.usefixtures("people")
async def test_the_policy_says_why_it_may_not_register(stage: MakeStage) -> None:
    await stage()
    async with await Program.start(*argv_of("policy.py", "link2", str(PORT))) as policy:
        assert await policy.ended() == 1
    assert "org.mptcpd1.register-policy" in policy.said[-1]


# nm-dispatcher.sh


@pytest.fixture
def bus_policies(bus_policies: list[Path]) -> list[Path]:
    """Let NetworkManager and its dispatcher on the bus."""
    return [*bus_policies, network_manager.BUS_POLICY, dispatcher.BUS_POLICY]


@pytest.mark.parametrize(("profile", "backup"), [("mobile 1", True), ("office", False)])
async def test_connections_join_over_an_interface_that_comes_and_leave_it_before_it_goes(
    stage: MakeStage, request: pytest.FixtureRequest, profile: str, backup: bool
) -> None:
    """But not those of the in-kernel path manager, nor those of a policy."""
    it = await stage()
    listener, other = await it.listener(), await it.listener(port=PORT + 1)
    it.viewer.serve(lambda *_: None)
    register = ("RegisterPolicy", "osa{sv}", "/", "lazy", {"Port": Variant("aq", [PORT + 1])})
    await it.viewer.call(ROOT, MANAGER, *register)
    await it.connection(other, port=PORT + 1)
    it.lab.sysctl("client", "net.mptcp.path_manager", "kernel")
    await it.connection(listener)
    it.lab.sysctl("client", "net.mptcp.path_manager", "userspace")
    pairs = [(await it.connection(listener))[0] for _ in range(2)]
    before = it.sockets()
    tokens = {pair.server_token for pair in pairs}
    server = replace(it, host="server")
    manager, scripts = NetworkManager(it.lab, links=[2]), Dispatcher(it.lab)
    show_on_failure(request, "dispatcher", scripts.log.read_text)
    await scripts.start()
    await manager.start()
    await manager.nmcli("connection", "modify", "lab2", "connection.id", profile)
    down, up = (("connection", verb, profile) for verb in ("down", "up"))

    await manager.nmcli(*down)
    await manager.nmcli(*up)
    assert it.sockets() == before  # the control: nobody else joins
    scripts.install(EXAMPLES / "nm-dispatcher.sh")
    joined = sorted((pair.token, backup) for pair in pairs)
    await manager.nmcli(*down)
    for _ in range(2):  # from the second time on there is something to leave
        await manager.nmcli(*up)
        await eventually(lambda: spares(it) == joined)
        assert len(it.sockets()) == len(before) + 2
        await manager.nmcli(*down)
        assert it.sockets() == before
        await eventually(lambda: len([s for s in server.sockets() if s[0] in tokens]) == 2)
    assert "Call failed" not in scripts.log.read_text()  # nothing was tried in vain


def _dispatch(it: Stage, action: str) -> None:
    """Run it as NetworkManager does; of an interface that is gone it tells less."""
    variables = ["CONNECTION_ID=office", "DEVICE_IFACE=link2"]
    known = ["DEVICE_IP_IFACE=link2"] if action != "down" else []
    argv = ["env", *variables, *known, *argv_of("nm-dispatcher.sh", "link2", action, user=None)]
    it.lab.run("client", argv)


async def test_the_dispatcher_script_does_nothing_twice_and_ends_no_last_path(
    stage: MakeStage,
) -> None:
    it = await stage()
    target = {"address": SERVER[4], "port": PORT, "device": "link2"}
    pair = await converse(it.client, it.server, await it.listener(), **target)
    assert pair.token
    await it.agreed()
    for action in ("up", "dhcp4-change", "pre-down", "down"):
        _dispatch(it, action)
        assert spares(it) == [(pair.token, False)]
        assert len(it.sockets()) == 1

    await it.create_subflow(await it.path(pair.token), Interface="link3")
    _dispatch(it, "down")  # the control: now it is not the last one
    await it.agreed()
    assert spares(it) == []
    assert len(it.sockets()) == 1

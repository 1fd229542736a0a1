"""What a real NetworkManager knows of the links shows on the bus, and active_backup acts on it.

Two links are managed by it and the third is not: that one, a daemon without the setting and a time
without NetworkManager are the controls.
"""
# SPDX-License-Identifier: BSD-3-Clause

import itertools
import pwd
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import show_on_failure
from tests.e2e.conftest import MakeStage
from tests.e2e.ctl import Ctl
from tests.e2e.stage import ENDPOINT, INTERFACE, MANAGER, PORT, Stage
from tests.lab.bus import PrivateBus
from tests.lab.client import ROOT, BusClient, BusError
from tests.lab.hosts import LINKS, Lab, address
from tests.lab.network_manager import BUS_POLICY, NAME, NetworkManager
from tests.lab.plugin_files import shipped_plugins, write_configuration
from tests.lab.sandbox import SCRATCH
from tests.lab.wait import eventually

ADDR_ADV = "/org/mptcpd1/plugin/addr_adv"
OF = {link: {address("client", link, family) for family in (4, 6)} for link in LINKS}
NOTHING = {
    "Managed": False,
    "Metered": "unknown",
    "Connectivity": "unknown",
    "Primary": False,
    "DeviceType": "",
    "ConnectionId": "",
}
CONFIGURATION = """
[core]
plugin-dir = {}
load-plugins = active_backup
[plugin active_backup]
interfaces = link1, link2
"""
CARELESS = f"""
<busconfig><policy context="mandatory"><allow own="{NAME}"/></policy></busconfig>
"""
RULES = """
[[rule]]
name = "spared"
strategy = "active_backup"
interfaces = ["link1", "link2"]
match.port = [4242]
settings = { prefer = ["link1"], metered = "backup" }

[[rule]]
name = "used"
strategy = "active_backup"
interfaces = ["link1", "link2"]
settings = { prefer = ["link1"] }
"""


@pytest.fixture
def bus_policies(bus_policies: list[Path]) -> list[Path]:
    """Let NetworkManager on the bus, and anybody have its name, which no system does."""
    careless = SCRATCH / "careless.conf"
    careless.write_text(CARELESS)
    return [*bus_policies, BUS_POLICY, careless]


@pytest.fixture
def manager(request: pytest.FixtureRequest, lab: Lab, bus: PrivateBus) -> NetworkManager:
    """Give NetworkManager on the client, which still wants its start()."""
    del bus  # it must only be there
    found = NetworkManager(lab)
    show_on_failure(request, "NetworkManager", found.log.read_text)
    return found


def _arguments(settings: str = "") -> tuple[str, str]:
    text = CONFIGURATION.format(shipped_plugins()) + settings
    return "--config", str(write_configuration(text))


async def _said(stage: Stage, name: str) -> dict[str, Any]:
    """Give what NetworkManager says of an interface, as its object has it."""
    objects = await stage.viewer.managed_objects()
    shown = next(
        o[INTERFACE] for o in objects.values() if INTERFACE in o and o[INTERFACE]["Name"] == name
    )
    return {key: shown[key] for key in NOTHING}


async def _says(stage: Stage, name: str, **wanted: Any) -> None:
    async def same() -> bool:
        said = await _said(stage, name)
        assert said | wanted == said
        return True

    await eventually(same)


async def _stands_by(stage: Stage, *wanted: int, port: int = PORT) -> None:
    """Wait until both kernels have two subflows to *port*, backups of ours over these links."""
    expected = {address("client", link): link in wanted for link in (1, 2)}

    async def same() -> bool:
        shown = await stage.subflows()
        backups = {local[0]: ours for _, local, (_, to), _, (ours, _) in shown if to == port}
        assert backups == expected
        assert shown == stage.sockets()
        told = replace(stage, host="server").sockets()
        heard = {at[0]: theirs for _, (_, to), at, _, (_, theirs) in told if to == port}
        assert heard == expected
        return True

    await eventually(same)


async def _metered(manager: NetworkManager, link: int) -> None:
    """Have data cost over this link and not over the other."""
    for other in (1, 2):
        await manager.set(other, "connection.metered", "yes" if other == link else "no")


async def test_a_metered_link_stands_by_for_as_long_as_it_is_metered(
    stage: MakeStage, manager: NetworkManager
) -> None:
    it = await stage(*_arguments("metered = backup\nprefer = link1\n"))
    await it.connection(await it.listener())
    await _stands_by(it, 2)  # the control: nobody knows what it costs
    await manager.start()
    await _metered(manager, 1)
    await _stands_by(it, 1)

    await _metered(manager, 2)
    await _stands_by(it, 2)
    await _metered(manager, 1)
    await _stands_by(it, 1)

    await manager.stop()
    await _stands_by(it, 2)
    await _says(it, "link1", **NOTHING)
    await manager.start()
    await _stands_by(it, 1)


async def test_without_the_setting_it_does_not_matter_what_data_costs(
    stage: MakeStage, manager: NetworkManager
) -> None:
    """The control."""
    await manager.start()
    await _metered(manager, 1)
    it = await stage(*_arguments("prefer = link1\n"))
    await it.connection(await it.listener())
    await _says(it, "link1", Metered="yes")
    await _stands_by(it, 2)
    await manager.set(1, "connection.metered", "no")
    await _says(it, "link1", Metered="no")
    await _stands_by(it, 2)


async def test_rules_say_for_which_connections_it_matters(
    stage: MakeStage, manager: NetworkManager
) -> None:
    (SCRATCH / "metered.toml").write_text(RULES)
    text = CONFIGURATION.replace("active_backup", "rules", 1).partition("[plugin")[0]
    text += f"[plugin rules]\nfile = {SCRATCH}/metered.toml\n"
    await manager.start()
    await _metered(manager, 1)
    it = await stage("--config", str(write_configuration(text.format(shipped_plugins()))))
    for port in (PORT, 8080):
        await it.connection(await it.listener(port=port), port=port)
    await _stands_by(it, 1)
    await _stands_by(it, 2, port=8080)  # the control
    await _metered(manager, 2)
    await _stands_by(it, 2)
    await _stands_by(it, 2, port=8080)


async def test_what_networkmanager_knows_shows_and_changes(
    stage: MakeStage, manager: NetworkManager
) -> None:
    it = await stage()
    assert await _said(it, "link1") == NOTHING
    await manager.start()
    known = NOTHING | {"Managed": True, "DeviceType": "veth", "Connectivity": "limited"}
    await _says(it, "link1", **known | {"Metered": "guess-no", "ConnectionId": "lab1"})
    await _says(it, "link3", **NOTHING | {"DeviceType": "veth"})

    await manager.set(1, "ipv4.gateway", address("server", 1))
    await _says(it, "link1", Primary=True)
    await _says(it, "link2", Primary=False)
    await manager.set(1, "ipv4.gateway", "", "connection.id", "Café")
    await _says(it, "link1", Primary=False, ConnectionId="Café")
    await manager.nmcli("device", "set", "link2", "managed", "no")
    await _says(it, "link2", Managed=False, ConnectionId="")


async def test_one_that_hangs_holds_up_nobody(stage: MakeStage, manager: NetworkManager) -> None:
    await manager.start()
    await manager.set(1, "connection.metered", "yes")
    manager.signal(signal.SIGSTOP)
    it = await stage()
    assert await _said(it, "link1") == NOTHING
    manager.signal(signal.SIGCONT)
    await _says(it, "link1", Metered="yes")


@pytest.mark.usefixtures("people")
async def test_nobody_but_root_is_believed(stage: MakeStage, manager: NetworkManager) -> None:
    it = await stage()
    alice = pwd.getpwnam("alice").pw_uid
    async with await BusClient.connect("alice") as client:
        await client.bus_call("RequestName", "su", NAME, 0)
        await eventually(
            lambda: f"only root is believed, and uid {alice} has" in it.daemon.log.read_text()
        )
        assert await _said(it, "link1") == NOTHING
    await manager.start()
    await manager.set(1, "connection.metered", "yes")
    await _says(it, "link1", Metered="yes")


# Its endpoints


MPTCP_FLAGS = "connection.mptcp-flags"
SIGNAL_ONLY = "enabled,signal,also-without-default-route"


def _endpoints(stage: Stage) -> dict[str, tuple[int, str]]:
    """Give ID and flags of the endpoints by address, as ip(8) shows them."""
    found = {}
    for line in stage.lab.ip("client", "mptcp", "endpoint", "show").splitlines():
        at, _, number, *words = line.split()
        found[at] = int(number), " ".join(words)
    return found


async def _origins(stage: Stage) -> dict[str, str]:
    objects = await stage.viewer.managed_objects()
    shown = [o[ENDPOINT] for o in objects.values() if ENDPOINT in o]
    return {e["Address"]: e["Origin"] for e in shown}


async def _path_of(stage: Stage, address: str) -> str:
    objects = await stage.viewer.managed_objects()
    return next(
        p for p, o in objects.items() if ENDPOINT in o and o[ENDPOINT]["Address"] == address
    )


async def test_endpoints_of_networkmanager_are_its_own_until_it_is_forced(
    stage: MakeStage, manager: NetworkManager
) -> None:
    it = await stage(path_manager="kernel")
    await manager.start()
    await manager.nmcli("connection", "modify", "lab1", MPTCP_FLAGS, SIGNAL_ONLY)
    await manager.nmcli("connection", "up", "lab1")
    theirs = set(OF[1])

    async def seen() -> bool:
        return (await _origins(it)).get("10.0.1.1") == "networkmanager"

    await eventually(seen)
    await eventually(lambda: _endpoints(it).keys() == theirs)  # IPv6 comes later
    it.lab.ip(
        "client", "mptcp", "endpoint", "add", "10.0.2.1", "port", "90", "signal", "dev", "link2"
    )
    it.lab.ip("client", "mptcp", "endpoint", "add", "10.0.3.1", "subflow", "dev", "link3")
    ours = await it.command(
        ROOT,
        MANAGER,
        "AddEndpoint",
        "sasa{sv}",
        address("client", 2, 6),
        ["subflow"],
        {"Interface": "link2"},
    )
    expected = dict.fromkeys(theirs, "networkmanager") | {"10.0.2.1": "other", "10.0.3.1": "other"}

    async def known() -> bool:
        assert await _origins(it) == expected | {address("client", 2, 6): "mptcpd"}
        return True

    await eventually(known)
    path = await _path_of(it, "10.0.1.1")
    backup = ["signal", "backup"]
    with pytest.raises(BusError, match=r"NotOurs.* connection\.mptcp-flags"):
        await it.command(path, ENDPOINT, "Remove", "a{sv}", {})
    with pytest.raises(BusError, match=r"NotOurs"):
        await it.command(path, ENDPOINT, "SetFlags", "asa{sv}", backup, {})
    ctl = Ctl(it.lab)
    assert "add the word force" in ctl.refused("endpoint", "delete", "10.0.1.1")[1]
    await it.command(
        ours, ENDPOINT, "SetFlags", "asa{sv}", ["subflow", "backup"], {}
    )  # the control
    before = _endpoints(it)
    await it.command(ROOT, MANAGER, "FlushEndpoints", "a{sv}", {})
    assert _endpoints(it) == {a: before[a] for a in theirs}

    await it.command(path, ENDPOINT, "SetFlags", "asa{sv}", backup, {"Force": True})
    assert _endpoints(it)["10.0.1.1"][1] == "signal backup dev link1"
    ctl.said("endpoint", "delete", "10.0.1.1", "force")
    assert "10.0.1.1" not in _endpoints(it)
    await manager.stop()

    async def nobodys() -> bool:
        return set((await _origins(it)).values()) == {"other"}

    await eventually(nobodys)
    await it.command(ROOT, MANAGER, "FlushEndpoints", "a{sv}", {})
    assert not _endpoints(it)


async def _with_addr_adv(stage: MakeStage, settings: str = "") -> Stage:
    text = f"[core]\nplugin-dir = {shipped_plugins()}\nload-plugins = addr_adv\n{settings}"
    return await stage("--config", str(write_configuration(text)), path_manager="kernel")


async def test_addr_adv_leaves_networkmanagers_endpoints_alone_and_says_so_once(
    stage: MakeStage, manager: NetworkManager
) -> None:
    await manager.start()
    await manager.set(1, MPTCP_FLAGS, SIGNAL_ONLY)
    it = await _with_addr_adv(stage)

    async def settled() -> bool:
        problem = await it.viewer.get(ADDR_ADV, "org.mptcpd1.Plugin", "Problem")
        assert "NetworkManager has endpoints on link1, too" in problem
        assert _endpoints(it).keys() == OF[1] | OF[2] | OF[3]
        return True

    await eventually(settled)
    before = _endpoints(it)
    it.lab.ip("client", "address", "add", "10.0.250.1/24", "dev", "link3")
    await eventually(lambda: "10.0.250.1" in _endpoints(it))  # it has looked again
    it.lab.ip("client", "address", "delete", "10.0.250.1/24", "dev", "link3")
    await eventually(lambda: _endpoints(it) == before)
    assert {flags for a, (_, flags) in before.items() if a in OF[1]} == {"signal dev link1"}
    assert {flags for a, (_, flags) in before.items() if a in OF[2]} == {"subflow dev link2"}
    assert it.daemon.log.read_text().count("NetworkManager has endpoints") == 1


async def test_endpoints_of_addr_adv_that_networkmanager_replaces_are_left_to_it(
    stage: MakeStage, manager: NetworkManager
) -> None:
    """What it did not set itself it deletes on its devices when it looks at them again."""
    it = await _with_addr_adv(stage)
    elsewhere = dict.fromkeys(OF[2] | OF[3], "mptcpd")

    async def ours() -> bool:
        return await _origins(it) == elsewhere | dict.fromkeys(OF[1], "mptcpd")

    await eventually(ours)
    await manager.start()
    await manager.set(1, MPTCP_FLAGS, SIGNAL_ONLY)
    words = itertools.cycle(("yes", "no"))

    async def settled() -> bool:
        await manager.set(1, "connection.metered", next(words))  # it looks again, and tells
        origins = await _origins(it)
        return origins.get("10.0.1.1") == "networkmanager" and elsewhere.items() <= origins.items()

    await eventually(settled)
    assert _endpoints(it)["10.0.1.1"][1] == "signal dev link1"
    assert it.daemon.log.read_text().count("NetworkManager has endpoints") == 1


async def test_addr_adv_never_touches_what_is_networkmanagers_where_it_leaves_that(
    stage: MakeStage, manager: NetworkManager
) -> None:
    """The control is above: without the setting, every link has endpoints."""
    await manager.start()
    it = await _with_addr_adv(stage, "[plugin addr_adv]\nmanaged = leave\n")

    await eventually(lambda: _endpoints(it).keys() == OF[3])
    # The kernel gives IDs in order, so there was never another endpoint before these.
    assert {number for number, _ in _endpoints(it).values()} == {1, 2}

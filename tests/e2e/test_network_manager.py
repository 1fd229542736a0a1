"""What a real NetworkManager knows of the links shows on the bus, and active_backup acts on it.

Two links are managed by it and the third is not: that one, a daemon without the setting and a time
without NetworkManager are the controls.
"""
# SPDX-License-Identifier: BSD-3-Clause

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import show_on_failure
from tests.e2e.conftest import MakeStage
from tests.e2e.stage import INTERFACE, Stage
from tests.lab.bus import PrivateBus
from tests.lab.hosts import Lab, address
from tests.lab.network_manager import BUS_POLICY, NetworkManager
from tests.lab.plugin_files import shipped_plugins, write_configuration
from tests.lab.wait import eventually

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


@pytest.fixture
def bus_policies(bus_policies: list[Path]) -> list[Path]:
    """Let NetworkManager on the bus."""
    return [*bus_policies, BUS_POLICY]


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


async def _stands_by(stage: Stage, *wanted: int) -> None:
    """Wait until there are two subflows, and those over these links are backups of ours."""
    expected = {address("client", link): link in wanted for link in (1, 2)}

    async def same() -> bool:
        shown = await stage.subflows()
        assert {local[0]: backup[0] for _, local, _, _, backup in shown} == expected
        assert shown == stage.sockets()
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

"""The installed service in its sandbox does all that it is for, and asks the kernel for no more.

Where a call that the unit forbids would only fail, here it ends the service, see systemd.exec(5).
"""
# SPDX-License-Identifier: BSD-3-Clause

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import CONNECTION, MANAGER, SUBFLOW, Stage
from tests.lab.client import ROOT
from tests.lab.hosts import address
from tests.lab.wait import eventually
from tests.system.service import Service

pytestmark = pytest.mark.only_booted

DEADLY = "SystemCallErrorNumber=kill"
PLUGINS = "/usr/lib/mptcpd-dbus"


async def _again(play: Stage, *lines: str) -> Service:
    service = play.daemon
    assert isinstance(service, Service)
    await service.stop()
    service.unit = ["Restart=no", *lines]
    await service.start("--plugin-dir", PLUGINS)
    return service


async def test_nothing_that_it_does_is_forbidden(stage: MakeStage) -> None:
    """Netlink, a sysctl, listeners, low ports, the plugins that come along, statistics."""
    play = await stage()
    service = await _again(play, DEADLY)
    pid = service.main_pid
    play.lab.ip("server", "mptcp", "limits", "set", "subflow", 8, "add_addr_accepted", 8)
    listener = await play.listener()
    _, path = await play.connection(listener)

    there, announced = address("client", 2), {"Port": 443}
    await play.command(path, CONNECTION, "AnnounceAddress", "sa{sv}", there, announced)
    subflow = await play.create_subflow(path, LocalAddress=address("client", 3))
    await play.command(subflow, SUBFLOW, "SetBackup", "ba{sv}", True, {})
    for place, interface in ((ROOT, MANAGER), (path, CONNECTION), (subflow, SUBFLOW)):
        await play.command(place, interface, "GetStatistics")
    for name in ("kernel", "userspace"):
        await play.command(ROOT, MANAGER, "SetPathManager", "sa{sv}", name, {})
    await play.command(ROOT, MANAGER, "AddEndpoint", "sasa{sv}", there, ["signal"], {"Port": 444})
    play.lab.cut(3)
    play.lab.restore(3)
    service.reload()
    await play.agreed()
    assert service.main_pid == pid
    await eventually(lambda: "active_backup runs" in service.log.read_text())


async def test_what_is_forbidden_would_end_it(stage: MakeStage) -> None:
    play = await stage()
    with pytest.raises(RuntimeError, match="fatal signal"):
        await _again(play, DEADLY, "SystemCallFilter=~sendto")
    await eventually(lambda: "status=31/SYS" in play.daemon.log.read_text())

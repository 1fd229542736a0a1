"""The installed service where the kernel offers less: it says what is gone, and does the rest.

The kernel is this machine's all the time.  Its sysctls are hidden by systemd.exec(5), its version
by a module that Python loads at the start.  What older kernels' messages lack, recorded ones show.
"""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import dataclass

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import MANAGER
from tests.lab.client import ROOT
from tests.lab.hosts import address
from tests.system.product import UNIT
from tests.system.service import Service

pytestmark = pytest.mark.only_booted

DIRECTORY = "/proc/sys/net/mptcp"
ALL = {"userspace-path-manager", "path-manager-sysctl", "listener-events"}
_OLD_RELEASE = """\
import os
from collections import namedtuple

_Names = namedtuple("_Names", "sysname nodename release version machine")
_there = tuple(os.uname())
os.uname = lambda: _Names(*_there[:2], "6.1.0-test", *_there[3:])
"""


@dataclass(frozen=True)
class Mask:
    """What is hidden, and what is gone with it."""

    gone: set[str]
    sysctls: tuple[str, ...] = ()
    """Those that are left; all if there are none here."""

    old_release: bool = False
    path_manager: str = "userspace"


MASKS = {
    "sysctls of 6.12": Mask({"path-manager-sysctl"}, ("enabled", "pm_type", "scheduler")),
    "sysctls of 6.1": Mask({"path-manager-sysctl"}, ("enabled", "pm_type")),
    "sysctls of 5.18": Mask(
        {"path-manager-sysctl", "userspace-path-manager"}, ("enabled",), path_manager=""
    ),
    "version 6.1": Mask({"listener-events"}, old_release=True),
    "all of 6.1": Mask({"path-manager-sysctl", "listener-events"}, ("enabled", "pm_type"), True),
}


@pytest.mark.parametrize("name", MASKS)
async def test_it_starts_says_what_is_missing_and_does_the_rest(
    stage: MakeStage, name: str
) -> None:
    mask = MASKS[name]
    play = await stage()
    service = play.daemon
    assert isinstance(service, Service)
    assert set(await play.viewer.get(ROOT, MANAGER, "Features")) == ALL
    assert await play.viewer.get(ROOT, MANAGER, "PathManager") == "userspace"
    assert "this kernel has no" not in service.log.read_text()

    await service.stop()
    if mask.sysctls:
        files = " ".join(f"{DIRECTORY}/{sysctl}" for sysctl in mask.sysctls)
        hidden = ("ReadWritePaths=", f"TemporaryFileSystem={DIRECTORY}", f"BindPaths={files}")
        service.unit = [*hidden]
    if mask.old_release:
        (packages,) = service.machine.root.glob("usr/libexec/mptcpd-dbus/lib/*/site-packages")
        (packages / "old_release.py").write_text(_OLD_RELEASE)
        (packages / "old_release.pth").write_text("import old_release\n")
    await service.start()

    assert set(await play.viewer.get(ROOT, MANAGER, "Features")) == ALL - mask.gone
    log = service.machine.journal(f"--unit={UNIT}")
    assert {line.partition("this kernel has no ")[2] for line in log.splitlines()} - {
        ""
    } == mask.gone
    assert await play.viewer.get(ROOT, MANAGER, "PathManager") == mask.path_manager
    _, path = await play.connection(await play.listener())
    await play.create_subflow(path, LocalAddress=address("client", 2))
    await play.agreed()
    if mask.path_manager:
        await play.command(ROOT, MANAGER, "SetPathManager", "sa{sv}", "kernel", {})
        assert play.lab.sysctl("client", "net.mptcp.pm_type") == "0"
    assert service.is_active()

"""An installed service is gone and back, in every way that happens to one; connections live on."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mptcpd_dbus import __version__
from tests import figures
from tests.e2e.conftest import MakeStage
from tests.e2e.stage import Stage
from tests.lab.hosts import address
from tests.lab.wait import eventually
from tests.system.product import UNIT, newer_package
from tests.system.service import Service

pytestmark = pytest.mark.only_booted

LIVE = 200
WATCHDOG_SECONDS = 30


async def _crash(service: Service) -> None:
    service.crash()


async def _hang(service: Service) -> None:
    service.pause()


async def _restart(service: Service) -> None:
    await service.restart()


async def _upgrade(service: Service) -> None:
    newer = f"{__version__}+newer"
    argv = ["apt-get", "install", "--yes", newer_package(service.machine, newer)]
    await asyncio.to_thread(service.machine.run, *argv)
    version = ["dpkg-query", "--show", "--showformat=${Version}", "mptcpd-dbus"]
    assert service.machine.run(*version) == newer


WAYS: dict[str, tuple[Callable[[Service], Awaitable[None]], float, str]] = {
    "killed": (_crash, 5, "code=killed, status=9/KILL"),
    "hung": (_hang, WATCHDOG_SECONDS + 5, f"Watchdog timeout (limit {WATCHDOG_SECONDS}s)!"),
    "restarted": (_restart, 5, "Stopped mptcpd-dbus.service"),
    "upgraded": (_upgrade, 60, "Stopped mptcpd-dbus.service"),
}


@pytest.mark.parametrize("way", WAYS)
async def test_it_is_back_and_shows_the_connections_that_lived_on(
    stage: MakeStage, way: str
) -> None:
    """The same, with the same subflows, in ss(8) and on the bus; and it hears what comes then."""
    end, within, said = WAYS[way]
    play = await stage()
    service = play.daemon
    assert isinstance(service, Service)
    listener = await play.listener()
    await play.many(listener, LIVE)
    paths = await eventually(lambda: _paths(play, LIVE), within=10)
    for path in paths.values():
        await play.create_subflow(path, LocalAddress=address("client", 2))
    before, published, pid = play.sockets(), await play.subflows(), service.main_pid
    assert len(before) == 2 * LIVE
    assert said not in service.machine.journal(f"--unit={UNIT}")
    loop = asyncio.get_running_loop()
    started = loop.time()

    await end(service)
    await eventually(lambda: service.main_pid != pid and service.is_active(), within)
    figures.tell(f"service {way}: up again after {loop.time() - started:.1f} s")
    assert said in service.machine.journal(f"--unit={UNIT}")
    assert play.sockets() == before
    assert await play.subflows() == published
    assert (await _paths(play, LIVE)).keys() == paths.keys()
    pair, _ = await play.connection(listener)
    await play.agreed()
    assert pair.token not in paths


async def _paths(play: Stage, count: int) -> dict[int, str]:
    listed = await play.viewer.call(
        "/org/mptcpd1", "org.mptcpd1.Manager", "ListConnections", "a{sv}uu", {}, 0, 0
    )
    assert len(listed) == count
    return {token: path for path, token in listed}

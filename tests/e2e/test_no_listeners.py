"""A daemon that may have no sockets of the internet: what it says, does, and cannot do."""
# SPDX-License-Identifier: BSD-3-Clause

import re

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import ADDRESS, CONNECTION, PORT, SUBFLOW, Stage
from tests.lab.client import BusError
from tests.lab.hosts import address
from tests.lab.plugin_files import shipped_plugins
from tests.lab.wait import eventually

EVERYWHERE = "0.0.0.0"  # noqa: S104 # in a network namespace
WHY = "this service may not listen (no-listeners.conf)"
pytestmark = pytest.mark.also_booted
both = pytest.mark.parametrize("listens", [False, True])


@both
async def test_the_daemon_says_at_its_start_whether_it_may_listen(
    stage: MakeStage, listens: bool
) -> None:
    it = await stage(listens=listens)

    may, may_not = "it may listen on announced addresses", "it may not listen"
    await eventually(lambda: re.search(f"{may}|{may_not}", it.daemon.log.read_text()))
    assert (may in it.daemon.log.read_text()) == listens


@both
async def test_what_needs_a_listener_is_refused_with_what_to_do_instead(
    stage: MakeStage, listens: bool
) -> None:
    it = await stage(host="server", listens=listens)
    _, path = await it.connection(await it.listener())
    announce = (path, CONNECTION, "AnnounceAddress", "sa{sv}", address("server", 2))

    if listens:
        await it.command(*announce, {"Port": 7777})
    else:
        with pytest.raises(BusError, match="Listener=false") as refused:
            await it.command(*announce, {"Port": 7777})
        assert WHY in refused.value.text
        assert refused.value.name.endswith(".KernelRefused")
    await it.command(*announce, {"Port": 7778, "Listener": False})
    await it.agreed()


@both
async def test_a_plugin_that_announces_tells_the_reason(stage: MakeStage, listens: bool) -> None:
    """Where the application listens on one address; it would be heard on all."""
    sspi = ("--plugin-dir", str(shipped_plugins()), "--load-plugins", "sspi", "--debug")
    it = await stage(*sspi, host="server", listens=listens)
    everywhere = await it.listener(EVERYWHERE, PORT + 1)
    _, path = await it.connection(everywhere, port=PORT + 1)
    await eventually(lambda: _announced(it, path))
    assert WHY not in it.daemon.log.read_text()

    await it.connection(await it.listener())
    if not listens:
        await eventually(lambda: WHY in it.daemon.log.read_text())
    await it.agreed()


async def _announced(it: Stage, path: str) -> bool:
    objects = await it.viewer.managed_objects()
    return any(p.startswith(f"{path}/") and ADDRESS in its for p, its in objects.items())


async def test_a_client_has_all_it_needs(stage: MakeStage) -> None:
    it = await stage(listens=False)
    _, path = await it.connection(await it.listener())

    subflow = await it.create_subflow(path, LocalAddress=address("client", 2))
    await it.agreed()
    await it.command(subflow, SUBFLOW, "SetBackup", "ba{sv}", True, {})
    await it.command(subflow, SUBFLOW, "Destroy", "a{sv}", {"Announce": True})
    await it.agreed()

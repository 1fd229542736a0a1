"""The stage as a fixture."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.e2e.stage import Stage
from tests.lab.client import BusClient
from tests.lab.daemon import Daemon
from tests.lab.hosts import Host, Lab

MakeStage = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def stage(lab: Lab, daemon: Callable[..., Daemon]) -> AsyncIterator[MakeStage]:
    """Give a maker of stages: host, the client's path manager, arguments of the daemon."""
    viewers: list[BusClient] = []

    async def make(
        *arguments: str, host: Host = "client", path_manager: str = "userspace"
    ) -> Stage:
        lab.sysctl(host, "net.mptcp.path_manager", path_manager)
        process = daemon(host)
        await process.start(*arguments)
        viewer = await BusClient.connect()
        viewers.append(viewer)
        await viewer.listen()
        return Stage(lab, host, process, viewer, lab.app("client"), lab.app("server"))

    yield make
    for viewer in viewers:
        viewer.close()

"""The stage as a fixture, with plugins in the daemon or beside it."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.e2e.plugin_program import beside_the_daemon
from tests.e2e.stage import Stage
from tests.lab.client import BusClient
from tests.lab.daemon import Daemon
from tests.lab.hosts import Host, Lab

MakeStage = Callable[..., Awaitable[Stage]]

IN_THE_DAEMON, BESIDE_IT = "in the daemon", "run-plugin"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that are marked so with their plugin in the daemon and as a program."""
    if metafunc.definition.get_closest_marker("both_ways") and "way" in metafunc.fixturenames:
        metafunc.parametrize("way", [IN_THE_DAEMON, BESIDE_IT], indirect=True)


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    """Give where the plugin runs."""
    return str(getattr(request, "param", IN_THE_DAEMON))


@pytest.fixture
async def stage(lab: Lab, daemon: Callable[..., Daemon], way: str) -> AsyncIterator[MakeStage]:
    """Give a maker of stages: host, the client's path manager, arguments of the daemon."""
    viewers: list[BusClient] = []

    async def make(
        *arguments: str, host: Host = "client", path_manager: str = "userspace"
    ) -> Stage:
        lab.sysctl(host, "net.mptcp.path_manager", path_manager)
        process = daemon(host)
        program = None
        if way == BESIDE_IT:
            program, others = beside_the_daemon(lab, host, process.log, arguments)
            arguments = tuple(others)
        await process.start(*arguments)
        viewer = await BusClient.connect()
        viewers.append(viewer)
        await viewer.listen()
        if program is not None:
            await program.start(viewer)
        return Stage(lab, host, process, viewer, lab.app("client"), lab.app("server"), program)

    yield make
    for viewer in viewers:
        viewer.close()

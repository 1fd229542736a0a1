"""The stage as a fixture, with plugins in the daemon or beside it."""
# SPDX-License-Identifier: BSD-3-Clause

import itertools
import os
import pwd
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.e2e.plugin_program import beside_the_daemon
from tests.e2e.stage import Stage
from tests.lab import users
from tests.lab.client import BusClient
from tests.lab.daemon import Daemon
from tests.lab.hosts import Host, Lab
from tests.lab.sandbox import SCRATCH, initial_root

MakeStage = Callable[..., Awaitable[Stage]]

_numbers = itertools.count(1)

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
def memory(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the directory that the service manager keeps for the daemon until the next boot."""
    directory = SCRATCH / f"runtime-{next(_numbers)}"
    directory.mkdir(mode=0o700)
    if initial_root():
        users.install()
        user = pwd.getpwnam(users.DAEMON)
        os.chown(directory, user.pw_uid, user.pw_gid)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(directory))
    return directory


@pytest.fixture
async def stage(lab: Lab, daemon: Callable[..., Daemon], way: str) -> AsyncIterator[MakeStage]:
    """Give a maker of stages: host, the client's path manager, arguments of the daemon."""
    viewers: list[BusClient] = []

    async def make(
        *arguments: str,
        host: Host = "client",
        path_manager: str = "userspace",
        listens: bool = True,
    ) -> Stage:
        lab.sysctl(host, "net.mptcp.path_manager", path_manager)
        process = daemon(host)
        program = None
        if way == BESIDE_IT:
            program, others = beside_the_daemon(lab, host, process.log, arguments)
            arguments = tuple(others)
        await process.start(*arguments, listens=listens)
        viewer = await BusClient.connect()
        viewers.append(viewer)
        await viewer.listen()
        if program is not None:
            await program.start(viewer)
        return Stage(lab, host, process, viewer, lab.app("client"), lab.app("server"), program)

    yield make
    for viewer in viewers:
        viewer.close()

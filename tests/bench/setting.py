"""What every benchmark plays on: the lab, a bus, the daemon on the client, and a subscriber."""
# SPDX-License-Identifier: BSD-3-Clause

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.e2e.stage import MANAGER, Stage
from tests.lab import users
from tests.lab.bus import PrivateBus
from tests.lab.client import BusClient
from tests.lab.daemon import Daemon
from tests.lab.hosts import Lab
from tests.lab.sandbox import initial_root, readable_repository


@asynccontextmanager
async def setting(*arguments: str) -> AsyncIterator[Stage]:
    """Start the daemon with *arguments*, under the userspace path manager."""
    repository = readable_repository()
    if initial_root():
        users.install()
    policies = sorted((repository / "dbus").glob("*.conf")) if initial_root() else []
    with (
        tempfile.TemporaryDirectory() as scratch,
        PrivateBus(policies=policies),
        Lab() as lab,
    ):
        lab.sysctl("client", "net.mptcp.path_manager", "userspace")
        # Or the client would search for free ports longer with each round.
        lab.sysctl("client", "net.ipv4.ip_local_port_range", "1024 65535")
        daemon = Daemon(lab, "client", Path(scratch, "daemon.log"))
        daemon.log.touch()
        await daemon.start(*arguments)
        async with await BusClient.connect() as viewer:
            await viewer.listen(f"type='signal',interface='{MANAGER}'")
            yield Stage(lab, "client", daemon, viewer, lab.app("client"), lab.app("server"))
        await daemon.stop()

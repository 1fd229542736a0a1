"""What `systemctl status` shows, and that it follows what happens."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable

from tests.e2e.stage import PORT
from tests.lab.app import converse
from tests.lab.daemon import Daemon
from tests.lab.hosts import SERVER, Lab
from tests.lab.plugin_files import shipped_plugins
from tests.lab.supervisor import Supervisor


async def test_the_service_manager_is_told_how_many_connections_there_are_and_who_decides(
    lab: Lab, daemon: Callable[..., Daemon]
) -> None:
    """With the watchdog's food, so that nobody wakes up for it."""
    lab.sysctl("client", "net.mptcp.path_manager", "userspace")
    supervisor, process = Supervisor(), daemon()
    plugins = ("--plugin-dir", str(shipped_plugins()), "--load-plugins", "sspi")
    await process.start(*plugins, environment=supervisor.environment)
    decided = "new ones get the userspace path manager: decided by sspi"
    assert await supervisor.hear() == f"READY=1\nSTATUS=0 connections; {decided}"

    client, server = lab.app("client"), lab.app("server")
    listener, _ = await server.call("listen", address=SERVER[4], port=PORT)
    await converse(client, server, listener, address=SERVER[4], port=PORT)
    while (said := await supervisor.hear()) != f"WATCHDOG=1\nSTATUS=1 connection; {decided}":
        assert said == f"WATCHDOG=1\nSTATUS=0 connections; {decided}"

    assert await process.stop() == 0
    supervisor.close()

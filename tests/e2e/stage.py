"""A stage: the lab, a daemon on one host, an application on each, and a client on the bus.

Everything is asked as a stranger would: over D-Bus, of the applications, and of ip(8) and ss(8).
"""
# SPDX-License-Identifier: BSD-3-Clause

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.e2e.plugin_program import PLUGIN, PluginProgram
from tests.lab.app import App, Pair, converse
from tests.lab.client import ROOT, BusClient, Signal
from tests.lab.daemon import Daemon
from tests.lab.hosts import SERVER, Host, Lab
from tests.lab.wait import eventually

MANAGER = "org.mptcpd1.Manager"
CONNECTION = "org.mptcpd1.Connection"
SUBFLOW = "org.mptcpd1.Subflow"
ADDRESS = "org.mptcpd1.Address"
ENDPOINT = "org.mptcpd1.Endpoint"
INTERFACE = "org.mptcpd1.Interface"
PORT = 4242

# What connect() is given for each way of speaking with the server's one address.
TARGETS = {"v4": SERVER[4], "v6": SERVER[6], "mapped": f"::ffff:{SERVER[4]}"}


@dataclass
class Stage:
    """What a test plays on."""

    lab: Lab
    host: Host
    daemon: Daemon
    viewer: BusClient
    client: App
    server: App
    program: PluginProgram | None = None
    """What decides in the place of a plugin of the daemon."""

    async def disable(self, plugin: str) -> None:
        """Have a plugin, or the program in its place, decide no more."""
        await self.command(f"{ROOT}/plugin/{plugin}", PLUGIN, "Disable", "a{sv}", {})

    async def enable(self, plugin: str) -> None:
        """Have it decide again."""
        if self.program is not None:
            await self.program.start(self.viewer)
        else:
            await self.command(f"{ROOT}/plugin/{plugin}", PLUGIN, "Enable", "a{sv}", {})

    async def listener(self, address: str = SERVER[4], port: int = PORT) -> int:
        """Have the server listen."""
        number, _ = await self.server.call("listen", address=address, port=port)
        return int(number)

    async def connection(
        self, listener: int, target: str = SERVER[4], port: int = PORT
    ) -> tuple[Pair, str]:
        """Connect the client to the server; give the pair and the object path on our host."""
        pair = await converse(self.client, self.server, listener, address=target, port=port)
        token = pair.token if self.host == "client" else pair.server_token
        assert token, "the connection is not Multipath TCP"

        async def published() -> str:
            return await self.path(token)

        return pair, await eventually(published, within=1)

    async def many(
        self, listener: int, count: int, port: int = PORT
    ) -> tuple[list[int], list[int]]:
        """Make connections that are established at both ends; give the talks of both."""
        talks = await self.client.call(
            "connect_many", count=count, address=SERVER[4], port=port, limit=60
        )
        accepted = await self.server.call("accept_many", listener=listener, count=count, limit=60)
        await self.client.call("send_each", talks=talks, limit=60)
        await self.server.call("recv_each", talks=accepted, limit=60)
        await self.server.call("send_each", talks=accepted, limit=60)
        await self.client.call("recv_each", talks=talks, limit=60)
        return talks, accepted

    async def path(self, token: int) -> str:
        """Find a connection by its token; "" while there is none."""
        found = await self.viewer.call(ROOT, MANAGER, "ListConnections", "a{sv}uu", {}, 0, 0)
        return next((path for path, known in found if known == token), "")

    async def heard(
        self, member: str, wanted: Callable[[list[Any]], bool] = lambda _: True, within: float = 1
    ) -> list[Any]:
        """Wait for a signal of the manager; give its arguments.

        Not for long: the sweep would tell after five seconds what an event did not.
        """

        def right(signal: Signal) -> bool:
            return (signal.interface, signal.member) == (MANAGER, member) and wanted(signal.body)

        return (await self.viewer.signal(right, within)).body

    async def create_subflow(
        self, path: str, address: str = "", port: int = 0, **options: Any
    ) -> str:
        """Call CreateSubflow."""
        answer = await self.command(
            path, CONNECTION, "CreateSubflow", "sqa{sv}", address, port, options
        )
        return str(answer)

    async def command(
        self, path: str, interface: str, member: str, signature: str = "", *arguments: Any
    ) -> Any:
        """Call a method of ours, its options as plain values."""
        given = [_variants(a) if isinstance(a, dict) else a for a in arguments]
        return await self.viewer.call(path, interface, member, signature, *given, within=25)

    async def agreed(self) -> None:
        """Wait until the objects are what ss(8) shows: `ss -M` connections, `ss -t` subflows."""

        async def same() -> bool:
            assert await self.tokens_shown() == self.tokens()
            objects, sockets = await self.subflows(), self.sockets()
            assert objects == sockets, f"{objects - sockets} {sockets - objects}"
            return True

        await eventually(same)

    async def tokens_shown(self) -> set[int]:
        """Give the tokens of all Connection objects."""
        listed = await self.viewer.call(ROOT, MANAGER, "ListConnections", "a{sv}uu", {}, 0, 0)
        return {token for _, token in listed}

    def tokens(self) -> set[int]:
        """Give the tokens of the live connections that ss(8) shows."""
        return self.lab.tokens(self.host)

    async def subflows(self) -> set[tuple[Any, ...]]:
        """Give token, 4-tuple, IDs, and backup by us and by the peer, of every Subflow object."""
        objects = await self.viewer.managed_objects()
        found = set()
        for interfaces in objects.values():
            p = interfaces.get(SUBFLOW)
            if p is None:
                continue
            token = objects[p["Connection"]][CONNECTION]["Token"]
            found.add(
                (
                    token,
                    (p["LocalAddress"], p["LocalPort"]),
                    (p["RemoteAddress"], p["RemotePort"]),
                    (p["LocalId"], p["RemoteId"]),
                    (p["BackupRequested"], p["Backup"]),
                )
            )
        return found

    def sockets(self) -> set[tuple[Any, ...]]:
        """Give the same of every established subflow that ss(8) shows."""
        found = set()
        for line in self.lab.ss(self.host, "-tinHO", "state", "established").splitlines():
            ulp = re.search(
                r"tcp-ulp-mptcp flags:(\w*) token:\w+\(id:(\d+)\)/(\w+)\(id:(\d+)\)", line
            )
            if ulp is None:
                continue
            flags, remote_id, token, local_id = ulp.groups()
            local, remote = line.split()[2:4]
            found.add(
                (
                    int(token, 16),
                    _end(local),
                    _end(remote),
                    (int(local_id), int(remote_id)),
                    ("b" in flags, "B" in flags),
                )
            )
        return found


def _end(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    return address.partition("%")[0].strip("[]").removeprefix("::ffff:"), int(port)


def _variants(options: dict[str, Any]) -> dict[str, Any]:
    from dbus_next import Variant  # noqa: PLC0415 # only here

    kinds = {bool: "b", str: "s", int: "u"}
    special = {"Port": "q", "LocalPort": "q", "Id": "y"}
    return {
        key: Variant(special.get(key, kinds[type(value)]), value) for key, value in options.items()
    }

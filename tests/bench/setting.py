"""What every benchmark plays on: the lab, a bus, applications, the truth, and a subscriber."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from tests.bench.daemons import Name, Policy, Subject, mptcpd, ours
from tests.bench.truth import Truth
from tests.lab import users
from tests.lab.app import App
from tests.lab.bus import PrivateBus
from tests.lab.hosts import SERVER, Lab, address
from tests.lab.sandbox import initial_root, readable_repository

ASIDE = address("server", 1)


@dataclass
class Setting:
    """The lab with one application on each host, of `tests/bench/load.py`."""

    lab: Lab
    bus: PrivateBus
    client: App
    server: App
    truth: Truth
    subscriber: App
    listener: int
    port: int
    aside: tuple[int, int]
    """Another listener and port, on an address that the policy does not join to."""

    def running(
        self, name: Name, policy: Policy = "count", buffer: int = 0
    ) -> AbstractAsyncContextManager[Subject]:
        """Run a daemon on the client, with the buffer for events that it has or so many bytes."""
        if name == "ours":
            return ours(self.lab, self.subscriber, policy, buffer)
        return mptcpd(self.lab, policy, buffer)

    async def churn(self, count: int, rate: float = 0) -> float:
        """Have connections come and go, so many a second if it can; give how long it took."""
        target = {"address": SERVER[4], "port": self.port}
        return await self._load("come_and_go", self.listener, count, rate=rate, **target)

    async def hold(self, count: int, rate: float = 0) -> float:
        """Have connections come and stay."""
        target = {"address": SERVER[4], "port": self.port}
        return await self._load("hold", self.listener, count, rate=rate, **target)

    async def hold_aside(self, count: int) -> float:
        """Have such connections come and stay that a policy leaves alone."""
        listener, port = self.aside
        target = {"address": ASIDE, "port": port}
        return await self._load("hold", listener, count, rate=0, **target)

    async def let_go(self, count: int = 0) -> float:
        """Have them closed, all or so many; give the seconds that it took the client."""
        took = await self.client.call("let_go", count=count)
        await self.server.call("let_go", count=count)
        return float(took)

    async def _load(
        self, op: str, listener: int, count: int, *, rate: float, **target: object
    ) -> float:
        limit = 60 + count / (rate or 500)
        keep = op == "hold"
        answering = asyncio.ensure_future(
            self.server.call("answer", listener=listener, count=count, keep=keep, limit=limit)
        )
        took = await self.client.call(op, count=count, rate=rate, limit=limit, **target)
        await answering
        return float(took)


@asynccontextmanager
async def setting() -> AsyncIterator[Setting]:
    """Set the stage, under the userspace path manager."""
    repository = readable_repository()
    if initial_root():
        users.install()
    policies = sorted((repository / "dbus").glob("*.conf")) if initial_root() else []
    with PrivateBus(policies=policies) as bus, Lab() as lab, Truth(lab) as truth:
        lab.sysctl("client", "net.mptcp.path_manager", "userspace")
        # Or the client would search for free ports longer with each round.
        for host in ("client", "server"):
            lab.sysctl(host, "net.ipv4.ip_local_port_range", "1024 65535")
            lab.sysctl(host, "net.ipv4.tcp_max_tw_buckets", 1000)
        # A source of link2 leaves over link2, without a binding to the device.
        lab.ip("client", "rule", "add", "from", "10.0.2.1", "lookup", 2)
        lab.ip("client", "route", "add", SERVER[4], "via", "10.0.2.2", "dev", "link2", "table", 2)
        module = [sys.executable, "-m"]
        client = lab.app("client", argv=[*module, "tests.bench.load"])
        server = lab.app("server", argv=[*module, "tests.bench.load"])
        subscriber = lab.app("server", argv=[*module, "tests.bench.subscriber"])
        await subscriber.call("subscribe")
        listener, port = await server.call("listen", address=SERVER[4])
        aside = await server.call("listen", address=ASIDE)
        yield Setting(lab, bus, client, server, truth, subscriber, listener, port, aside)

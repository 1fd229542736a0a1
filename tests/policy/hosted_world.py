"""A policy host on the kernel in memory, with plugins that write down what they hear."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import functools
import textwrap
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mptcpd_dbus.config import Settings
from mptcpd_dbus.core.policies import Policy
from mptcpd_dbus.plugin import Plugin
from mptcpd_dbus.policy import loader
from mptcpd_dbus.policy.base import HANDLERS
from mptcpd_dbus.policy.files import PluginProblem
from mptcpd_dbus.policy.host import PolicyHost
from mptcpd_dbus.policy.watch import Watch
from mptcpd_dbus.testing.clock import PlayedLoop
from tests.world import World

Given = type[Plugin] | str
LIMIT = 300.0  # played seconds


def in_played_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test on a loop on which time passes at once when nothing else is to be done."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        async def within() -> None:
            async with asyncio.timeout(LIMIT):
                await test(*arguments, **named)

        with asyncio.Runner(loop_factory=PlayedLoop) as runner:
            runner.run(within())

    return run


class Heard(list[tuple[str, str, tuple[Any, ...]]]):
    """Who was called, with which handler and arguments, in order."""

    def by(self, plugin: str, *handlers: str) -> list[tuple[Any, ...]]:
        """Give the handlers and arguments of one plugin's calls, or those of some handlers."""
        return [(h, *given) for who, h, given in self if who == plugin and h in (handlers or (h,))]

    def handlers(self, plugin: str, token: int | None = None) -> list[str]:
        """Give a plugin's handlers in order, or those about one connection."""
        return [
            handler
            for who, handler, given in self
            if who == plugin and (token is None or token in [getattr(g, "token", 0) for g in given])
        ]


def recorder(heard: Heard, name: str, **members: Any) -> type[Plugin]:
    """Make a plugin that has all handlers, each of which notes that it was called."""

    def make(handler: str) -> Any:
        async def noted(self: Plugin, *arguments: Any) -> None:
            del self
            heard.append((name, handler, arguments))

        return noted

    return type(name, (Plugin,), {h: make(h) for h in HANDLERS} | members)


class Texts:
    """A source of plugins that are classes, or texts to be loaded."""

    def __init__(self, plugins: Mapping[str, Given], watch: Watch) -> None:
        self.plugins, self._watch = plugins, watch
        self.loaded: list[str] = []

    def __str__(self) -> str:
        return "/plugins"

    def names(self) -> list[str]:
        """Name them."""
        return list(self.plugins)

    def load(self, name: str) -> type[Plugin]:
        """Load one."""
        self.loaded.append(name)
        given = self.plugins.get(name)
        if given is None:
            raise PluginProblem(f"there is no {name}.py")
        if isinstance(given, str):
            return loader.load(name, textwrap.dedent(given).encode(), self._watch)
        return given

    def close(self) -> None:
        """Nothing is open."""


class HostedWorld(World):
    """A host with policies; *settings* are those of the daemon."""

    def __init__(
        self, given: Mapping[str, Given], watch: Watch | None = None, **settings: Any
    ) -> None:
        super().__init__()
        watch = watch or Watch()
        self.plugins = dict(given)
        self.source = Texts(self.plugins, watch)
        self.engine.take(self.kernel.settings())
        self.engine.take(self.kernel.limits())
        self.host = PolicyHost(self.engine, Settings(**settings), lambda _: self.source, watch)
        self.engine.steer_by(self.host)

    async def start(self) -> "HostedWorld":
        """Start the host."""
        await self.host.start()
        await self.rest()
        return self

    async def rest(self) -> None:
        """Let everything happen that does not wait for time."""
        while True:
            for _ in range(8):
                await asyncio.sleep(0)
            if self.host.idle:
                return
            await asyncio.sleep(0.01)

    def policy(self, name: str) -> Policy:
        """Give what is published of a policy."""
        return self.state.policies[name]

    def owner(self, token: int) -> str:
        """Give who decides for a connection."""
        return self.state.connections[token].owner

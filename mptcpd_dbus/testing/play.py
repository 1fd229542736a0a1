"""Plays happenings to a policy on a kernel in memory, and tells what it commanded.

    played = play(MyPolicy, link("eth0", "10.0.1.1"), link("wwan0", "10.0.2.1"), connect())
    assert played.commands == ["create 10.0.2.1 id 1 dev wwan0 -> 10.0.9.1:443"]

It needs no privilege and no network.  Time passes only where the policy or the kernel waits, and
then at once: a retry in a minute takes a millisecond.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mptcpd_dbus.config import Settings
from mptcpd_dbus.config_file import Section
from mptcpd_dbus.core import commands
from mptcpd_dbus.core.endpoints import flag_words
from mptcpd_dbus.core.state import State
from mptcpd_dbus.core.types import AddressEntry, AddressFlag
from mptcpd_dbus.engine import Engine
from mptcpd_dbus.policy import loader, snapshots
from mptcpd_dbus.policy.base import Plugin
from mptcpd_dbus.policy.files import PluginProblem
from mptcpd_dbus.policy.host import PolicyHost
from mptcpd_dbus.policy.watch import Watch
from mptcpd_dbus.testing.clock import PlayedLoop
from mptcpd_dbus.testing.fake_kernel import FakeKernel

PATIENCE = 600.0
"""So many seconds of the played time a policy may be at work before a play is given up."""

TOKEN = 1
"""The token of the first connection."""


class World:
    """A host with one policy, the first of *plugins*; it may choose among the others by rules.

    What happens to it are functions of this.
    """

    def __init__(self, plugins: Mapping[str, type[Plugin]], settings: Mapping[str, Any]) -> None:
        self.kernel = FakeKernel()
        self.engine = Engine(State(), self.kernel)
        self.kernel.on_event = self.engine.take
        first = next(iter(plugins))
        if plugins[first].steers == "kernel":
            self.kernel.set_path_manager("kernel")
        self.engine.take(self.kernel.settings())
        self.engine.take(self.kernel.limits())
        section = Section(first, {key.replace("_", "-"): v for key, v in settings.items()})
        self.settings = Settings(
            load_plugins=(first,), path_manager=first, plugins={first: section}
        )
        self.host = PolicyHost(self.engine, self.settings, lambda _: _Given(plugins), Watch())
        self.engine.steer_by(self.host)
        self.indices = itertools.count(2)
        self.names: dict[str, int] = {}
        self.ports = itertools.count(40000)
        self.tokens = itertools.count(TOKEN)

    async def rest(self) -> None:
        """Let everything that is due happen, until nobody waits for anything but time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while True:
            for _ in range(8):  # a task, what it started, and what that set off
                await asyncio.sleep(0)
            if self.host.idle:
                return
            if loop.time() > until:
                raise TimeoutError(f"the policy does not come to rest within {PATIENCE:g} s")
            await asyncio.sleep(0.01)  # played time: a handler awaits something that is due later


Happening = Callable[[World], Awaitable[None] | None]


@dataclass(frozen=True)
class Played:
    """What came of it.

    `commands` are those that reached the kernel, each in a line; `problem` is what the policy did
    wrong, "" if nothing; `connections` and `endpoints` are what there is at the end.
    """

    commands: list[str]
    problem: str
    connections: list[snapshots.Connection] = field(default_factory=list)
    endpoints: list[snapshots.Endpoint] = field(default_factory=list)


def play(
    plugin: type[Plugin],
    *happenings: Happening,
    settings: Mapping[str, Any] | None = None,
    plugins: Mapping[str, type[Plugin]] | None = None,
) -> Played:
    """Have *happenings* happen one after the other, each when the one before has been handled.

    *plugins* are others in its directory, by their names: strategies for `pm.set_rules`.
    """

    async def run() -> Played:
        loader.check(plugin)
        name = plugin.__name__.lower()
        world = World({name: plugin, **(plugins or {})}, settings or {})
        await world.host.start()
        for happening in happenings:
            waiting = happening(world)
            if waiting is not None:
                await waiting
            await world.rest()
        state = world.engine.state
        said = [_line(command, state) for command in world.kernel.executed]
        problem = state.policies[name].problem
        ended = Played(
            said,
            problem,
            [snapshots.connection(c) for c in state.connections.values()],
            [snapshots.endpoint(e, ours=e.ours) for e in state.endpoints.values()],
        )
        await world.host.stop()
        return ended

    with asyncio.Runner(loop_factory=PlayedLoop) as runner:
        return runner.run(run())


# How it is done.


class _Given:
    """Plugins that are there already."""

    def __init__(self, plugins: Mapping[str, type[Plugin]]) -> None:
        self._plugins = plugins

    def names(self) -> list[str]:
        return list(self._plugins)

    def load(self, name: str) -> type[Plugin]:
        if name not in self._plugins:
            raise PluginProblem(f"there is no {name}.py")
        return self._plugins[name]

    def close(self) -> None:
        """Nothing is open."""


def _line(command: commands.Command, state: State) -> str:  # noqa: C901 # one case a command
    """Say a command in the words of ip-mptcp(8), as far as it has some."""
    match command:
        case commands.SubflowCreate(_, local, remote):
            return f"create {_entry(local, state)} -> {remote.address}:{remote.port}"
        case commands.SubflowDestroy(_, local, remote):
            return f"destroy {local.address} -> {remote.address}:{remote.port}"
        case commands.SetFlags(local, token, remote):
            if token is None or remote is None:
                return f"endpoint change {_entry(local, state)}"
            priority = "backup" if local.flags & AddressFlag.BACKUP else "nobackup"
            return f"{priority} {local.address} -> {remote.address}:{remote.port}"
        case commands.Announce(_, local):
            return f"announce {_entry(local, state)}".replace(" signal", "")
        case commands.Remove(_, local_id):
            return f"remove id {local_id}"
        case commands.AddAddr(endpoint):
            return f"endpoint add {_entry(endpoint, state)}"
        case commands.DelAddr(address_id):
            return f"endpoint delete id {address_id}"
        case commands.FlushAddrs():
            return "endpoint flush"
        case commands.SetLimits(subflows, accepted):
            return f"limits subflows {subflows} add_addr_accepted {accepted}"
        case commands.GetAddr() | commands.GetLimits():
            return "read"


def _entry(entry: AddressEntry, state: State) -> str:
    words = [entry.address]
    words += [f"port {entry.port}"] if entry.port else []
    words += [f"id {entry.id}"] if entry.id else []
    words += flag_words(entry.flags)
    interface = state.network.interfaces.get(entry.interface_index)
    words += [f"dev {interface.name}"] if interface else []
    return " ".join(words)

"""Plays happenings to a policy on a kernel in memory, and tells what it commanded.

    played = play(MyPolicy, link("eth0", "10.0.1.1"), link("wwan0", "10.0.2.1"), connect())
    assert played.commands == ["create 10.0.2.1 id 1 dev wwan0 -> 10.0.9.1:443"]

It needs no privilege and no network.  Time passes only where the policy or the kernel waits, and
then at once: a retry in a minute takes a millisecond.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import itertools
import selectors
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mptcpd_dbus.config import Settings
from mptcpd_dbus.config_file import Section
from mptcpd_dbus.core import commands, events
from mptcpd_dbus.core.endpoints import flag_words
from mptcpd_dbus.core.state import State
from mptcpd_dbus.core.types import AddressEntry, AddressFlag, FourTuple
from mptcpd_dbus.engine import Engine
from mptcpd_dbus.plugin import Plugin
from mptcpd_dbus.policy import loader, snapshots
from mptcpd_dbus.policy.files import PluginProblem
from mptcpd_dbus.policy.host import PolicyHost
from mptcpd_dbus.policy.watch import Watch
from mptcpd_dbus.testing import FakeKernel

PATIENCE = 600.0
"""So many seconds of the played time a handler may wait before a play is given up."""

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
        self.host = PolicyHost(
            self.engine,
            Settings(load_plugins=(first,), path_manager=first, plugins={first: section}),
            lambda _: _Given(plugins),
            Watch(),
        )
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
                raise TimeoutError(f"a handler did not end within {PATIENCE:g} s")
            await asyncio.sleep(0.01)


Happening = Callable[[World], Awaitable[None] | None]


@dataclass(frozen=True)
class Played:
    """What came of it.

    `commands` are those that reached the kernel, each in a line; `problems` what the policy did
    wrong, "" if nothing; `connections` is how they ended up.
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

    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(run())


# What can happen.


def link(name: str, *addresses: str, kind: str = "ether") -> Happening:
    """An interface comes, with its addresses."""

    def happen(world: World) -> None:
        index = world.names[name] = next(world.indices)
        world.engine.take(events.NewInterface(index, name, kind, up=True, running=True))
        for address in addresses:
            world.engine.take(events.NewLocalAddress(index, address, 64 if ":" in address else 24))

    return happen


def cut(name: str) -> Happening:
    """An interface loses its carrier; its addresses stay."""
    return _carrier(name, running=False)


def restore(name: str) -> Happening:
    """An interface has its carrier again."""
    return _carrier(name, running=True)


def _carrier(name: str, *, running: bool) -> Happening:
    def happen(world: World) -> None:
        index = world.names[name]
        kind = world.engine.state.network.interfaces[index].kind
        world.engine.take(events.UpdateInterface(index, name, kind, up=True, running=running))

    return happen


def address(name: str, text: str) -> Happening:
    """An interface gets an address."""

    def happen(world: World) -> None:
        world.engine.take(
            events.NewLocalAddress(world.names[name], text, 64 if ":" in text else 24)
        )

    return happen


def no_address(name: str, text: str) -> Happening:
    """An interface loses an address."""

    def happen(world: World) -> None:
        world.engine.take(events.DeleteLocalAddress(world.names[name], text))

    return happen


def connect(
    local: str = "10.0.1.1",
    remote: str = "10.0.9.1",
    *,
    port: int = 443,
    server_side: bool = False,
    deny_join_id0: bool = False,
) -> Happening:
    """A connection becomes established; their tokens are 1, 2, 3, ... in order.

    *port* is the server's.
    """

    def happen(world: World) -> None:
        other = next(world.ports)
        ports = (port, other) if server_side else (other, port)
        world.kernel.connect(
            next(world.tokens),
            FourTuple(local, ports[0], remote, ports[1]),
            server_side=server_side,
            userspace=world.kernel.settings().path_manager == "userspace",
            deny_join_id0=deny_join_id0,
        )

    return happen


def close(token: int = TOKEN) -> Happening:
    """An application closes its connection."""
    return lambda world: world.kernel.close(token)


def announced(address_id: int, text: str, *, port: int = 443, token: int = TOKEN) -> Happening:
    """The peer announces an address."""

    def happen(world: World) -> None:
        world.engine.take(events.NewAddress(token, address_id, text, port))

    return happen


def withdrawn(address_id: int, *, token: int = TOKEN) -> Happening:
    """The peer withdraws an address."""

    def happen(world: World) -> None:
        world.engine.take(events.AddressRemoved(token, address_id))

    return happen


def subflow_lost(local: str, *, error: int = 110, token: int = TOKEN) -> Happening:
    """The first subflow from an address ends with *error*."""

    def happen(world: World) -> None:
        found = next(t for t in world.kernel.open[token].subflows if t.local_address == local)
        world.kernel.end_subflow(token, found, error)

    return happen


def wait(seconds: float) -> Happening:
    """Time passes."""
    return lambda _: asyncio.sleep(seconds)


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


class _Loop(asyncio.SelectorEventLoop):
    """A loop whose time passes only when there is nothing else to do, and then at once."""

    def __init__(self) -> None:
        self._passed = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        """Give the played time."""
        return self._passed

    def skip(self, seconds: float) -> None:
        """Let time pass."""
        self._passed += seconds


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: _Loop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        """Do not wait for files while there is a time to wait for."""
        if timeout is None:
            return list(super().select(None))
        self._loop.skip(max(timeout, 0))
        return list(super().select(0))


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



"""Runs a plugin's file as a program that decides for connections, from one daemon to the next.

It has the plugin's queues as the daemon would; the daemon has its place in the line.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

from mptcpd_dbus.bus.error_names import UNKNOWN_OBJECT
from mptcpd_dbus.bus.message import CALL, Incoming
from mptcpd_dbus.bus.names import CONNECTION, MANAGER, ROOT
from mptcpd_dbus.bus.paths import connection_path
from mptcpd_dbus.bus.wire import Variant
from mptcpd_dbus.config import Settings
from mptcpd_dbus.config_file import Section
from mptcpd_dbus.core.errors import ConfigurationError, MptcpdError, NotReady
from mptcpd_dbus.core.policies import PolicyState
from mptcpd_dbus.kernel.listeners import Listeners
from mptcpd_dbus.policy import loader
from mptcpd_dbus.policy.catalogue import Catalogue
from mptcpd_dbus.policy.door import PathManager, Rule
from mptcpd_dbus.policy.fault import one_line, printable
from mptcpd_dbus.policy.files import PluginProblem
from mptcpd_dbus.policy.hosted import FAILURES, Hosted
from mptcpd_dbus.policy.mailbox import HOST, QUEUE, Failure
from mptcpd_dbus.policy.match import Match
from mptcpd_dbus.policy.network_filter import NetworkFilter
from mptcpd_dbus.policy.sections import WrongKey, read_section
from mptcpd_dbus.policy.source import Source
from mptcpd_dbus.policy.watch import Watch
from mptcpd_dbus.remote.commands import RemoteCommands
from mptcpd_dbus.remote.daemon import OBJECT_MANAGER, PROPERTIES, Daemon
from mptcpd_dbus.remote.handlers import Handlers
from mptcpd_dbus.remote.mirror import Mirror

PATH = "/org/mptcpd1/Policy"
_RELEASED = "connection_released"

_log = logging.getLogger(__name__)


class LetGo(MptcpdError):
    """The program decides no more, and that is not for it to change."""


def load(file: Path, settings: Settings) -> Hosted:
    """Load the plugin in *file* with its section of *settings*; raise ConfigurationError."""
    name = file.stem
    policy = Hosted(name, (0, 0, 0))
    section = settings.plugins.get(name, Section(name))
    try:
        policy.kind = loader.load(name, file.read_bytes(), Watch())
        priority, policy.match, policy.settings = read_section(policy.kind, section.values)
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from error
    except PluginProblem as problem:
        raise ConfigurationError(f"{file}: {problem}") from problem
    except WrongKey as wrong:
        raise ConfigurationError(f"{section.where(wrong.key)}: {wrong}") from None
    policy.rank = (priority, 0, 0)
    return policy


class Program:
    """The plugin that *policy* was loaded as, with *settings* as the daemon would have them.

    When it registers, an *interactive* one lets a password be asked for.  The strategies of rules
    are files in *directory*.
    """

    def __init__(
        self, policy: Hosted, settings: Settings, directory: Path, *, interactive: bool
    ) -> None:
        self._policy = policy
        self._directory = directory
        self._settings = settings
        self._interactive = interactive
        self._listeners = Listeners()
        self._watch = Watch()
        self._watch.blocked = lambda _, handler, s: _log.error("%s blocked for %.1f s", handler, s)
        self._daemon = Daemon(settings.bus, self._hear, self._on_owner)
        self._mirror = Mirror()
        self._waiting: list[Incoming] | None = []
        self._network: NetworkFilter
        self._handlers: Handlers
        self._commands: RemoteCommands
        self._life: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._running: dict[str, Hosted] = {}  # by the path where the daemon calls it
        self._derived: dict[str, Hosted] = {}  # by name
        self._given_up: set[int] = set()  # connections that the daemon has not taken away yet
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> NoReturn:
        """Decide until cancelled; raise LetGo, or another MptcpdError when it cannot be done."""
        try:
            await self._daemon.connect()
        except (OSError, ValueError) as error:
            raise NotReady(f"cannot reach the bus: {error}; is dbus running?") from error
        try:
            await self._daemon.ping()
            while True:
                await self._serve()
        finally:
            self._daemon.close()

    async def derive(self, _parent: str, rules: Sequence[Rule]) -> None:
        """Have the policies of *rules* run, and no others, in the daemon's line in their order."""
        source = Source(self._directory, self._watch, wanted=True)
        try:
            fresh = Catalogue(self._settings, source, self._watch).derive(self._policy, rules, {})
        finally:
            source.close()
        pairs = zip(self._derived.values(), fresh.values(), strict=False)
        same = list(takewhile(lambda pair: _are_same(*pair), pairs))
        for policy in list(self._derived.values())[len(same) :]:
            del self._derived[policy.name]
            await self._stop(policy)
        for policy in list(fresh.values())[len(same) :]:
            self._derived[policy.name] = policy
            try:
                await self._start(policy)
            except LetGo as why:  # the others do without it
                _log.error("%s", why)

    # One daemon after the other.

    async def _serve(self) -> None:
        """Decide as long as one daemon is there."""
        while not self._daemon.name:
            _log.info("there is no daemon on the bus; waiting for one")
            await self._change()
        self._life = asyncio.get_running_loop().create_future()
        try:
            await self._decide()
        except LetGo:
            raise
        except MptcpdError:
            if not self._life.done():
                raise
            await self._change()  # it was the daemon that went, or let us go

    async def _decide(self) -> None:
        self._mirror = mirror = Mirror()
        given = self._settings
        self._network = NetworkFilter(
            mirror.state.network, given.notify_flags, given.allow, given.deny
        )
        self._handlers = Handlers(mirror, self._network)
        self._commands = RemoteCommands(self._daemon, mirror, self._listeners)
        self._waiting = []
        self._given_up.clear()
        await self._look()
        try:
            await self._start(self._policy)
            _log.info("plugin %s decides", self._policy.name)
            await self._change()
        finally:
            self._derived.clear()
            for policy in reversed(list(self._running.values())):
                await self._stop(policy)

    async def _start(self, policy: Hosted) -> None:
        door = PathManager(
            policy.name,
            self._commands,
            self._mirror.state,
            self._network,
            self,
            addr_flags=self._settings.addr_flags,
        )
        try:
            policy.begin(door, self._mirror.state, self._watch, self._failed, self._behind)
        except Exception as error:  # its constructor is a plugin's code, too
            raise LetGo(f"plugin {policy.name} did not start: {one_line(error)}") from error
        if not await policy.run("start"):
            raise LetGo(f"plugin {policy.name} did not start")
        path = PATH if policy is self._policy else f"{PATH}/{policy.name}"
        self._running[path] = policy
        policy.state = PolicyState.RUNNING
        await self._register(path, policy)

    async def _stop(self, policy: Hosted) -> None:
        try:
            await self._unregister(policy.name)
        finally:
            self._running = {path: it for path, it in self._running.items() if it is not policy}
            policy.state = PolicyState.LOADED
            policy.mailbox.close()
            await policy.run("stop")
            policy.end()
            self._listeners.close(policy.name)

    async def _change(self) -> None:
        """Wait for another daemon, or none; raise LetGo, also when the bus goes."""
        await asyncio.wait((self._life, self._daemon.gone), return_when=asyncio.FIRST_COMPLETED)
        if not self._life.done():
            raise LetGo(f"the bus has gone: {self._daemon.gone.result()}")
        life, self._life = self._life, asyncio.get_running_loop().create_future()
        if why := life.result():
            raise LetGo(why)

    def _on_owner(self) -> None:
        if not self._life.done():
            self._life.set_result("")

    def _let_go(self, why: str) -> None:
        if not self._life.done():
            self._life.set_result(why)

    async def _register(self, path: str, policy: Hosted) -> None:
        kind, match = policy.kind, policy.match
        options = {
            "Priority": Variant("i", policy.rank[0]),
            "Steers": Variant("s", kind.steers),
            "Description": Variant("s", printable(kind.__doc__ or "")[:1000]),
            "Version": Variant("s", printable(kind.version)[:100]),
            "Claims": Variant("b", kind.claims),
            **_match_options(match),
        }
        await self._daemon.call(
            ROOT,
            MANAGER,
            "RegisterPolicy",
            "osa{sv}",
            path,
            policy.name,
            options,
            interactive=self._interactive,
        )

    async def _unregister(self, name: str) -> None:
        if self._daemon.name and not self._life.done():
            with suppress(MptcpdError):
                await self._daemon.call(ROOT, MANAGER, "UnregisterPolicy", "sa{sv}", name, {})

    # What the daemon says.

    async def _look(self) -> None:
        """Have the mirror be what the daemon shows; what it says meanwhile counts after that."""
        objects = await self._daemon.call(ROOT, OBJECT_MANAGER, "GetManagedObjects")
        manager = await self._daemon.call(ROOT, PROPERTIES, "GetAll", "s", MANAGER)
        self._mirror.load(objects)
        self._mirror.manager(manager)
        waiting, self._waiting = self._waiting or [], None
        for message in waiting:
            self._hear(message)

    async def _look_again(self) -> None:
        """Look anew after what was not told; without that nothing can be decided."""
        life = self._life
        try:
            await self._look()
        except MptcpdError as error:
            if life is self._life:  # else it is another daemon by now
                self._let_go(f"what the daemon shows cannot be read: {error}")
        else:
            for policy in self._running.values():
                policy.post(HOST, "events_lost", "queue")

    def _hear(self, message: Incoming) -> None:
        if self._waiting is None:
            self._take(message)
        else:
            self._waiting.append(message)

    def _take(self, message: Incoming) -> None:
        values = message.values()
        if message.kind == CALL:
            self._called(message, values)
            return
        match message.member:
            case "InterfacesAdded":
                self._mirror.added(*values)
            case "PropertiesChanged":
                self._mirror.changed(message.path, values[1])
            case "InterfacesRemoved":
                self._mirror.removed(values[0])
            case _:  # SignalsDropped
                self._waiting = []
                self._spawn(self._look_again())

    def _called(self, call: Incoming, values: list[Any]) -> None:
        policy = self._running.get(call.path)
        if policy is None:
            self._daemon.refuse(call, UNKNOWN_OBJECT, f"there is no object {call.path}")
            return
        self._daemon.answer(call)
        self._mirror.settle()
        if call.member == "Released":
            self._released(policy, values[0])
            return
        told = self._handlers.told(call.member, values)
        if told is not None:
            self._post(policy, *told)

    def _released(self, policy: Hosted, why: str) -> None:
        if policy is self._policy:
            self._let_go(f"the daemon let it go: {why}")
        else:
            _log.error("policy %s decides no more: %s", policy.name, why)
            self._spawn(self._stop(policy))

    def _post(self, policy: Hosted, handler: str, key: int, arguments: tuple[Any, ...]) -> None:
        ends = handler in (_RELEASED, "connection_closed")
        if ends:
            self._given_up.discard(key)
        if handler == _RELEASED:
            left = policy.mailbox.release(key)
            # What has not heard of a connection yet need not hear that it is gone.
            if "new_connection" in left and _RELEASED not in left:
                return
        if ends:
            policy.finish(key, handler, *arguments)
        else:
            policy.post(key, handler, *arguments)

    # What goes wrong.

    def _failed(self, policy: Hosted, failure: Failure) -> None:
        where = f"plugin {policy.name}, {failure.item.handler}"
        if failure.blame:
            _log.error("%s: %s", where, failure.text, exc_info=failure.error)
        else:
            _log.info("%s: %s", where, failure.text)
        if policy.mailbox.failures_in_a_row >= FAILURES:
            self._let_go(f"{FAILURES} handlers failed in a row, the last: {failure.text}")

    def _behind(self, policy: Hosted, key: int) -> None:
        if key in self._given_up:
            return
        _log.error(
            "plugin %s: %d events waited for one handler and were dropped", policy.name, QUEUE
        )
        if key == HOST:
            policy.mailbox.drop(HOST)
            policy.post(HOST, "events_lost", "queue")
        else:
            self._given_up.add(key)
            self._spawn(self._give_up(key))

    async def _give_up(self, number: int) -> None:
        """Have nobody decide for a connection whose events it cannot follow."""
        with suppress(MptcpdError):
            await self._daemon.call(
                connection_path(number), CONNECTION, "SetOwner", "sa{sv}", "", {}
            )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _are_same(old: Hosted, new: Hosted) -> bool:
    return old.name == new.name and old.running and old.is_like(new)


def _match_options(match: Match) -> dict[str, Variant]:
    """Say what is asked of a connection, as RegisterPolicy takes it."""
    lists = {
        "Port": Variant("aq", list(match.port)),
        "Prefix": Variant("as", [str(prefix) for prefix in match.prefix]),
        "Uid": Variant("au", list(match.uid)),
        "Unit": Variant("as", list(match.unit)),
    }
    found = {name: variant for name, variant in lists.items() if variant.value}
    if match.side is not None:
        found["Side"] = Variant("s", match.side)
    return found

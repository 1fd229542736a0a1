"""The policies of the daemon: loaded, started, disabled, reloaded, and stopped.

It decides which of them run; `owners.py` which of them decides for a connection, `dispatch.py`
what each hears.  It knows no bus.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext
from typing import Any

from mptcpd_dbus.config import Settings, read_settings
from mptcpd_dbus.core import readings
from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.errors import (
    AlreadyRegistered,
    InvalidArgument,
    NoSuchConnection,
    NotReady,
)
from mptcpd_dbus.core.policies import PolicyState
from mptcpd_dbus.engine import Engine
from mptcpd_dbus.log_fields import about
from mptcpd_dbus.policy.catalogue import Catalogue, Source
from mptcpd_dbus.policy.dispatch import Dispatch
from mptcpd_dbus.policy.door import PathManager, Rule, WrongRule
from mptcpd_dbus.policy.fault import one_line
from mptcpd_dbus.policy.hosted import FAILURES, Hosted
from mptcpd_dbus.policy.mailbox import HOST, Failure
from mptcpd_dbus.policy.network_filter import NetworkFilter
from mptcpd_dbus.policy.on_bus import OnBus
from mptcpd_dbus.policy.owners import Owners
from mptcpd_dbus.policy.reports import Reports
from mptcpd_dbus.policy.watch import Watch
from mptcpd_dbus.policy_protocol import Program, Registration

START_SECONDS = 5.0
"""The daemon waits so long for all plugins together to start; the others go on."""

STOP_SECONDS = 5.0
"""All plugins together have so long to stop."""

_log = logging.getLogger(__name__)


class PolicyHost:
    """Runs the plugins of a source as the settings say; *sources* opens the one that they name."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        sources: Callable[[Settings], Source],
        watch: Watch,
    ) -> None:
        self._engine = engine
        self._sources = sources
        self._catalogue = Catalogue(settings, sources(settings), watch)
        self._watch = watch
        watch.blocked = self._blocked
        self._network = NetworkFilter(
            engine.state.network, settings.notify_flags, settings.allow, settings.deny
        )
        self._owners = Owners(engine)
        self._reports = Reports(engine, self._is_named)
        self._dispatch = Dispatch(engine.state, self._owners, self._network, self._settings_read)
        self.post = self._dispatch.post
        self._all: dict[str, Hosted] = {}
        self._changing = asyncio.Lock()
        self._programs = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._was = engine.state.settings

    @property
    def idle(self) -> bool:
        """Whether no handler runs or waits."""
        return all(p.instance is None or p.mailbox.idle for p in self._all.values())

    @property
    def decide(self) -> bool:
        """Whether there is anybody who may decide for a connection."""
        return bool(self._owners.line)

    @property
    def in_a_hurry(self) -> bool:
        """Whether a policy waits for connections, to act on them at once."""
        return self._owners.in_a_hurry

    # Start and stop.

    async def start(self) -> None:
        """Load and start all; raise ConfigurationError if the settings cannot be meant.

        One that takes long to start gets no connection that another wants meanwhile.
        """
        self._all = self._catalogue.load_all({})
        if not self._all:
            source = self._catalogue.source
            _log.info("there is no plugin in %s: nobody decides for connections", source)
        self._network.take(None)  # each policy is told of what there is when it begins
        starting = self._spawn(self._begin_all())
        await asyncio.wait((starting,), timeout=START_SECONDS)
        if starting.done():
            starting.result()
        await self._owners.open()

    async def _begin_all(self) -> None:
        async with self._changing:
            await asyncio.gather(*(self._begin_one(policy) for policy in self._in_order()))

    async def _begin_one(self, policy: Hosted) -> None:
        self._reports.publish(policy)
        await self._begin(policy)
        self._reports.publish(policy)
        await self._owners.claim()

    async def stop(self) -> None:
        """Stop all in reverse order."""
        for task in self._tasks:
            task.cancel()
        backwards = list(reversed(self._in_order()))
        ends = [
            self._spawn(self._end(policy, PolicyState.LOADED, pass_on=False))
            for policy in backwards
        ]
        if ends:
            await asyncio.wait(ends, timeout=STOP_SECONDS)
        late = [p.name for p, end in zip(backwards, ends, strict=True) if not end.done()]
        if late:
            names = ", ".join(late)
            _log.warning("plugins that did not stop within %g s: %s", STOP_SECONDS, names)
        for end in ends:
            end.cancel()
        for policy in backwards:
            if policy.instance is not None:
                policy.end()
        self._catalogue.source.close()

    # What the bus may ask.

    async def enable(self, name: str) -> None:
        """Load the file anew and start it: it gets connections to come, and those of nobody."""
        await self._wholly(self._enable(name))

    async def disable(self, name: str) -> None:
        """Stop a plugin or let a program go; its connections pass to the next in line."""
        policy = self._find(name)
        if isinstance(policy, OnBus):
            policy.let_go("it was disabled")
        else:
            await self._wholly(self._disable(name))

    async def reload(self, name: str) -> None:
        """Load the file anew; the plugin keeps its connections.  A bad file changes nothing."""
        await self._wholly(self._reload(name))

    async def register(self, wanted: Registration, program: Program) -> None:
        """Let a program on the bus decide: it gets connections to come, and those of nobody."""
        name = wanted.name
        if name in self._all or name in self._catalogue.source.names():
            raise AlreadyRegistered(f"there is a policy {name} already: choose another name")
        self._all[name] = policy = OnBus(wanted, program, next(self._programs))
        await self._wholly(self._begin_one(policy))

    async def unregister(self, program: Program) -> None:
        """Let *program* go; its connections pass to the next in line, which waits for nobody."""
        for policy in self._all.values():
            if isinstance(policy, OnBus) and policy.program is program:
                await self._wholly(self._remove(policy))
                return

    async def set_owner(self, connection: Connection, name: str) -> None:
        """Have the policy *name*, or nobody if it is "", decide for *connection* from now on."""
        state = self._engine.state
        if state.connections.get(connection.token) is not connection:
            raise NoSuchConnection(f"connection {connection.token:08x} has closed")
        if not name:
            self._owners.move(connection, None)
            return
        policy = next((p for p in self._owners.running if p.name == name and p.kind.claims), None)
        if policy is None:
            running = ", ".join(p.name for p in self._owners.running if p.kind.claims) or "none"
            raise InvalidArgument(f"name: no policy {name[:64]!r} decides here; known: {running}")
        path_manager = connection.path_manager or state.settings.path_manager
        if not policy.steers(path_manager):
            raise InvalidArgument(
                f"name: {name} steers the {policy.kind.steers} path manager, connection"
                f" {connection.token:08x} is under the {path_manager} one"
            )
        if connection.owner != name:
            self._owners.move(connection, policy)

    async def reload_configuration(self) -> None:
        """Read the configuration anew and follow it; a wrong one changes nothing."""
        await self.follow(read_settings(self._catalogue.settings.arguments))

    async def follow(self, settings: Settings) -> None:
        """Go by *settings* from now on; wrong ones change nothing."""
        await self._wholly(self._go_by(settings))

    # What a plugin may ask.

    async def derive(self, parent: str, rules: Sequence[Rule]) -> None:
        """Have the policies of *rules* run, and no others of *parent*'s."""
        await self._wholly(self._derive(self._find(parent), rules))

    # How it is done.

    async def _wholly(self, change: Coroutine[Any, Any, None]) -> None:
        """Make a change to its end, also when whoever asked for it leaves."""
        await asyncio.shield(self._spawn(change))

    async def _enable(self, name: str) -> None:
        async with self._changing:
            policy = self._plugin(name)
            if policy.running:
                return
            self._watch.forgive(name)
            fresh = self._load_anew(policy)
            policy.state, policy.problem = fresh.state, fresh.problem
            policy.adopt(fresh)
            await self._begin(policy)
            self._reports.publish(policy)
            await self._owners.claim()
        if not policy.running:
            raise NotReady(f"plugin {name} does not start: {policy.problem}")

    async def _disable(self, name: str) -> None:
        async with self._changing:
            policy = self._find(name)
            policy.problem = ""
            await self._end(policy, PolicyState.DISABLED)

    async def _reload(self, name: str) -> None:
        async with self._changing:
            policy = self._plugin(name)
            self._watch.forgive(name)
            fresh = self._load_anew(policy)
            if fresh.state is PolicyState.FAILED:
                raise NotReady(f"plugin {name} stays as it was: {fresh.problem}")
            await self._replace(policy, fresh)
            if policy.state is PolicyState.FAILED:
                raise NotReady(f"plugin {name}: {policy.problem}")

    def _load_anew(self, policy: Hosted) -> Hosted:
        """Load the file of a policy, which stays as it is meanwhile."""
        fresh = Hosted(policy.name, policy.rank, policy.parent)
        if policy.rule is None:
            self._catalogue.load(fresh)
            return fresh
        try:
            self._catalogue.apply(policy.rule, fresh)
        except WrongRule as wrong:
            raise NotReady(f"plugin {policy.name} stays as it was: {wrong}") from None
        return fresh

    async def _go_by(self, settings: Settings) -> None:
        async with self._changing:
            before = self._catalogue
            after = Catalogue(settings, self._sources(settings), self._watch)
            try:
                fresh = after.load_all(self._all)
                self._engine.pm.choice.follow(settings.kernel_path_manager)
            except BaseException:
                after.source.close()
                raise
            before.source.close()
            self._catalogue = after
            changed = settings.addr_flags != before.settings.addr_flags
            self._dispatch.tell_network(
                self._network.reconfigure(settings.notify_flags, settings.allow, settings.deny)
            )
            named = [p for p in self._all.values() if not (p.parent or p.on_bus)]
            for policy in [p for p in named if p.name not in fresh]:
                await self._remove(policy)
            for name, policy in fresh.items():
                await self._follow(self._all.get(name), policy, changed=changed)
            self._line_up()
            await self._owners.claim()

    async def _derive(self, above: Hosted, rules: Sequence[Rule]) -> None:
        # While it begins, whoever has it begin has the lock.
        beginning = above.paused or not above.running
        async with nullcontext() if beginning else self._changing:
            fresh = self._catalogue.derive(above, rules, self._all)
            for name, policy in fresh.items():
                await self._follow(self._all.get(name), policy)
            self._line_up()
            for old in [p for p in self._all.values() if p.parent == above.name]:
                if old.name not in fresh:
                    await self._remove(old)
            await self._owners.claim()

    async def _begin(self, policy: Hosted) -> None:
        if policy.state is PolicyState.FAILED:
            return
        engine = self._engine
        pm = PathManager(
            policy.name,
            engine.pm,
            engine.state,
            self._network,
            self,
            addr_flags=self._catalogue.settings.addr_flags,
        )
        try:
            policy.begin(pm, engine.state, self._watch, self._failed, self._behind)
        except BaseException as error:  # noqa: BLE001 # its constructor is a plugin's code, too
            policy.problem, well = one_line(error), False
            _log.error(
                "plugin %s: %s", policy.name, policy.problem, exc_info=error, extra=policy.fields
            )
        else:
            well = await policy.run("start")
        policy.paused = False
        if not well:
            policy.state = PolicyState.FAILED
            policy.problem = f"it did not start: {policy.problem.removeprefix('start: ')}"
            self._let_go(policy)
            self._line_up()
            return
        policy.state, policy.problem = PolicyState.RUNNING, ""
        self._line_up()
        if engine.state.settings.enabled:
            policy.post(HOST, "ready")
        self._dispatch.tell_network(self._network.existing(), only=policy)
        if not policy.on_bus:
            _log.info("plugin %s runs", policy.name, extra=policy.fields)

    async def _end(self, policy: Hosted, state: PolicyState, *, pass_on: bool = True) -> None:
        was_running, policy.state = policy.running, state
        self._line_up()
        if was_running:
            policy.mailbox.close()
            if pass_on:
                await self._owners.pass_on(policy)
            await policy.run("stop")
            self._let_go(policy)
            if not policy.on_bus:
                _log.info("plugin %s has stopped", policy.name, extra=policy.fields)
        if pass_on:
            await self._remove_children(policy)
        self._reports.publish(policy)

    def _let_go(self, policy: Hosted) -> None:
        policy.end()
        self._engine.pm.unlisten_all(policy.name)

    async def _remove(self, policy: Hosted) -> None:
        await self._end(policy, PolicyState.DISABLED)
        del self._all[policy.name]
        self._engine.take(readings.PolicyGone(policy.name))

    async def _remove_children(self, policy: Hosted) -> None:
        for child in [p for p in self._all.values() if p.parent == policy.name]:
            await self._remove(child)

    async def _follow(self, known: Hosted | None, fresh: Hosted, *, changed: bool = False) -> None:
        """Have *fresh* be what runs under its name; what is the same goes on."""
        if known is None:
            self._all[fresh.name] = fresh
            await self._begin(fresh)
            self._reports.publish(fresh)
            return
        if known.on_bus:  # it registered while others began
            words = "policy %s does not run: a program on the bus has its name"
            _log.error(words, fresh.name, extra=fresh.fields)
            return
        if fresh.state is PolicyState.FAILED:
            known.problem = fresh.problem  # what runs goes on as it was loaded
        elif known.running and known.is_like(fresh) and not changed:
            known.rank, known.problem = fresh.rank, ""
            known.post(HOST, "reload")
        else:
            await self._replace(known, fresh)
        self._reports.publish(known)

    async def _replace(self, policy: Hosted, fresh: Hosted) -> None:
        """Go on with what *fresh* was loaded with; its connections are introduced again.

        Those that it does not want any more pass on.
        """
        policy.adopt(fresh)
        if policy.running:
            policy.paused = True
            policy.mailbox.close()
            await policy.run("stop")
            self._let_go(policy)
        elif policy.state is PolicyState.FAILED:
            policy.state = PolicyState.LOADED
        if policy.state is not PolicyState.DISABLED:
            await self._begin(policy)
            if policy.running:
                await self._owners.introduce_again(policy)
            else:
                await self._owners.pass_on(policy)
        self._reports.publish(policy)

    def _failed(self, policy: Hosted, failure: Failure) -> None:
        """Hear of a handler that failed."""
        self._reports.failed(policy, failure)
        if policy.mailbox.failures_in_a_row >= FAILURES and policy.running:
            self._spawn(self._give_up(policy))

    async def _give_up(self, policy: Hosted) -> None:
        async with self._changing:
            if policy.running:
                policy.problem = f"{FAILURES} handlers failed in a row, the last: {policy.problem}"
                words = "plugin %s is disabled: %s"
                _log.error(words, policy.name, policy.problem, extra=policy.fields)
                await self._end(policy, PolicyState.FAILED)

    def _behind(self, policy: Hosted, key: int) -> None:
        """Hear that a queue is full: nothing waits without bound."""
        self._reports.behind(policy, key)
        if key == HOST:
            policy.mailbox.drop(HOST)
            policy.post(HOST, "events_lost", "queue")
        else:
            self._owners.give_up(key, policy)

    def _blocked(self, name: str, handler: str, seconds: float) -> None:
        """Hear that a handler held the loop."""
        words = "plugin %s blocked the daemon for %.1f s in %s"
        _log.error(words, name, seconds, handler, extra=about(plugin=name, event=handler))
        policy = self._all.get(name)
        if policy is not None:
            self._reports.blocked(policy, handler, seconds)

    def _settings_read(self) -> None:
        settings = self._engine.state.settings
        if settings.enabled != self._was.enabled:
            self._dispatch.tell_all("ready" if settings.enabled else "not_ready")
        if settings.path_manager != self._was.path_manager and self._owners.running:
            self._spawn(self._report_running())
        self._was = settings

    async def _report_running(self) -> None:
        """Have each tell whether it still has work, but not those that go in the same change."""
        async with self._changing:
            for policy in self._owners.running:
                self._reports.publish(policy)

    def _is_named(self, name: str) -> bool:
        settings = self._catalogue.settings
        return name == settings.path_manager or name in (settings.load_plugins or ())

    def _line_up(self) -> None:
        self._owners.line_up(self._all.values(), self._catalogue.settings.path_manager)

    def _in_order(self) -> list[Hosted]:
        return sorted(self._all.values(), key=lambda policy: policy.rank)

    def _find(self, name: str) -> Hosted:
        policy = self._all.get(name)
        if policy is None:
            raise NotReady(f"there is no policy {name}")
        return policy

    def _plugin(self, name: str) -> Hosted:
        policy = self._find(name)
        if policy.on_bus:
            raise NotReady(f"{name} is a program on the bus: start and stop that")
        return policy

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

"""The policies of the daemon: loaded, started, disabled, reloaded, and stopped.

It decides which of them run; `owners.py` which of them decides for a connection, `dispatch.py`
what each hears.  It knows no bus.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from mptcpd_dbus.config import Settings, read_settings
from mptcpd_dbus.config_file import Section
from mptcpd_dbus.core import events, readings
from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.errors import ConfigurationError, InvalidArgument, NotReady
from mptcpd_dbus.core.policies import PolicyState
from mptcpd_dbus.core.state import Change
from mptcpd_dbus.engine import Engine
from mptcpd_dbus.plugin import Plugin
from mptcpd_dbus.policy import snapshots
from mptcpd_dbus.policy.dispatch import Dispatch
from mptcpd_dbus.policy.door import PathManager, Rule, WrongRule
from mptcpd_dbus.policy.fault import one_line, printable
from mptcpd_dbus.policy.files import PluginProblem
from mptcpd_dbus.policy.hosted import FAILURES, Hosted
from mptcpd_dbus.policy.mailbox import HOST, QUEUE, Failure
from mptcpd_dbus.policy.network_filter import NetworkFilter
from mptcpd_dbus.policy.owners import Owners
from mptcpd_dbus.policy.sections import WrongKey, read_section
from mptcpd_dbus.policy.sections import read_settings as read_own
from mptcpd_dbus.policy.watch import IMPORT, Watch

START_SECONDS = 5.0
"""The daemon waits so long for all plugins together to start; the others go on."""

STOP_SECONDS = 5.0
"""All plugins together have so long to stop."""

_RULE_NAME = re.compile("[A-Za-z0-9_]{1,64}")
_KILLED = "the daemon was killed while {} held it up; enable it to try again"

_log = logging.getLogger(__name__)


class Source(Protocol):
    """Where plugins come from; its text names the place."""

    def names(self) -> list[str]:
        """Name all that there are."""

    def load(self, name: str) -> type[Plugin]:
        """Give the class of one; raise PluginProblem."""

    def close(self) -> None:
        """Let go of the place."""


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
        self._settings = settings
        self._sources = sources
        self._source = sources(settings)
        self._watch = watch
        watch.blocked = self._blocked
        self._network = NetworkFilter(
            engine.state.network, settings.notify_flags, settings.allow, settings.deny
        )
        self._owners = Owners(engine)
        self._dispatch = Dispatch(engine.state, self._owners, self._network, self._settings_read)
        self._all: dict[str, Hosted] = {}
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._was = engine.state.settings

    @property
    def idle(self) -> bool:
        """Whether no handler runs or waits."""
        return all(p.instance is None or p.mailbox.idle for p in self._all.values())

    def post(self, what: events.Event | readings.Reading, change: Change) -> None:
        """Queue *what*, which has just changed the state, for whom it concerns."""
        self._dispatch.post(what, change)

    # Start and stop.

    async def start(self) -> None:
        """Load and start all; raise ConfigurationError if the settings cannot be meant.

        One that takes long to start gets no connection that another wants meanwhile.
        """
        self._all = self._loaded(self._settings, self._source)
        if not self._all:
            _log.info("there is no plugin in %s: nobody decides for connections", self._source)
        self._network.existing()  # each policy is told of them when it begins
        starting = self._spawn(self._begin_all())
        await asyncio.wait((starting,), timeout=START_SECONDS)
        if starting.done():
            starting.result()
        self._owners.open()

    async def _begin_all(self) -> None:
        async with self._changing:
            await asyncio.gather(*(self._begin_one(policy) for policy in self._in_order()))

    async def _begin_one(self, policy: Hosted) -> None:
        self._publish(policy)
        await self._begin(policy)
        self._publish(policy)
        self._owners.claim()

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
        self._source.close()

    # What the bus may ask.

    async def enable(self, name: str) -> None:
        """Load the file anew and start it: it gets connections to come, and those of nobody."""
        async with self._changing:
            policy = self._find(name)
            if policy.running:
                return
            self._watch.forgive(name)
            if policy.rule is None:
                self._load(policy, self._settings, self._source)
            else:
                policy.state = PolicyState.LOADED
            await self._begin(policy)
            self._publish(policy)
            self._owners.claim()
        if not policy.running:
            raise NotReady(f"plugin {name} does not start: {policy.problem}")

    async def disable(self, name: str) -> None:
        """Stop a plugin; its connections pass to the next in line."""
        async with self._changing:
            policy = self._find(name)
            policy.problem = ""
            await self._end(policy, PolicyState.DISABLED)

    async def reload(self, name: str) -> None:
        """Load the file anew; the plugin keeps its connections.  A bad file changes nothing."""
        async with self._changing:
            policy = self._find(name)
            self._watch.forgive(name)
            fresh = Hosted(name, policy.rank, policy.parent)
            try:
                if policy.rule is None:
                    self._load(fresh, self._settings, self._source)
                else:
                    self._apply(policy.rule, fresh)
            except WrongRule as wrong:
                raise NotReady(f"plugin {name} stays as it was: {wrong}") from None
            if fresh.state is PolicyState.FAILED:
                raise NotReady(f"plugin {name} stays as it was: {fresh.problem}")
            await self._replace(policy, fresh)
            if policy.state is PolicyState.FAILED:
                raise NotReady(f"plugin {name}: {policy.problem}")

    async def set_owner(self, connection: Connection, name: str) -> None:
        """Have the policy *name*, or nobody if it is "", decide for *connection* from now on."""
        if not name:
            self._owners.move(connection, None)
            return
        policy = next((p for p in self._owners.running if p.name == name and p.kind.claims), None)
        if policy is None:
            running = ", ".join(p.name for p in self._owners.running if p.kind.claims) or "none"
            raise InvalidArgument(f"name: no policy {name[:64]!r} decides here; known: {running}")
        if not policy.steers(connection.path_manager):
            raise InvalidArgument(
                f"name: {name} steers the {policy.kind.steers} path manager, connection"
                f" {connection.token:08x} is under the {connection.path_manager} one"
            )
        if connection.owner != name:
            self._owners.move(connection, policy)

    async def reload_configuration(self) -> None:
        """Read the configuration anew and follow it; a wrong one changes nothing."""
        await self.follow(read_settings(self._settings.arguments))

    async def follow(self, settings: Settings) -> None:
        """Go by *settings* from now on; wrong ones change nothing."""
        async with self._changing:
            source = self._sources(settings)
            try:
                fresh = self._loaded(settings, source)
            except BaseException:
                source.close()
                raise
            self._source.close()
            changed = settings.addr_flags != self._settings.addr_flags
            self._settings, self._source = settings, source
            self._dispatch.tell_network(
                self._network.reconfigure(settings.notify_flags, settings.allow, settings.deny)
            )
            for policy in [p for p in self._all.values() if not p.parent and p.name not in fresh]:
                await self._remove(policy)
            for name, policy in fresh.items():
                await self._follow(self._all.get(name), policy, changed=changed)
            self._line_up()
            self._owners.claim()

    # What a plugin may ask.

    async def derive(self, parent: str, rules: Sequence[Rule]) -> None:
        """Have the policies of *rules* run, and no others of *parent*'s."""
        above = self._find(parent)
        fresh: dict[str, Hosted] = {}
        for place, rule in enumerate(rules, 1):
            policy = Hosted(f"{parent}_{rule.name}", (*above.rank[:2], place), parent)
            if policy.name in fresh:
                raise WrongRule(rule, "name", f"two rules are called {rule.name!r}: rename one")
            self._apply(rule, policy)
            fresh[policy.name] = policy
        for name, policy in fresh.items():
            await self._follow(self._all.get(name), policy)
        self._line_up()
        for old in [p for p in self._all.values() if p.parent == parent]:
            if old.name not in fresh:
                await self._remove(old)
        self._owners.claim()

    def _apply(self, rule: Rule, policy: Hosted) -> None:
        """Have *policy* be what *rule* says; raise WrongRule."""
        if not _RULE_NAME.fullmatch(rule.name):
            raise WrongRule(rule, "name", f"{rule.name[:64]!r}: give 1 to 64 letters, digits and _")
        known = self._all.get(policy.name)
        if known is not None and known.parent != policy.parent:
            raise WrongRule(rule, "name", f"there is another policy {policy.name}: rename one")
        try:
            policy.kind = self._read(rule.strategy, self._source)
            policy.settings = read_own(policy.kind, rule.settings)
        except PluginProblem as problem:
            raise WrongRule(rule, "strategy", f"{rule.strategy[:64]!r}: {problem}") from None
        except WrongKey as wrong:
            raise WrongRule(rule, f"settings.{wrong.key}", wrong.text) from None
        if not policy.kind.claims:
            text = f"{rule.strategy!r} does not decide for connections: name a plugin that does"
            raise WrongRule(rule, "strategy", text)
        policy.rule, policy.match = rule, rule.match
        self._check_suspect(policy)

    # How it is done.

    def _loaded(self, settings: Settings, source: Source) -> dict[str, Hosted]:
        """Load what *settings* name, in the order of the list; a broken file is a failed plugin."""
        there = source.names()
        names = list(dict.fromkeys(settings.load_plugins or there))
        for name in names:
            if name not in there:
                raise ConfigurationError(
                    f"load-plugins: there is no plugin {name!r} in {source}; there are"
                    f" {', '.join(there) or 'none'}"
                )
        if settings.path_manager and settings.path_manager not in names:
            raise ConfigurationError(
                f"path-manager: there is no plugin {settings.path_manager!r} among those to load:"
                f" {', '.join(names) or 'none'}"
            )
        for name in settings.plugins.keys() - set(there):
            where = settings.plugins[name].where("")
            raise ConfigurationError(f"{where}: [plugin {name}]: there is no such plugin")
        derived = {policy.name for policy in self._all.values() if policy.parent}
        found = {}
        for place, name in enumerate(names):
            if name in derived:
                raise ConfigurationError(
                    f"load-plugins: {name!r} in {source} is the name of a policy from rules, too:"
                    " rename one"
                )
            found[name] = Hosted(name, (0, place, 0))
            self._load(found[name], settings, source)
        return found

    def _load(self, policy: Hosted, settings: Settings, source: Source) -> None:
        name = policy.name
        section = settings.plugins.get(name, Section(name))
        policy.state, policy.problem = PolicyState.LOADED, ""
        try:
            policy.kind = self._read(name, source)
            priority, policy.match, policy.settings = read_section(policy.kind, section.values)
        except PluginProblem as problem:
            policy.state, policy.problem = PolicyState.FAILED, str(problem)
            _log.error("plugin %s is not loaded: %s", name, problem)
        except WrongKey as wrong:
            raise ConfigurationError(f"{section.where(wrong.key)}: {wrong}") from None
        else:
            policy.rank = (priority, *policy.rank[1:])
            self._check_suspect(policy)

    def _read(self, name: str, source: Source) -> type[Plugin]:
        """Load a plugin's file, but not again if that got the daemon killed."""
        if self._watch.suspect == (name, IMPORT):
            raise PluginProblem(_KILLED.format(IMPORT))
        return source.load(name)

    def _check_suspect(self, policy: Hosted) -> None:
        """Do not start again what got the daemon killed."""
        name, handler = self._watch.suspect or ("", "")
        if name == policy.name:
            policy.state, policy.problem = PolicyState.FAILED, _KILLED.format(handler)
            _log.error("plugin %s is disabled: %s", name, policy.problem)

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
            addr_flags=self._settings.addr_flags,
        )
        try:
            policy.begin(pm, engine.state, self._watch, self._failed, self._behind)
        except BaseException as error:  # noqa: BLE001 # its constructor is a plugin's code, too
            policy.problem, well = one_line(error), False
        else:
            well = await policy.run("start")
        policy.paused = False
        if not well:
            policy.state = PolicyState.FAILED
            policy.problem = f"it did not start: {policy.problem.removeprefix('start: ')}"
            _log.error("plugin %s: %s", policy.name, policy.problem)
            self._let_go(policy)
            self._line_up()
            return
        policy.state, policy.problem = PolicyState.RUNNING, ""
        self._line_up()
        if engine.state.settings.enabled:
            policy.post(HOST, "ready")
        for living in engine.state.network.interfaces.values():
            shown = self._network.shown(living)
            if shown is not None:
                picture = snapshots.interface(living, shown)
                policy.post(HOST, "new_interface", picture)
                if "existing" in self._settings.notify_flags:
                    for address in shown:
                        policy.post(HOST, "new_local_address", picture, address)
        _log.info("plugin %s runs", policy.name)

    async def _end(self, policy: Hosted, state: PolicyState, *, pass_on: bool = True) -> None:
        was_running, policy.state = policy.running, state
        self._line_up()
        if was_running:
            policy.mailbox.close()
            if pass_on:
                self._owners.pass_on(policy)
            await policy.run("stop")
            self._let_go(policy)
            _log.info("plugin %s has stopped", policy.name)
        if pass_on:
            await self._remove_children(policy)
        self._publish(policy)

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
            self._publish(fresh)
            return
        if fresh.state is PolicyState.FAILED:
            known.problem = fresh.problem  # what runs goes on as it was loaded
        elif known.running and known.is_like(fresh) and not changed:
            known.rank, known.problem = fresh.rank, ""
            known.post(HOST, "reload")
        else:
            await self._replace(known, fresh)
        self._publish(known)

    async def _replace(self, policy: Hosted, fresh: Hosted) -> None:
        """Go on with what *fresh* was loaded with; its connections are introduced again.

        Those that it does not want any more pass on.
        """
        policy.kind, policy.settings, policy.match = fresh.kind, fresh.settings, fresh.match
        policy.rank, policy.rule = fresh.rank, fresh.rule
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
                self._owners.introduce_again(policy)
            else:
                self._owners.pass_on(policy)
        self._publish(policy)

    def _failed(self, policy: Hosted, failure: Failure) -> None:
        """Hear of a handler that failed."""
        policy.errors += 1
        item = failure.item
        about = next((f" of {_name(a)}" for a in item.arguments if _name(a)), "")
        where = f"{item.handler}{about}"
        wrong = isinstance(failure.error, ConfigurationError)  # the administrator's, so they see it
        if not (failure.blame or wrong or item.handler == "start"):
            _log.info("plugin %s, %s: %s", policy.name, where, failure.text)
        else:
            problem = f"{item.handler}: {failure.text}"
            trace = failure.error if failure.blame and policy.problem != problem else None
            _log.error("plugin %s, %s: %s", policy.name, where, failure.text, exc_info=trace)
            policy.problem = problem
            if policy.mailbox.failures_in_a_row >= FAILURES and policy.running:
                self._spawn(self._give_up(policy))
        self._publish(policy)

    async def _give_up(self, policy: Hosted) -> None:
        async with self._changing:
            if policy.running:
                policy.problem = f"{FAILURES} handlers failed in a row, the last: {policy.problem}"
                _log.error("plugin %s is disabled: %s", policy.name, policy.problem)
                await self._end(policy, PolicyState.FAILED)

    def _behind(self, policy: Hosted, key: int) -> None:
        """Hear that a queue is full: nothing waits without bound."""
        policy.errors += 1
        policy.problem = f"{QUEUE} events waited for one handler and were dropped"
        if key == HOST:
            policy.mailbox.drop(HOST)
            policy.post(HOST, "events_lost", "queue")
            _log.error("plugin %s: %s", policy.name, policy.problem)
        else:
            _log.error(
                "plugin %s: %s; it does not decide for that connection any more",
                policy.name,
                policy.problem,
            )
            self._owners.give_up(key, policy)
        self._publish(policy)

    def _blocked(self, name: str, handler: str, seconds: float) -> None:
        """Hear that a handler held the loop."""
        _log.error("plugin %s blocked the daemon for %.1f s in %s", name, seconds, handler)
        policy = self._all.get(name)
        if policy is not None:
            policy.errors += 1
            policy.problem = f"{handler} blocked the daemon for {seconds:.1f} s"
            self._publish(policy)

    def _settings_read(self) -> None:
        settings = self._engine.state.settings
        if settings.enabled != self._was.enabled:
            self._dispatch.tell_all("ready" if settings.enabled else "not_ready")
        if settings.path_manager != self._was.path_manager:
            for policy in self._owners.running:
                self._publish(policy)
        self._was = settings

    def _line_up(self) -> None:
        self._owners.line_up(self._all.values(), self._settings.path_manager)

    def _in_order(self) -> list[Hosted]:
        return sorted(self._all.values(), key=lambda policy: policy.rank)

    def _find(self, name: str) -> Hosted:
        policy = self._all.get(name)
        if policy is None:
            raise NotReady(f"there is no policy {name}")
        return policy

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _publish(self, policy: Hosted) -> None:
        kind = policy.kind
        mismatch = self._mismatch(policy)
        if mismatch and mismatch != policy.mismatch:
            _log.warning("plugin %s: %s", policy.name, mismatch)
        policy.mismatch = mismatch
        description = printable(str(kind.__doc__ or "")) if kind is not Plugin else ""
        self._engine.take(
            readings.PolicyRead(
                policy.name,
                description,
                printable(kind.version),
                policy.rank[0],
                kind.steers,
                policy.state,
                policy.problem or mismatch,
                policy.errors,
            )
        )

    def _mismatch(self, policy: Hosted) -> str:
        """Name the trap that a policy works with the path manager that the kernel does not use."""
        used = self._engine.state.settings.path_manager
        if not policy.running or not used or policy.steers(used):
            return ""
        return (
            f"it steers the {policy.kind.steers} path manager, but new connections get the {used}"
            " one: set net.mptcp.path_manager (SetPathManager), or use another plugin"
        )


def _name(argument: object) -> str:
    if isinstance(argument, snapshots.Connection):
        return f"connection {argument.token:08x}"
    return argument.name if isinstance(argument, snapshots.Interface) else ""

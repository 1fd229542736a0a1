"""One policy of the host: its class, its running instance, its queues, and how it is doing."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable
from typing import Any

from mptcpd_dbus.core.policies import PolicyState
from mptcpd_dbus.core.state import State
from mptcpd_dbus.log_fields import about
from mptcpd_dbus.policy import snapshots
from mptcpd_dbus.policy.base import HANDLERS, Plugin, PluginSettings
from mptcpd_dbus.policy.door import PathManager, Rule
from mptcpd_dbus.policy.mailbox import HOST, Failure, Function, Item, Mailbox, Timer
from mptcpd_dbus.policy.match import Match
from mptcpd_dbus.policy.watch import Watch

FAILURES = 5
"""A plugin is disabled after so many handlers that failed in a row."""


class Hosted:
    """A policy, from `begin` to `end` and again.

    `rank` orders the policies: priority, place in the list, place among a parent's rules.  `parent`
    is the plugin whose `rule` brought it, "" for one that the configuration did.
    """

    def __init__(self, name: str, rank: tuple[int, int, int], parent: str = "") -> None:
        self.name = name
        self.rank = rank
        self.parent = parent
        self.rule: Rule | None = None
        self.kind: type[Plugin] = Plugin
        self.settings = PluginSettings()
        self.match = Match()
        self.state = PolicyState.LOADED
        self.problem = ""
        self.mismatch = ""
        self.errors = 0
        self.instance: Plugin | None = None
        self.mailbox: Mailbox
        self.on_bus = ""
        """The unique name of a program on the bus."""
        self.paused = False
        """Whether it is between two instances: it keeps its connections and hears of nothing."""
        self._bound: dict[str, Function] = {}

    @property
    def running(self) -> bool:
        """Whether its handlers are called."""
        return self.state is PolicyState.RUNNING

    @property
    def fields(self) -> dict[str, dict[str, str]]:
        """The `extra` of a line of the log about it."""
        return about(plugin=self.name)

    def steers(self, path_manager: str) -> bool:
        """Whether it works with that path manager of the kernel's."""
        return self.kind.steers in (path_manager, "both")

    def is_like(self, other: "Hosted") -> bool:
        """Whether *other* has the same settings, perhaps of a class that was loaded anew."""
        mine, theirs = ((p.rule, p.match, p.settings.model_dump()) for p in (self, other))
        return mine == theirs

    def adopt(self, fresh: "Hosted") -> None:
        """Go by what *fresh* was loaded with, when it begins the next time."""
        self.kind, self.settings, self.match = fresh.kind, fresh.settings, fresh.match
        self.rank, self.rule = fresh.rank, fresh.rule

    def begin(
        self,
        pm: PathManager,
        state: State,
        watch: Watch,
        failed: Callable[["Hosted", Failure], None],
        behind: Callable[["Hosted", int], None],
    ) -> None:
        """Make the instance and its queues."""
        self.mailbox = Mailbox(
            self.name, watch, lambda failure: failed(self, failure), lambda key: behind(self, key)
        )
        watch.enter(self.name, "__init__")
        try:
            self.instance = self.kind(pm, self.settings, _Service(self, state))
        finally:
            watch.leave()
        self._bound = {
            name: getattr(self.instance, name)
            for name in HANDLERS
            if getattr(self.kind, name) is not getattr(Plugin, name)
        }

    def end(self) -> None:
        """Let go of the instance and of what waits for it."""
        self.mailbox.close()
        self.instance = None
        self._bound = {}

    def hears(self, handler: str) -> bool:
        """Whether that handler would be called now."""
        return self.running and not self.paused and handler in self._bound

    def post(self, key: int, handler: str, *arguments: Any) -> None:
        """Have the handler called in its turn, if there is one."""
        if self.hears(handler):
            self.mailbox.post(key, handler, self._bound[handler], *arguments)

    def finish(self, key: int, handler: str, *arguments: Any) -> None:
        """Have the handler called as the last one under *key*."""
        hears = self.hears(handler)
        self.mailbox.finish(key, Item(handler, self._bound[handler], arguments) if hears else None)

    async def room(self) -> None:
        """Wait until it can be told of many connections at once; queues of plugins have room."""

    async def run(self, handler: str) -> bool:
        """Call a handler of host events in its turn; give whether it went well."""
        bound = self._bound.get(handler)
        return bound is None or await self.mailbox.run(handler, bound)


class _Service:
    """What a plugin has beside `pm`."""

    def __init__(self, hosted: Hosted, state: State) -> None:
        self.name = hosted.name
        self._hosted = hosted
        self._state = state

    @property
    def connections(self) -> snapshots.Connections:
        """The connections that the policy decides for."""
        return snapshots.Connections(self._state.connections, self._hosted.name)

    def after(
        self,
        seconds: float,
        function: Function,
        arguments: tuple[Any, ...],
        connection: snapshots.Connection | None,
    ) -> "Timer | _NoTimer":
        """Call *function* later, in its queue."""
        key = HOST
        if connection is not None:
            living = self._state.connections.get(connection.token)
            key = connection.number
            if living is None or living.number != key or living.owner != self._hosted.name:
                return _NoTimer()
        name = getattr(function, "__name__", "timer")
        return self._hosted.mailbox.after(seconds, key, name, function, arguments)


class _NoTimer:
    """Stands for a timer of a connection that is no longer the policy's."""

    def cancel(self) -> None:
        """Do nothing."""

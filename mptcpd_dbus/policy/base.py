"""The class that plugins derive from: its handlers, its settings, its timers.

Within API version 1 handlers, fields and parameters are only added.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
from collections.abc import Callable, Coroutine
from enum import IntEnum
from types import UnionType
from typing import Any, ClassVar, Literal, Protocol, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, model_validator

from mptcpd_dbus.log_fields import about
from mptcpd_dbus.policy.door import PathManager
from mptcpd_dbus.policy.mailbox import AT_WORK
from mptcpd_dbus.policy.match import Match
from mptcpd_dbus.policy.snapshots import (
    Address,
    Connection,
    Connections,
    Interface,
    Listener,
    Subflow,
)

API_VERSION = 1
"""Of this module; a plugin that wants a newer one says `requires_api`."""


class Priority(IntEnum):
    """Who comes first: like nice(2), the lower number; any number from -20 to 19 will do."""

    HIGH = -20
    DEFAULT = 0
    LOW = 19


class PluginSettings(BaseModel):
    """The base of a plugin's own settings, read from its section `[plugin NAME]`.

    The key `max-paths` is the field `max_paths`; lists are separated by commas.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, given: dict[str, Any]) -> dict[str, Any]:
        found = dict(given)
        for name, field in cls.model_fields.items():
            for key in (name, field.alias or name):
                text = found.get(key)
                if isinstance(text, str) and _is_list(field.annotation):
                    if not text:
                        del found[key]  # as if it were not there
                    else:
                        found[key] = [word.strip() for word in text.split(",")]
                        if "" in found[key]:
                            raise ValueError(f"{key}: a word is missing beside a comma")
        return found


def _is_list(kind: Any) -> bool:
    kinds = (kind, *get_args(kind)) if get_origin(kind) in (Union, UnionType) else (kind,)
    return any((get_origin(k) or k) in (tuple, list, set, frozenset) for k in kinds)


class Timer(Protocol):
    """What `Plugin.after` gives."""

    def cancel(self) -> None:
        """Do not call; nothing happens if it has been called."""


class Service(Protocol):
    """What the daemon does for one plugin beyond `pm`."""

    name: str

    @property
    def connections(self) -> Connections:
        """The connections that the plugin decides for."""

    def after(
        self,
        seconds: float,
        function: Callable[..., Coroutine[Any, Any, None]],
        arguments: tuple[Any, ...],
        connection: Connection | None,
    ) -> Timer:
        """Call *function* in the queue of *connection*, or of host events, later."""


class _Log(logging.LoggerAdapter[logging.Logger]):
    """Puts the name of the policy before what it says, and names what its handler is about."""

    def __init__(self, logger: logging.Logger, name: str) -> None:
        super().__init__(logger)
        self._name = name
        self._prefix = f"plugin {name}: ".replace("%", "%%")

    def process(self, msg: Any, kwargs: Any) -> tuple[str, Any]:
        item = AT_WORK.get()
        fields = item.about(self._name) if item is not None else about(plugin=self._name)
        return f"{self._prefix}{msg}", {**kwargs, "extra": (kwargs.get("extra") or {}) | fields}


class Plugin:
    """A policy.  Derive from it, and write the handlers that matter; all are optional.

    May rely on: handlers for one connection never overlap and come in the kernel's order; host
    events (interfaces, addresses, listeners, start, stop) have a queue of their own and never wait
    for a connection's handler; the state already includes the event; exactly one policy owns a
    connection, and only its handlers hear of it; an exception ends its handler, is logged and
    counted, and the next event still comes.

    Must not: block.  The daemon has one loop; await, and do what takes long elsewhere.  A handler
    has 30 seconds, then it is cancelled.
    """

    version: ClassVar[str] = ""
    """The plugin's own version, shown on the bus."""
    priority: ClassVar[int] = Priority.DEFAULT
    """Who is asked first; the configuration may say otherwise."""
    steers: ClassVar[Literal["kernel", "userspace", "both"]] = "userspace"
    """Which of the kernel's path managers it works with: a connection has one for life."""
    match: ClassVar[Match] = Match()
    """Which connections it wants; the configuration may say otherwise."""
    claims: ClassVar[bool] = True
    """Whether it wants connections at all."""
    requires_api: ClassVar[int] = API_VERSION
    """The version of this module that it was written for."""

    settings: PluginSettings
    """Its own section of the configuration; declare it anew with your own model."""

    def __init__(self, pm: PathManager, settings: PluginSettings, service: Service) -> None:
        self.pm = pm
        self.settings = settings
        self.log = _Log(logging.getLogger(f"mptcpd_dbus.plugin.{service.name}"), service.name)
        """A logger that says which policy speaks."""
        self._service = service

    @property
    def connections(self) -> Connections:
        """The connections that this policy decides for, as they are now; to be looped over."""
        return self._service.connections

    def after(
        self,
        seconds: float,
        function: Callable[..., Coroutine[Any, Any, None]],
        *arguments: Any,
        connection: Connection | None = None,
    ) -> Timer:
        """Await `function(*arguments)` in *seconds*, once.

        With a *connection* it takes its turn among that connection's handlers, and is forgotten
        when the connection closes or passes to another policy.
        """
        return self._service.after(seconds, function, arguments, connection)

    # Connections.

    async def new_connection(self, connection: Connection) -> None:
        """Hear of a connection of ours: new, found at the start, or passed on by another policy."""

    async def connection_established(self, connection: Connection) -> None:
        """Act: from now on subflows can be added."""

    async def connection_closed(self, connection: Connection) -> None:
        """Forget the connection; its subflows went without a word of their own."""

    async def connection_released(self, connection: Connection) -> None:
        """Forget the connection; it lives on under another policy, or under none."""

    async def new_address(self, connection: Connection, address: Address) -> None:
        """The peer announced an address (ADD_ADDR)."""

    async def address_removed(self, connection: Connection, address: Address) -> None:
        """The peer withdrew an address (REMOVE_ADDR)."""

    async def new_subflow(self, connection: Connection, subflow: Subflow) -> None:
        """A subflow joined, made by either end."""

    async def subflow_closed(self, connection: Connection, subflow: Subflow) -> None:
        """A subflow ended, or a join failed: `error` and `reset_reason` say why."""

    async def subflow_priority(self, connection: Connection, subflow: Subflow) -> None:
        """The peer changed a subflow's priority (MP_PRIO)."""

    # The host.

    async def listener_created(self, listener: Listener) -> None:
        """An MPTCP socket of this host began to listen."""

    async def listener_closed(self, listener: Listener) -> None:
        """An MPTCP socket of this host stopped listening."""

    async def new_interface(self, interface: Interface) -> None:
        """A network interface is there: at the start each of them, later a new one."""

    async def update_interface(self, interface: Interface) -> None:
        """A network interface changed: name, kind, `up`, `running` or `default_routes`."""

    async def delete_interface(self, interface: Interface) -> None:
        """A network interface is gone."""

    async def new_local_address(self, interface: Interface, address: str) -> None:
        """An interface has a new address; with `notify-flags=existing`, also one it had before."""

    async def delete_local_address(self, interface: Interface, address: str) -> None:
        """An interface lost an address."""

    async def endpoints_changed(self) -> None:
        """The in-kernel path manager's endpoints changed, whoever did it; found within a minute."""

    async def events_lost(self, source: str) -> None:
        """Some events did not come (*source*: "mptcp_pm", "rtnetlink", "queue"); look at `pm`."""

    async def ready(self) -> None:
        """MPTCP is on (net.mptcp.enabled): at the start, and when it was switched on again."""

    async def not_ready(self) -> None:
        """MPTCP was switched off: there will be no new connections."""

    # The plugin.

    async def start(self) -> None:
        """Prepare; connections and interfaces come afterwards."""

    async def stop(self) -> None:
        """Clean up; what the kernel holds stays, and listeners close by themselves."""

    async def reload(self) -> None:
        """The configuration was read again, and this plugin's section has not changed."""


def coroutines_of(kind: type[Plugin]) -> dict[str, tuple[str, ...]]:
    """Give the public coroutines that a class has of its own, with their parameters' names."""
    return {
        name: member.__code__.co_varnames[1 : member.__code__.co_argcount]
        for name, member in vars(kind).items()
        if asyncio.iscoroutinefunction(member) and not name.startswith("_")
    }


HANDLERS = coroutines_of(Plugin)
"""The handlers with the names of their parameters."""

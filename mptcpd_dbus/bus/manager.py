"""The interface org.mptcpd1.Manager: the host, its in-kernel path manager, and all signals."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Annotated, Any

from pydantic import Field

from mptcpd_dbus import __version__
from mptcpd_dbus.bus.interface import Call, Interface, Method, Property, args
from mptcpd_dbus.bus.names import (
    CONTROL_OWN_CONNECTIONS,
    MANAGE_ENDPOINTS,
    MANAGE_PLUGINS,
    MANAGER,
    REGISTER_POLICY,
    SET_PATH_MANAGER,
)
from mptcpd_dbus.bus.options import (
    FlushOptions,
    NoOptions,
    Options,
    read_flags,
    read_options,
)
from mptcpd_dbus.bus.paths import path_of
from mptcpd_dbus.bus.programs import Programs
from mptcpd_dbus.bus.signals import SIGNALS, SIGNALS_DROPPED
from mptcpd_dbus.core.addresses import read_address
from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.errors import NoSuchConnection
from mptcpd_dbus.core.state import State
from mptcpd_dbus.core.types import AddressEntry
from mptcpd_dbus.path_manager import PathManager
from mptcpd_dbus.policy_protocol import Policies

Counters = Callable[[], dict[str, int]]
Own = Callable[[Call, int], Connection]


class EndpointOptions(Options):
    """The options of AddEndpoint."""

    Port: Annotated[int, Field(ge=0, le=65535)] = 0
    Id: Annotated[int, Field(ge=0, le=255)] = 0
    Interface: str = ""


class LimitOptions(Options):
    """The options of SetLimits."""

    Subflows: Annotated[int, Field(ge=0)] | None = None
    AddAddrAccepted: Annotated[int, Field(ge=0)] | None = None


class Filter(Options):
    """The filter of ListConnections."""

    Interface: str | None = None
    Uid: int | None = None
    RemoteAddress: str | None = None
    Port: int | None = None
    Policy: str | None = None

    def matches(self, connection: Connection) -> bool:
        """Whether *connection* fits all that is given."""
        t = connection.four_tuple
        return (
            (self.Uid is None or self.Uid == connection.uid)
            and (self.RemoteAddress is None or self.RemoteAddress == t.remote_address)
            and (self.Port is None or self.Port in (t.local_port, t.remote_port))
            and (self.Policy is None or self.Policy == connection.owner)
            and (
                self.Interface is None
                or any(
                    s.interface is not None and s.interface.name == self.Interface
                    for s in connection.subflows.values()
                )
            )
        )


class _Methods:
    """What the methods do; their target, the state, is the same object all the time."""

    def __init__(
        self,
        state: State,
        pm: PathManager,
        policies: Policies,
        programs: Programs,
        *,
        counters: Counters,
        own: Own,
        announce: Callable[[], Awaitable[None]],
    ) -> None:
        self._state = state
        self._pm = pm
        self._policies = policies
        self._programs = programs
        self._counters = counters
        self._own = own
        self._announce = announce

    async def list_connections(
        self, _: State, __: Call, given: dict[str, Any], offset: int, limit: int
    ) -> tuple[list[list[Any]]]:
        wanted = read_options(Filter, given)
        if wanted.RemoteAddress is not None:
            address = read_address("RemoteAddress", wanted.RemoteAddress)
            wanted = wanted.model_copy(update={"RemoteAddress": address})
        await self._announce()
        found = (c for c in self._state.connections.values() if wanted.matches(c))
        page = islice(found, offset, offset + limit if limit else None)
        return ([[path_of(c), c.token] for c in page],)

    async def get_connection(self, _: State, __: Call, token: int) -> tuple[str]:
        connection = self._state.connections.get(token)
        if connection is None:
            raise NoSuchConnection(f"there is no connection with the token {token:08x}")
        return (path_of(connection),)

    async def get_connection_by_socket(self, _: State, call: Call, descriptor: int) -> tuple[str]:
        return (path_of(self._own(call, descriptor)),)

    async def add_endpoint(
        self, _: State, __: Call, address: str, words: list[str], given: dict[str, Any]
    ) -> tuple[str]:
        options = read_options(EndpointOptions, given)
        entry = AddressEntry(
            read_address("address", address),
            options.Id,
            options.Port,
            read_flags(words),
            self._state.network.by_name(options.Interface).index if options.Interface else 0,
        )
        return (path_of(await self._pm.add_endpoint(entry)),)

    async def flush_endpoints(self, _: State, __: Call, given: dict[str, Any]) -> None:
        options = read_options(FlushOptions, given)
        await self._pm.flush_endpoints(own=options.Own, force=options.Force)

    async def set_limits(self, _: State, __: Call, given: dict[str, Any]) -> None:
        options = read_options(LimitOptions, given)
        await self._pm.set_limits(options.Subflows, options.AddAddrAccepted)

    async def set_path_manager(self, _: State, __: Call, name: str, given: dict[str, Any]) -> None:
        read_options(NoOptions, given)
        self._pm.set_path_manager(name)

    async def reload(self, _: State, __: Call, given: dict[str, Any]) -> None:
        read_options(NoOptions, given)
        await self._policies.reload_configuration()

    async def register_policy(
        self, _: State, call: Call, path: str, name: str, given: dict[str, Any]
    ) -> None:
        await self._programs.register(call, path, name, given)

    async def unregister_policy(
        self, _: State, call: Call, name: str, given: dict[str, Any]
    ) -> None:
        read_options(NoOptions, given)
        await self._programs.unregister(call, name)

    async def get_statistics(self, _: State, __: Call) -> tuple[dict[str, int]]:
        return (self._counters(),)


def manager_interface(
    state: State,
    pm: PathManager,
    policies: Policies,
    programs: Programs,
    *,
    features: tuple[str, ...],
    counters: Counters,
    own: Own,
    announce: Callable[[], Awaitable[None]],
) -> Interface:
    """Declare the interface; it reads *state*, its commands go to the others.

    *own* gives the connection of a socket, and notes that it is the caller's; *announce* makes an
    object of each connection that is none yet.
    """
    methods = _Methods(state, pm, policies, programs, counters=counters, own=own, announce=announce)
    return Interface(
        MANAGER,
        "Multipath TCP on this host, in the network namespace of the daemon. All signals come from"
        " here; each begins with the object paths that it is about, then the connection's token,"
        " then the event's own fields.",
        properties=(
            Property("Version", "s", lambda _: __version__, "The daemon's version.", "const"),
            Property(
                "Features",
                "as",
                lambda _: list(features),
                "What this kernel offers beyond 6.1: 'listener-events' (6.2), 'path-manager-sysctl'"
                " (6.15), and 'userspace-path-manager' (5.19). A word that is missing names what"
                " does not work here; more words may come.",
                "const",
            ),
            Property(
                "Enabled",
                "b",
                lambda s: s.settings.enabled,
                "Whether new sockets may speak MPTCP (sysctl net.mptcp.enabled).",
            ),
            Property(
                "PathManager",
                "s",
                lambda s: s.settings.path_manager,
                "Which of the kernel's path managers gets connections to come: 'kernel' or"
                " 'userspace' (sysctl net.mptcp.path_manager).",
            ),
            Property(
                "AvailablePathManagers",
                "as",
                lambda s: list(s.settings.available_path_managers),
                "The path managers that this kernel has.",
            ),
            Property(
                "Scheduler",
                "s",
                lambda s: s.settings.scheduler,
                "The packet scheduler of new connections (sysctl net.mptcp.scheduler), or ''.",
            ),
            Property(
                "SubflowLimit",
                "u",
                lambda s: s.limits.subflows,
                "How many extra subflows the in-kernel path manager allows a connection (0-8).",
            ),
            Property(
                "AddAddrAcceptedLimit",
                "u",
                lambda s: s.limits.add_addr_accepted,
                "How many announced addresses the in-kernel path manager accepts (0-8).",
            ),
            Property(
                "Listeners",
                "a(sq)",
                lambda s: sorted(s.listeners),
                "The addresses and ports on which MPTCP sockets of this host listen."
                " ListenerCreated and ListenerClosed tell of changes.",
                "false",
            ),
            Property(
                "ConnectionCount",
                "u",
                lambda s: len(s.connections),
                "How many connections there are.",
                "false",
            ),
            Property(
                "EventsLost",
                "t",
                lambda s: s.events_lost,
                "How often the kernel dropped events because its queue to the daemon was full.",
                "false",
            ),
            Property(
                "SignalsDropped",
                "t",
                lambda _: counters()["signals_dropped"],
                "How many signals were dropped because the bus did not take them.",
                "false",
            ),
        ),
        methods=(
            Method(
                "ListConnections",
                args("a{sv} filter", "u offset", "u limit"),
                args("a(ou) connections"),
                methods.list_connections,
                "List object path and token of the connections that fit, in the order in which"
                " they were found, from 'offset' on and at most 'limit' (0: all). Filter: Interface"
                " s (of any subflow), Uid u, RemoteAddress s, Port q (local or remote), Policy s"
                " (their Owner; '' finds those that nobody decides for).",
            ),
            Method(
                "GetConnection",
                args("u token"),
                args("o connection"),
                methods.get_connection,
                "Find a connection by its local token.",
            ),
            Method(
                "GetConnectionBySocket",
                args("h socket"),
                args("o connection"),
                methods.get_connection_by_socket,
                "Find a connection by its socket, and own it: who has the socket may command this"
                " connection and its subflows over the same bus connection, for as long as both"
                " live, without another authorisation; but for local ports below 1024, and for"
                " AnnounceAddress unless 'Listener' is false. The daemon keeps no copy of the"
                " socket. It must be an MPTCP one that is connected and has not fallen back to TCP"
                " (else NotMultipath), of the daemon's network namespace (else ForeignNamespace)."
                " Works without polkit, too.",
                CONTROL_OWN_CONNECTIONS,
            ),
            Method(
                "AddEndpoint",
                args("s address", "as flags", "a{sv} options"),
                args("o endpoint"),
                methods.add_endpoint,
                "Give the in-kernel path manager an address to work with, as 'ip mptcp endpoint"
                " add' does. Flags: 'signal', 'subflow', 'backup', 'fullmesh', 'laminar'. Options:"
                " Port q (with 'signal' and without 'subflow' only), Id y (0: the kernel chooses),"
                " Interface s (bind its subflows to this device).",
                MANAGE_ENDPOINTS,
            ),
            Method(
                "FlushEndpoints",
                args("a{sv} options"),
                (),
                methods.flush_endpoints,
                "Delete all endpoints but NetworkManager's; limits stay. Options: Force b (those,"
                " too), Own b (those alone that were added here, by a plugin or by AddEndpoint).",
                MANAGE_ENDPOINTS,
            ),
            Method(
                "SetLimits",
                args("a{sv} options"),
                (),
                methods.set_limits,
                "Set the limits of the in-kernel path manager. Options: Subflows u,"
                " AddAddrAccepted u (0-8 each); what is not given stays. With neither, both are"
                " read anew: the kernel tells nobody when another program sets them.",
                MANAGE_ENDPOINTS,
            ),
            Method(
                "SetPathManager",
                args("s name", "a{sv} options"),
                (),
                methods.set_path_manager,
                "Choose the kernel's path manager, 'kernel' or 'userspace', for connections to"
                " come; those that exist keep theirs. It holds until the daemon is stopped, which"
                " puts back what was before, or kernel-path-manager in the configuration is"
                " changed. There are no options yet.",
                SET_PATH_MANAGER,
            ),
            Method(
                "Reload",
                args("a{sv} options"),
                (),
                methods.reload,
                "Read the configuration again and follow it; a plugin whose settings are the same"
                " goes on as it was loaded (Plugin.Reload loads its file). There are no options"
                " yet.",
                MANAGE_PLUGINS,
            ),
            Method(
                "RegisterPolicy",
                args("o path", "s name", "a{sv} options"),
                (),
                methods.register_policy,
                "Decide for connections, as a plugin of the daemon does: from now on the events of"
                " the host, and of the connections that this policy gets, are calls of the"
                " interface org.mptcpd1.Policy that the caller exports at 'path'; the first may"
                " come before this returns. It gets the connections to come and those that nobody"
                " decides for, by its place among the other policies, and may command them without"
                " further authorisation. It ends with UnregisterPolicy or when the caller leaves"
                " the bus: then its connections pass to the next in line. The name has 1 to 64"
                " letters, digits and underscores. Options: Priority i (-20 to 19, default 0, the"
                " lowest comes first), Steers s ('kernel', 'userspace' (default) or 'both'),"
                " Description s, Version s, Claims b (default true; false: it wants the events of"
                " the host only), and which connections it wants (default: all): Port aq"
                " (the server's), Prefix as (of the remote address), Uid au, Unit as (globs for"
                " the name of a control group), Side s ('client' or 'server').",
                REGISTER_POLICY,
            ),
            Method(
                "UnregisterPolicy",
                args("s name", "a{sv} options"),
                (),
                methods.unregister_policy,
                "Decide no more; only the caller that registered the policy may say so. What is on"
                " its way to it still comes. There are no options yet.",
            ),
            Method(
                "GetStatistics",
                (),
                args("a{st} counters"),
                methods.get_statistics,
                "Read the daemon's own counters.",
            ),
        ),
        signals=(*(signal for signal, _ in SIGNALS.values()), SIGNALS_DROPPED),
    )

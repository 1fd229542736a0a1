"""`self.pm`: what a plugin asks and commands; the same commands as those of the bus.

It turns pictures into living things and back; it decides nothing.  mptcpd's `mptcpd_pm`, ID
manager, listener manager and network monitor in one.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from mptcpd_dbus.commands_protocol import Commands
from mptcpd_dbus.core.addresses import read_address
from mptcpd_dbus.core.connections import Connection as LivingConnection
from mptcpd_dbus.core.connections import Subflow as LivingSubflow
from mptcpd_dbus.core.endpoints import Endpoint as LivingEndpoint
from mptcpd_dbus.core.endpoints import flag_bits
from mptcpd_dbus.core.errors import (
    ConfigurationError,
    InvalidArgument,
    KernelRefused,
    NoSuchConnection,
    NoSuchEndpoint,
    NoSuchSubflow,
)
from mptcpd_dbus.core.state import State
from mptcpd_dbus.core.subflow_wish import SubflowWish
from mptcpd_dbus.core.types import AddressEntry
from mptcpd_dbus.path_manager import DEFAULT_TIMEOUT, MAX_TIMEOUT
from mptcpd_dbus.policy import snapshots
from mptcpd_dbus.policy.match import Match
from mptcpd_dbus.policy.network_filter import NetworkFilter
from mptcpd_dbus.policy.snapshots import (
    Address,
    Connection,
    Connections,
    Endpoint,
    Interface,
    Limits,
    Listener,
    Subflow,
)

_DIGESTION = 0.02
"""Seconds between two RM_ADDR on a connection: while the peer's kernel is at work on one, it drops
others without a word (measured: back to back, 22 of 96 were lost on a busy machine)."""


class Derived(Protocol):
    """What the host does for a plugin that chooses among others."""

    async def derive(self, parent: str, rules: "Sequence[Rule]") -> None:
        """Have the policies of *rules* run, and no others of *parent*'s."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which plugin of the directory decides for the connections that fit, and with what settings.

    `name` becomes part of the policy's name: PARENT_NAME.
    """

    name: str
    strategy: str
    match: Match
    settings: Mapping[str, Any]


class WrongRule(ConfigurationError):
    """What is said of *rule* cannot be meant; *key* is the one of its settings, if it is there."""

    def __init__(self, rule: Rule, key: str, text: str) -> None:
        super().__init__(f"{rule.name[:64]}: {key}: {text}")
        self.rule, self.key, self.text = rule, key, text


class AddressIds:
    """Which address ID a local address has on a connection (RFC 8684, section 3.2).

    Unlike mptcpd's ID manager it keeps IDs per connection, as the kernel does, and takes an address
    with a source port for another one, as the kernel does, too.  All IDs of a connection are free
    again when it closes.
    """

    def __init__(self, commands: Commands, state: State) -> None:
        self._commands = commands
        self._state = state

    def get(self, connection: Connection, address: str, port: int = 0) -> int:
        """Give the ID that *address* has, else the lowest free one, which it has from now on."""
        living = _connection(self._state, connection)
        return self._commands.address_id(living, read_address("address", address), port)

    def map(self, connection: Connection, address: str, address_id: int, port: int = 0) -> None:
        """Let *address* have *address_id* from now on; its old one is free."""
        living = _connection(self._state, connection)
        self._commands.map_address_id(living, read_address("address", address), address_id, port)

    def remove(self, connection: Connection, address: str, port: int = 0) -> int:
        """Free the ID of *address*; give it, or 0 if it had none."""
        living = _connection(self._state, connection)
        return self._commands.forget_address_id(living, read_address("address", address), port)


class PathManager:
    """The door to the kernel's path managers, and the present state of what they manage.

    Every command is awaited to the kernel's real result, and where that is not the end
    (`create_subflow`) to the peer's.  Errors are those of `mptcpd_dbus.plugin`, each an MptcpdError
    with one line that says what to do.
    """

    def __init__(
        self,
        name: str,
        commands: Commands,
        state: State,
        network: NetworkFilter,
        derived: Derived,
        *,
        addr_flags: tuple[str, ...] = (),
    ) -> None:
        self._name = name
        self._commands = commands
        self._state = state
        self._network = network
        self._derived = derived
        self.addr_flags = addr_flags
        """The flags that the configuration gives for endpoints (`addr-flags`)."""
        self.ids = AddressIds(commands, state)

    # The present.

    @property
    def connections(self) -> Connections:
        """All connections of the host, to be looped over."""
        return Connections(self._state.connections)

    def connection(self, token: int) -> Connection | None:
        """Give the connection that has *token* now, or None."""
        living = self._state.connections.get(token)
        return snapshots.connection(living) if living else None

    def now(self, connection: Connection) -> Connection | None:
        """Give *connection* as it is now; None when it is gone."""
        present = self.connection(connection.token)
        return present if present and present.number == connection.number else None

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """The interfaces that the configuration shows to policies, each with its addresses."""
        found = []
        for living in self._state.network.interfaces.values():
            shown = self._network.shown(living)
            if shown is not None:
                found.append(snapshots.interface(living, shown))
        return tuple(found)

    def interface(self, name: str) -> Interface | None:
        """Give the interface that is called *name* now, or None."""
        return next((i for i in self.interfaces if i.name == name), None)

    def has_link(self, address: str) -> bool:
        """Whether some interface, shown or not, has this local address, is up and has a carrier."""
        living = self._state.network.interfaces.values()
        return any(i.up and i.running and address in i.addresses for i in living)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The in-kernel path manager's endpoints, whoever made them."""
        return tuple(self._picture(e) for e in self._state.endpoints.values())

    @property
    def limits(self) -> Limits:
        """The in-kernel path manager's limits."""
        return Limits(self._state.limits.subflows, self._state.limits.add_addr_accepted)

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Where MPTCP sockets of this host listen."""
        return tuple(Listener(*place) for place in self._state.listeners)

    @property
    def path_manager(self) -> str:
        """Which of the kernel's path managers new connections get: "kernel" or "userspace"."""
        return self._state.settings.path_manager

    @property
    def ready(self) -> bool:
        """Whether MPTCP is on (net.mptcp.enabled)."""
        return self._state.settings.enabled

    def statistics(self, connection: Connection) -> dict[str, int]:
        """Read the counters of *connection* (struct mptcp_info); {} when it is gone."""
        living = self._state.connections.get(connection.token)
        known = living is not None and living.number == connection.number
        return (self._commands.statistics(living) if living and known else None) or {}

    def subflow_statistics(self, subflow: Subflow) -> dict[str, int]:
        """Read the counters of *subflow* (struct tcp_info): rtt, bytes; {} when it is gone."""
        try:
            return self._commands.subflow_statistics(self._subflow(subflow)) or {}
        except NoSuchSubflow:
            return {}

    # Commands on a connection under the userspace path manager.

    async def create_subflow(
        self,
        connection: Connection,
        remote_address: str = "",
        remote_port: int = 0,
        *,
        local_address: str = "",
        local_port: int = 0,
        interface: str | None = None,
        backup: bool = False,
        timeout: float = DEFAULT_TIMEOUT,  # noqa: ASYNC109 # the join's, not ours
    ) -> Subflow:
        """Join from a local to a remote address (MP_JOIN, RFC 8684, section 3.2).

        What is left open is the connection's own.  It is bound to *interface*, which is by default
        the one that owns the local address; "" binds it to none.  *timeout* is in seconds.  Raise
        SubflowFailed with the reason, KernelRefused, NotManageable, NotReady, NoSuchConnection.
        """
        if not 0 < timeout <= MAX_TIMEOUT:
            raise InvalidArgument(f"timeout: {timeout!r} is not between 0 and 20 seconds")
        wish = SubflowWish(
            read_address("remote_address", remote_address) if remote_address else "",
            remote_port,
            read_address("local_address", local_address) if local_address else "",
            local_port,
            interface,
            backup,
        )
        living = _connection(self._state, connection)
        return snapshots.subflow(await self._commands.create_subflow(living, wish, timeout))

    async def announce_address(
        self,
        connection: Connection,
        address: str,
        *,
        port: int = 0,
        address_id: int = 0,
        listener: bool = True,
    ) -> Address:
        """Send ADD_ADDR (RFC 8684, section 3.4.1); with *listener*, see that joins are heard."""
        living = _connection(self._state, connection)
        address = read_address("address", address)
        return snapshots.address(
            await self._commands.announce_address(
                living, address, port=port, address_id=address_id, listener=listener
            )
        )

    async def remove_address(self, connection: Connection, address_id: int) -> None:
        """Send RM_ADDR (RFC 8684, section 3.4.2): the peer closes the subflows to that address."""
        await self._commands.remove_address(_connection(self._state, connection), address_id)

    async def destroy_subflow(self, subflow: Subflow) -> None:
        """Close *subflow*; its address may be used again."""
        await self._commands.destroy_subflow(self._subflow(subflow))

    async def abandon(self, connection: Connection, address_id: int) -> None:
        """Give up a local address whose path is dead: RM_ADDR first, then destroy its subflows.

        Both are needed: a peer that is not told goes on sending into the dead path for half a
        second.  An address that comes back gets a fresh ID.
        """
        await self._commands.abandon(_connection(self._state, connection), address_id)

    async def abandon_lost(self, connection: Connection, addresses: Iterable[str]) -> None:
        """Abandon those of these local addresses that have no link any more, if others have one.

        The last ones stay: TCP outlives an outage, a connection without subflows only for a minute.
        """
        lost = {address for address in addresses if not self.has_link(address)}
        if all(subflow.local_address in lost for subflow in connection.subflows):
            return
        ids = {subflow.local_id for subflow in connection.subflows if subflow.local_address in lost}
        ids |= {known.id for known in connection.local_addresses if known.address in lost}
        for place, address_id in enumerate(ids):
            if place:
                await asyncio.sleep(_DIGESTION)
            with suppress(KernelRefused, NoSuchConnection):  # it is gone already
                await self._commands.abandon(
                    _connection(self._state, connection),
                    address_id,
                    partial(self._is_lost, connection, address_id),
                )

    def _is_lost(self, connection: Connection, address_id: int) -> bool:
        """Whether a local address still has no link, and another subflow has one."""
        now = self.now(connection)
        if now is None or not any(self.has_link(s.local_address) for s in now.subflows):
            return False
        used = {s.local_address for s in now.subflows if s.local_id == address_id}
        used |= {known.address for known in now.local_addresses if known.id == address_id}
        return not any(map(self.has_link, used))

    async def set_backup(self, subflow: Subflow, *, backup: bool) -> None:
        """Ask the peer to use *subflow* only when no other is left (MP_PRIO), or like all."""
        await self._commands.set_backup(self._subflow(subflow), backup=backup)

    # Commands on the in-kernel path manager.

    async def add_endpoint(
        self,
        address: str,
        flags: Sequence[str] = (),
        *,
        port: int = 0,
        endpoint_id: int = 0,
        interface: str = "",
    ) -> Endpoint:
        """Give the in-kernel path manager an address; ID 0 lets the kernel choose."""
        index = self._state.network.by_name(interface).index if interface else 0
        address = read_address("address", address)
        entry = AddressEntry(address, endpoint_id, port, _flag_bits(flags), index)
        return self._picture(await self._commands.add_endpoint(entry, self._name))

    async def remove_endpoint(self, endpoint: Endpoint) -> None:
        """Delete *endpoint*; subflows from its address are closed by the kernel."""
        await self._commands.remove_endpoint(self._endpoint(endpoint))

    async def set_endpoint_flags(self, endpoint: Endpoint, flags: Sequence[str]) -> None:
        """Give *endpoint* exactly these flags; the kernel can change `backup` and `fullmesh`."""
        await self._commands.set_endpoint_flags(self._endpoint(endpoint), _flag_bits(flags))

    async def flush_endpoints(self) -> None:
        """Delete all endpoints, other people's, too, but not NetworkManager's; the limits stay."""
        await self._commands.flush_endpoints()

    async def set_limits(
        self, *, subflows: int | None = None, add_addr_accepted: int | None = None
    ) -> None:
        """Set the in-kernel path manager's limits (0-8); None leaves one as it is."""
        await self._commands.set_limits(subflows, add_addr_accepted)

    # Listeners.

    def listen(self, address: str, port: int = 0) -> Listener:
        """Have an MPTCP socket listen for joins, with port 0 on one that the kernel chooses.

        Listening twice on the same place counts twice; what is left over ends with the plugin.
        """
        address = read_address("address", address)
        return Listener(address, self._commands.listen(self._name, address, port))

    def unlisten(self, listener: Listener) -> None:
        """Undo one `listen`."""
        self._commands.unlisten(self._name, listener.address, listener.port)

    # Policies from rules.

    async def set_rules(self, rules: Sequence[Rule]) -> None:
        """Have other plugins decide for the connections that fit *rules*, the first that fits.

        They stand in this plugin's place in the line.  Those that were set before and are the same
        go on; those that are not among these end, and their connections pass on.  Raise WrongRule;
        then the old ones stay in force, as they do when this plugin does not start again.
        """
        await self._derived.derive(self._name, rules)

    # How it is done.

    def _subflow(self, picture: Subflow) -> LivingSubflow:
        connection = self._state.connections.get(picture.token)
        if connection is not None and connection.number == picture.connection_number:
            living = connection.subflows.get(picture.four_tuple)
            if living is not None:
                return living
        raise NoSuchSubflow(f"subflow {picture.four_tuple} is gone")

    def _endpoint(self, picture: Endpoint) -> LivingEndpoint:
        living = self._state.endpoints.get(picture.id)
        if living is not None and (living.entry.address, living.entry.port) == (
            picture.address,
            picture.port,
        ):
            return living
        raise NoSuchEndpoint(f"endpoint {picture.id} ({picture.address}) is gone")

    def _picture(self, living: LivingEndpoint) -> Endpoint:
        ours = self._commands.own_endpoints.added_by(living, self._name)
        return snapshots.endpoint(living, ours=ours)


def _connection(state: State, picture: Connection) -> LivingConnection:
    living = state.connections.get(picture.token)
    if living is None or living.number != picture.number:
        raise NoSuchConnection(f"connection {picture.token:08x} is gone")
    return living


def _flag_bits(words: Sequence[str]) -> int:
    try:
        return flag_bits(list(words))
    except ValueError as error:
        raise InvalidArgument(f"flags: {error}") from None

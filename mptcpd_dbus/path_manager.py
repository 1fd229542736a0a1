"""Every command: what must hold, the address ID, the listener, then the kernel and its answer."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from mptcpd_dbus.announcements import Announcements
from mptcpd_dbus.choice import Choice
from mptcpd_dbus.commander import Commander
from mptcpd_dbus.core import commands, events, readings
from mptcpd_dbus.core.address_ids import AddressIds
from mptcpd_dbus.core.addresses import read_address
from mptcpd_dbus.core.connections import Address, Connection, Subflow
from mptcpd_dbus.core.endpoints import NETWORKMANAGER, OTHER, Endpoint
from mptcpd_dbus.core.errors import (
    InvalidArgument,
    KernelRefused,
    MptcpdError,
    NoSuchAddress,
    NoSuchConnection,
    NoSuchEndpoint,
    NoSuchSubflow,
    NotManageable,
    NotOurs,
    NotReady,
    SubflowFailed,
)
from mptcpd_dbus.core.state import Change, State
from mptcpd_dbus.core.subflow_wish import SubflowWish, complete
from mptcpd_dbus.core.types import AddressEntry, AddressFlag, FourTuple, is_ipv6
from mptcpd_dbus.joins import GIVEN_UP, Join, JoinKey, Joins, failure, join_key
from mptcpd_dbus.kernel_protocol import Kernel
from mptcpd_dbus.own_endpoints import OwnEndpoints
from mptcpd_dbus.pace import Pace

DEFAULT_TIMEOUT = 10.0
MAX_TIMEOUT = 20.0  # D-Bus clients give up at 25 s, the kernel's SYN only at 127 s

_BROADCAST = "255.255.255.255"

# How long to wait between looks at a subflow that the peer may still refuse, in seconds.
_LOOKS = (0.001, 0.005, 0.02, 0.05, 0.1)


class PathManager:
    """The door to the kernel's path managers, for the bus and for policies alike."""

    def __init__(
        self,
        state: State,
        kernel: Kernel,
        apply: Callable[[readings.Reading], None],
        doubt: Callable[[int], None],
    ) -> None:
        self._state = state
        self._kernel = kernel
        self._apply = apply
        self._doubt = doubt
        self._commander = Commander(kernel, lambda r: apply(self._with_table(r)), doubt)
        self._joins = Joins()
        self._ids = AddressIds()
        self._announced = Announcements(kernel)
        self._pace = Pace()
        self.own_endpoints = OwnEndpoints(state, apply)
        self.choice = Choice(
            kernel.settings, kernel.set_path_manager, lambda: apply(kernel.settings())
        )
        self.newborn: set[int] = set()
        """The connections that the kernel has told of just now: their ID tables are empty."""

    def notice(self, event: events.Event, change: Change) -> None:
        """Hear *event* after the state has."""
        self._joins.notice(event)
        if isinstance(event, events.NewSubflow) and self._joins.left(join_key(event)):
            row = None
            with suppress(MptcpdError, OSError):  # the sweep tells; other events wait behind this
                row = self._kernel.subflow(
                    event.four_tuple, mapped=event.mapped, interface_index=event.interface_index
                )
            if row is not None:
                self._apply(row)  # no event tells that we asked for a backup
        if isinstance(event, events.ConnectionClosed) and change.connection is not None:
            self._announced.close(change.connection)
            self._ids.close(change.connection)

    # Commands on a connection, under the userspace path manager.

    async def create_subflow(
        self, connection: Connection, wish: SubflowWish, seconds: float = DEFAULT_TIMEOUT
    ) -> Subflow:
        """Join from a local to a remote address and wait until both ends have accepted it."""
        await self._pace.keep()
        wish, index = self._completed(connection, wish)
        self._refresh(connection)
        key = JoinKey(connection.token, wish.local_address, wish.remote_address, wish.remote_port)
        join = self._joins.begin(connection, key, wish.local_port)
        try:
            if join is not None:  # before all that the SYN need not wait for
                await self._send_own(connection, key, join, wish, index)
            async with asyncio.timeout(seconds):
                if join is None:
                    join = await self._joins.in_turn(connection, key, wish.local_port)
                    self._check_alive(connection)  # its turn may have come late
                    await self._send_own(connection, key, join, wish, index)
                return await self._outcome(connection, join)
        except TimeoutError:
            if join is not None:  # else what is pending is the join that it waited for
                await self._end_join(connection, key, join)
            raise SubflowFailed(
                f"the subflow from {wish.local_address} to {wish.remote_address} port"
                f" {wish.remote_port} was not made: timed out after {seconds:g} s"
            ) from None
        finally:
            if join is not None:
                self._joins.end(key, join)

    async def send_join(self, connection: Connection, wish: SubflowWish) -> None:
        """Join, and return when the SYN is on its way; an event tells the outcome."""
        await self._pace.keep()
        wish, index = self._completed(connection, wish)
        self._refresh(connection)
        self._joins.leave(
            JoinKey(connection.token, wish.local_address, wish.remote_address, wish.remote_port)
        )
        await self._send_join(connection, wish, index)

    async def announce_address(
        self,
        connection: Connection,
        address: str,
        *,
        port: int = 0,
        address_id: int = 0,
        listener: bool = True,
    ) -> Address:
        """Send ADD_ADDR (RFC 8684, section 3.4.1) and see to it that joins to it are heard."""
        if port and is_ipv6(address) and self._kernel.tcp_timestamps():
            raise NotReady(
                "an IPv6 address cannot be announced with a port while TCP timestamps are on"
                " (no room for the option, the kernel drops it silently): announce it without"
                " a port, or set net.ipv4.tcp_timestamps=0"
            )
        await self._pace.keep()
        self._refresh(connection)
        with self._ids.in_flight(connection, (address, port), address_id) as chosen:
            entry = AddressEntry(address, chosen, port, AddressFlag.SIGNAL)
            before = self._announced.get(connection, chosen)
            if listener:
                self._announced.listen(connection, entry)
            self._announced.add(connection, entry)
            try:
                await self._commander.execute(commands.Announce(connection.token, entry))
                self._check_alive(connection)
            except MptcpdError:
                self._announced.withdraw(connection, chosen)
                if before is not None:
                    self._announced.add(connection, before)
                if before is None or _key(before) != _key(entry):
                    self._announced.silence(connection, entry)
                raise
        announced = connection.local_addresses.get(chosen)
        if announced is None:
            raise NoSuchAddress(f"address ID {chosen} was removed meanwhile")
        return announced

    async def remove_address(self, connection: Connection, address_id: int) -> None:
        """Send RM_ADDR (RFC 8684, section 3.4.2) for a local address ID.

        The peer closes the subflows to it.  Whoever needs an ID later gets another one, while there
        are any that the connection has never used.
        """
        await self._pace.keep()
        await self._remove(connection, address_id)

    async def _remove(self, connection: Connection, address_id: int) -> None:
        self._refresh(connection)
        self._ids.withdraw(connection, address_id)
        # Forgotten first, so that no join that fails meanwhile announces it again.
        entry = self._announced.withdraw(connection, address_id)
        try:
            if address_id and address_id not in connection.local_addresses:
                # A join that failed, or the end of a subflow, took the entry along: the kernel
                # would find nothing to withdraw, though the peer knows the address.
                known = entry or _in_use(connection, address_id)
                if known is not None:
                    await self._commander.execute(commands.Announce(connection.token, known))
            await self._commander.execute(commands.Remove(connection.token, address_id))
        except KernelRefused:
            if entry is not None:
                self._announced.add(connection, entry)
            raise
        except MptcpdError:
            if entry is not None:
                self._announced.silence(connection, entry)
            raise
        if entry is not None:
            self._announced.silence(connection, entry)

    async def abandon(
        self,
        connection: Connection,
        address_id: int,
        still: Callable[[], bool] = lambda: True,
    ) -> None:
        """Give up a local address whose path is dead: leave no subflow and no join from it.

        Nothing is done unless that is *still* wanted when its turn comes.

        The order matters: a peer that is told stops sending into the dead path within
        milliseconds, one that is not retransmits for half a second.  What is gone already is well.
        The last subflow goes, too: the connection lives on without any, and either side can rescue
        it by a new one until the kernel's net.mptcp.close_timeout is over.
        """
        refused: KernelRefused | None = None
        await self._pace.keep()
        if not still():
            return
        try:
            # Told a second time while subflows are closing, the peer would join the address anew.
            if not self._ids.is_withdrawn(connection, address_id):
                await self._remove(connection, address_id)
        except NoSuchAddress:
            pass
        except KernelRefused as error:
            refused = error
        # Nothing may come in between that takes time.
        for subflow in [s for s in connection.subflows.values() if s.local_id == address_id]:
            with suppress(NoSuchSubflow):
                await self._destroy(subflow)
        await self._end_joins_from(connection, address_id)
        if refused is not None:
            raise refused

    async def _end_joins_from(self, connection: Connection, address_id: int) -> None:
        for key, join in list(self._joins.known(connection.token)):
            for row in self._kernel.pending_joins(*key):
                if row.local_id == address_id:
                    await self._end_pending(connection, row.four_tuple, mapped=row.mapped)
                    if join is not None and join.may_be(row.four_tuple.local_port):
                        join.hear(events.SubflowClosed(key.token, row.four_tuple, error=GIVEN_UP))

    async def destroy_subflow(self, subflow: Subflow, *, announce: bool = False) -> None:
        """Close *subflow*; with *announce*, give up its address with all subflows from it."""
        if announce:
            await self.abandon(subflow.connection, subflow.local_id)
            return
        await self._pace.keep()
        await self._destroy(subflow)

    async def set_backup(self, subflow: Subflow, *, backup: bool) -> None:
        """Ask the peer to use *subflow* only when no other is left, or again like the others."""
        await self._pace.keep()
        local, remote = _ends(subflow, AddressFlag.BACKUP if backup else 0)
        await self._commander.execute(
            commands.SetFlags(local, token=subflow.connection.token, remote=remote)
        )

    # Address IDs for policies, unlike mptcpd's per connection, and with a source port another one:
    # to the kernel (RFC 8684, section 3.2), IDs are the connection's, and an address and port is
    # another entry than the address alone (measured).

    def address_id(self, connection: Connection, address: str, port: int = 0) -> int:
        """Give the ID that *address* has, else the lowest free one.

        It is kept for *address* until the connection closes, the address is removed, or the kernel,
        which gives IDs to addresses that the peer joins, gives it away.
        """
        self._refresh(connection)
        return self._ids.reserve(connection, (address, port))

    def map_address_id(
        self, connection: Connection, address: str, address_id: int, port: int = 0
    ) -> None:
        """Use *address_id* for *address* from now on; the one that was kept for it is free."""
        self._refresh(connection)
        self._ids.assign(connection, (address, port), address_id)

    def forget_address_id(self, connection: Connection, address: str, port: int = 0) -> int:
        """Keep no ID for *address* any more; give the one that was kept, or 0."""
        self._check_alive(connection)
        return self._ids.forget(connection, (address, port))

    # Listeners for policies, by name.

    def listen(self, user: str, address: str, port: int = 0) -> int:
        """Have an MPTCP socket listen for joins; give its port, which the kernel chooses for 0.

        What is listened on twice ends with the second `unlisten`.
        """
        place = read_address("address", address)
        if place == _BROADCAST:
            raise InvalidArgument(f"address: {address!r} is not the address of one host")
        return self._kernel.open_listener(user, place, port)

    def unlisten(self, user: str, address: str, port: int) -> None:
        """Undo one `listen`; the last one to do so closes the socket."""
        self._kernel.release_listener(user, read_address("address", address), port)

    def unlisten_all(self, user: str) -> None:
        """Undo every `listen` of *user*."""
        self._kernel.close_listener(user)

    # Commands on the in-kernel path manager.

    async def add_endpoint(self, entry: AddressEntry, by: str = "") -> Endpoint:
        """Add an endpoint, for the plugin *by* if there is one; give it as the kernel has it."""
        await self._commander.execute(commands.AddAddr(entry))
        for endpoint in self._state.endpoints.values():
            if (endpoint.entry.address, endpoint.entry.port) == (entry.address, entry.port):
                self.own_endpoints.add(endpoint, by)
                return endpoint
        raise NoSuchEndpoint(f"endpoint {entry.address} was added, and removed by somebody else")

    async def remove_endpoint(self, endpoint: Endpoint, *, force: bool = False) -> None:
        """Delete *endpoint*; subflows from its address are closed by the kernel."""
        self._check_endpoint(endpoint, force=force)
        await self._commander.execute(commands.DelAddr(endpoint.id))

    async def set_endpoint_flags(
        self, endpoint: Endpoint, flags: int, *, force: bool = False
    ) -> None:
        """Change *endpoint*'s flags, of which the kernel can change two."""
        self._check_endpoint(endpoint, force=force)
        entry = endpoint.entry
        if (entry.flags ^ flags) & ~(AddressFlag.BACKUP | AddressFlag.FULLMESH):
            raise InvalidArgument(
                "flags: only backup and fullmesh of an existing endpoint can be changed;"
                " remove the endpoint and add it with the new flags"
            )
        await self._commander.execute(
            commands.SetFlags(
                AddressEntry(entry.address, entry.id, entry.port, flags, mapped=entry.mapped)
            )
        )

    async def flush_endpoints(self, *, own: bool = False, force: bool = False) -> None:
        """Delete all endpoints, NetworkManager's only by *force*; or our *own* alone.

        The limits stay.
        """
        if own and force:
            raise InvalidArgument("our own endpoints need no force: give one of the two")
        self._apply(self._kernel.endpoints())
        present = self._state.endpoints
        spared = {OTHER, NETWORKMANAGER} if own else set() if force else {NETWORKMANAGER}
        chosen = [e for e in present.values() if e.origin not in spared]
        if len(chosen) == len(present):
            await self._commander.execute(commands.FlushAddrs())
            return
        for endpoint in chosen:
            if present.get(endpoint.id) is endpoint:
                await self._commander.execute(commands.DelAddr(endpoint.id))

    async def set_limits(self, subflows: int | None, add_addr_accepted: int | None) -> None:
        """Set the in-kernel path manager's limits; None leaves one as it is."""
        await self._commander.execute(commands.SetLimits(subflows, add_addr_accepted))

    def set_path_manager(self, name: str) -> None:
        """Choose the kernel's path manager for connections to come."""
        self.choice.set(name)

    def adopt_announced(self) -> list[KernelRefused]:
        """Listen again on what was announced before a restart; give what failed.

        Joins that were sent before it may be on their way, too.
        """
        failed = []
        for connection in self._state.connections.values():
            self._joins.inherit(connection.token)
            for known in connection.local_addresses.values():
                if known.flags & AddressFlag.SIGNAL:
                    entry = AddressEntry(known.address, known.id, known.port, known.flags)
                    self._announced.add(connection, entry)
                    try:
                        self._announced.listen(connection, entry)
                    except KernelRefused as error:
                        failed.append(error)
        return failed

    # Counters, read on demand.

    def statistics(self, connection: Connection) -> dict[str, int] | None:
        """Read the counters of *connection*; None when it is gone."""
        return self._kernel.statistics(connection.token)

    def subflow_statistics(self, subflow: Subflow) -> dict[str, int] | None:
        """Read the counters of *subflow*; None when it is gone."""
        return self._kernel.subflow_statistics(
            subflow.four_tuple, mapped=subflow.mapped, interface_index=subflow.bound_to
        )

    # How it is done.

    def _with_table(self, reading: readings.Reading) -> readings.Reading:
        """Let what is remembered stand for the table of IDs where the kernel shows none."""
        if not isinstance(reading, readings.LocalAddressesRead) or reading.entries is None:
            return reading
        connection = self._state.connections.get(reading.token)
        if reading.table or connection is None:
            return reading
        used = {subflow.local_id for subflow in connection.subflows.values()}
        entries = {
            known.id: AddressEntry(known.address, known.id, known.port, known.flags)
            for known in connection.local_addresses.values()
            if known.id in used
        }
        entries |= {entry.id: entry for entry in self._announced.of(connection)}
        return replace(reading, entries=tuple(entries.values()), table=True)

    def _check_alive(self, connection: Connection) -> None:
        """Raise unless *connection* still has its token, which may be another's by now."""
        if self._state.connections.get(connection.token) is not connection:
            raise NoSuchConnection(f"connection {connection.token:08x} closed meanwhile")

    def _check_endpoint(self, endpoint: Endpoint, *, force: bool) -> None:
        """Raise unless *endpoint* still has its ID, and is not NetworkManager's."""
        self._apply(self._kernel.endpoints())
        if self._state.endpoints.get(endpoint.id) is not endpoint:
            raise NoSuchEndpoint(
                f"endpoint {endpoint.entry.address} is gone (the kernel says: address not found)"
            )
        if endpoint.origin == NETWORKMANAGER and not force:
            raise NotOurs(
                f"endpoint {endpoint.entry.address} is NetworkManager's, which would set it again:"
                " change connection.mptcp-flags of its profile (or, on the bus, say Force)"
            )

    def _completed(self, connection: Connection, wish: SubflowWish) -> tuple[SubflowWish, int]:
        self._check_alive(connection)
        if connection.fallback:
            raise NotReady(
                f"connection {connection.token:08x} has fallen back to plain TCP and can have no"
                " further subflows"
            )
        return complete(wish, connection, self._state.network)

    def _refresh(self, connection: Connection) -> None:
        """Read the ID table anew: the kernel allocates and frees IDs by itself."""
        self._check_alive(connection)
        if connection.token in self.newborn:
            self.newborn.remove(connection.token)
            return
        reading = self._kernel.local_addresses(connection.token)
        if reading is None:
            self._doubt(connection.token)
            raise NoSuchConnection(
                f"connection {connection.token:08x} is gone (the kernel says: invalid token)"
            )
        self._apply(self._with_table(reading))
        if reading.entries is None:
            raise NotManageable(
                f"connection {connection.token:08x} is under the in-kernel path manager"
                " (userspace PM not selected): it obeys endpoints and limits only"
            )

    async def _send_own(
        self, connection: Connection, key: JoinKey, join: Join, wish: SubflowWish, index: int
    ) -> None:
        """Send the join that has the turn, whose events are told from those of others then."""
        if self._joins.left(key):  # a look costs nearly a millisecond
            join.before |= {row.four_tuple.local_port for row in self._kernel.pending_joins(*key)}
        join.unheard = True
        await self._send_join(connection, wish, index)

    async def _send_join(self, connection: Connection, wish: SubflowWish, index: int) -> None:
        key = (wish.local_address, wish.local_port)
        flags = AddressFlag.BACKUP if wish.backup else 0
        with self._ids.in_flight(connection, key) as address_id:
            local = AddressEntry(wish.local_address, address_id, wish.local_port, flags, index)
            remote = AddressEntry(wish.remote_address, port=wish.remote_port)
            try:
                async with self._entries_restored(connection, wish.local_address):
                    await self._commander.execute(
                        commands.SubflowCreate(connection.token, local, remote)
                    )
            except KernelRefused as error:
                if error.errno == errno.ENOTCONN:
                    raise NotReady(
                        f"{error}: connection {connection.token:08x} is not established yet,"
                        " or closing"
                    ) from None
                raise

    async def _outcome(self, connection: Connection, join: Join) -> Subflow:
        event = await join.outcome.get()
        accepted = isinstance(event, events.NewSubflow)
        looks = iter(_LOOKS)
        while isinstance(event, events.NewSubflow):
            join.made = event.four_tuple
            # SUB_ESTABLISHED is no promise: the peer's limit may still refuse the subflow.
            row = self._kernel.subflow(
                event.four_tuple, mapped=event.mapped, interface_index=event.interface_index
            )
            subflow = connection.subflows.get(event.four_tuple)
            if subflow is not None and row is not None and row.fully_established:
                self._apply(row)
                return subflow
            try:
                async with asyncio.timeout(next(looks, _LOOKS[-1])):
                    event = await join.outcome.get()
            except TimeoutError:
                continue
        if event is None:
            raise SubflowFailed(
                f"the subflow was not made: connection {connection.token:08x} closed meanwhile"
            )
        raise failure(event, accepted=accepted)

    async def _end_join(self, connection: Connection, key: JoinKey, join: Join) -> None:
        """Leave nothing on its way: the kernel would go on trying for two minutes."""
        ends = [(row.four_tuple, row.mapped) for row in self._kernel.pending_joins(*key)]
        made = connection.subflows.get(join.made) if join.made else None
        if made is not None:  # seen, but never accepted by the peer
            ends.append((made.four_tuple, made.mapped))
        for t, mapped in ends:
            if not join.may_be(t.local_port):
                continue
            await self._end_pending(connection, t, mapped=mapped)

    async def _end_pending(self, connection: Connection, t: FourTuple, *, mapped: bool) -> None:
        local = AddressEntry(t.local_address, port=t.local_port, mapped=mapped)
        remote = AddressEntry(t.remote_address, port=t.remote_port, mapped=mapped)
        with suppress(MptcpdError):  # it ended by itself meanwhile
            self._check_alive(connection)
            async with self._entries_restored(connection, t.local_address):
                await self._commander.execute(
                    commands.SubflowDestroy(connection.token, local, remote)
                )

    async def _destroy(self, subflow: Subflow) -> None:
        local, remote = _ends(subflow)
        await self._commander.execute(
            commands.SubflowDestroy(subflow.connection.token, local, remote)
        )

    @asynccontextmanager
    async def _entries_restored(self, connection: Connection, address: str) -> AsyncIterator[None]:
        """Announce *address* again if a command takes its announced entry along.

        A join that cannot be sent and the end of a pending one delete the first entry of their
        address, whatever its port and whoever uses it (measured).
        """
        present = [
            entry
            for entry in self._announced.of(connection)
            if entry.address == address and entry.id in connection.local_addresses
        ]
        try:
            yield
        finally:
            for entry in present:
                if (
                    entry.id not in connection.local_addresses
                    and self._announced.get(connection, entry.id) is entry
                ):
                    with suppress(MptcpdError):  # the connection closed meanwhile
                        await self._commander.execute(commands.Announce(connection.token, entry))


def _key(entry: AddressEntry) -> tuple[str, int]:
    return (entry.address, entry.port)


def _in_use(connection: Connection, address_id: int) -> AddressEntry | None:
    """Give the address that subflows use under *address_id*."""
    for subflow in connection.subflows.values():
        if subflow.local_id == address_id:
            address = subflow.four_tuple.local_address
            return AddressEntry(address, address_id, 0, AddressFlag.SIGNAL)
    return None


def _ends(subflow: Subflow, flags: int = 0) -> tuple[AddressEntry, AddressEntry]:
    """Give both ends as commands want them: in the family of the subflow's own socket."""
    t, mapped = subflow.four_tuple, subflow.mapped
    return (
        AddressEntry(t.local_address, 0, t.local_port, flags, subflow.bound_to, mapped),
        AddressEntry(t.remote_address, port=t.remote_port, mapped=mapped),
    )

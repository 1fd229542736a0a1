"""A kernel in memory, for tests and for plugin authors; it answers as the real one was measured.

It knows one host and what its peers answer, and nothing of sockets or packets.  Refusals have the
errno and the words of Linux 6.18 (`mptcp_pm` family, <linux/mptcp_pm.h>).
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import errno
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any, NoReturn, TypeVar

from mptcpd_dbus.core import commands, events
from mptcpd_dbus.core.errors import InvalidArgument, KernelRefused, NotMultipath
from mptcpd_dbus.core.readings import (
    ConnectionRead,
    EndpointsRead,
    LimitsRead,
    ListenerRead,
    LocalAddressesRead,
    SettingsRead,
    SubflowRead,
)
from mptcpd_dbus.core.types import AddressEntry, AddressFlag, FourTuple, is_ipv6

_ESTABLISHED, _SYN_SENT = 1, 2  # enum in <net/tcp_states.h>
_MAX_ENDPOINTS = _MAX_LIMIT = 8
_ROWS = 128  # of one datagram of a dump
_BURST = 1000  # commands at one moment of a play; more take time, lest a policy play for ever

T = TypeVar("T")
S = TypeVar("S", events.NewSubflow, events.SubflowClosed)

JOINED = SubflowRead(
    token=0,
    four_tuple=FourTuple("", 0, "", 0),
    mapped=False,
    state=_ESTABLISHED,
    local_id=0,
    remote_id=0,
    backup=False,
    backup_requested=False,
    interface_index=0,
    initial=False,
    opened_here=False,
    fully_established=True,
)
"""A subflow that the peer made and both ends accepted; for `dataclasses.replace`."""


class Answer(Enum):
    """What becomes of a join; the key in `FakeKernel.answers` is the remote port."""

    ACCEPTED = auto()
    REFUSED = auto()  # nothing listens there
    SILENT = auto()  # the SYN is not answered
    LIMIT = auto()  # the peer's limit of subflows is reached: it seems to be accepted at first
    NO_ROUTE = auto()  # the SYN cannot be sent


@dataclass(slots=True)
class FakeConnection:
    """What the kernel has of a connection; tests may change it behind everybody's back."""

    row: ConnectionRead
    userspace: bool
    established: bool = True
    ids: dict[int, AddressEntry] = field(default_factory=dict)
    subflows: dict[FourTuple, SubflowRead] = field(default_factory=dict)


class FakeKernel:
    """Fulfils `kernel_protocol.Kernel`; what the kernel would tell goes to `on_event`."""

    def __init__(self) -> None:
        self.on_event: Callable[[events.Event], object] = lambda _: None
        self.answers: dict[int, Answer] = {}
        self.executed: list[commands.Command] = []
        self.open: dict[int, FakeConnection] = {}
        self.sockets: dict[int, int] = {}  # descriptor, token
        self.app_listeners: set[tuple[str, int]] = set()
        self.own_listeners: dict[tuple[str, int], Counter[Hashable]] = {}
        self.timestamps = True
        self._endpoints: dict[int, AddressEntry] = {}
        self._limits = LimitsRead(subflows=2, add_addr_accepted=0)
        self._settings = SettingsRead(
            enabled=True,
            path_manager="userspace",
            available_path_managers=("kernel", "userspace"),
            scheduler="default",
        )
        self._ephemeral = 40000
        self._moment = 0.0
        self._burst = 0
        self._owners: dict[FourTuple, FakeConnection] = {}
        self._handlers: dict[type[commands.Command], Callable[[Any], None]] = {
            commands.AddAddr: self._add_addr,
            commands.DelAddr: self._del_addr,
            commands.GetAddr: self._get_addr,
            commands.FlushAddrs: lambda _: self._endpoints.clear(),
            commands.SetLimits: self._set_limits,
            commands.GetLimits: lambda _: None,
            commands.SetFlags: self._set_flags,
            commands.Announce: self._announce,
            commands.Remove: self._remove,
            commands.SubflowCreate: self._subflow_create,
            commands.SubflowDestroy: self._subflow_destroy,
        }

    # What applications and peers do.

    def connect(
        self,
        token: int,
        four_tuple: FourTuple,
        *,
        server_side: bool = False,
        userspace: bool = True,
        deny_join_id0: bool = False,
        mapped: bool = False,
    ) -> FakeConnection:
        """Let an application's connection become established."""
        row = ConnectionRead(
            token,
            four_tuple,
            mapped,
            _ESTABLISHED,
            uid=1000,
            inode=1,
            cgroup=1,
            fallback=False,
        )
        made = self.open[token] = FakeConnection(row, userspace)
        self.put(
            replace(
                JOINED,
                token=token,
                four_tuple=four_tuple,
                mapped=mapped,
                initial=True,
                opened_here=not server_side,
            )
        )
        for kind in (events.NewConnection, events.ConnectionEstablished):
            self.on_event(
                kind(
                    token,
                    four_tuple,
                    server_side=server_side,
                    deny_join_id0=deny_join_id0,
                    mapped=mapped,
                )
            )
        return made

    def put(self, row: SubflowRead) -> None:
        """Have a subflow, and tell nobody."""
        connection = self._owners[row.four_tuple] = self.open[row.token]
        connection.subflows[row.four_tuple] = row

    def close(self, token: int) -> None:
        """Let the application close: CLOSED, and nothing for the subflows."""
        del self.open[token]
        self.on_event(events.ConnectionClosed(token))

    def abort(self, token: int) -> None:
        """Let the peer abort (MP_FASTCLOSE, RFC 8684, section 3.5): no event ever tells."""
        del self.open[token]

    def answer(self, row: SubflowRead, answer: Answer) -> None:
        """Let the peer answer the join whose SYN *row* shows."""
        if answer in (Answer.ACCEPTED, Answer.LIMIT):
            accepted = answer is Answer.ACCEPTED
            self.put(replace(row, state=_ESTABLISHED, fully_established=accepted))
            self.on_event(_subflow_event(events.NewSubflow, row))
        if answer in (Answer.REFUSED, Answer.LIMIT):
            error = errno.ECONNREFUSED if answer is Answer.REFUSED else 0
            self.end_subflow(row.token, row.four_tuple, error)

    def end_subflow(self, token: int, four_tuple: FourTuple, error: int = 0) -> None:
        """End a subflow, and tell."""
        row = self.open[token].subflows.pop(four_tuple)
        if row.state == _SYN_SENT and error == errno.ECONNRESET:  # destroyed before an answer
            row = replace(row, four_tuple=four_tuple._replace(remote_port=0))
        self.on_event(replace(_subflow_event(events.SubflowClosed, row), error=error))

    # The protocol: commands.

    async def execute(self, command: commands.Command) -> None:
        """Run *command*; raise KernelRefused."""
        loop = asyncio.get_running_loop()
        self._burst = self._burst + 1 if loop.time() == self._moment else 0
        if self._burst > _BURST:
            await asyncio.sleep(1)  # played time: a policy that never rests must meet its limit
        self._moment = loop.time()
        self.executed.append(command)
        self._handlers[type(command)](command)

    def _get_addr(self, command: commands.GetAddr) -> None:
        if command.token is not None:
            self._userspace(command, command.token)

    def _add_addr(self, command: commands.AddAddr) -> None:
        entry, known = command.endpoint, self._endpoints
        if entry.port and not entry.flags & AddressFlag.SIGNAL:
            _refuse(command, "flags must have signal and not subflow when using port")
        if entry.flags & AddressFlag.SIGNAL and entry.flags & AddressFlag.FULLMESH:
            _refuse(command, "flags mustn't have both signal and fullmesh")
        if entry.flags & AddressFlag.IMPLICIT:
            _refuse(command, "can't create IMPLICIT endpoint")
        for code, wrong in (
            (errno.ERANGE, len(known) == _MAX_ENDPOINTS),
            (errno.EEXIST, any(_key(entry) == _key(other) for other in known.values())),
            (errno.EBUSY, entry.id in known),
        ):
            if wrong:
                _refuse(command, f"too many addresses or duplicate one: {-code}", code)
        chosen = entry.id or max(known, default=0) + 1
        known[chosen] = replace(entry, id=chosen)

    def _del_addr(self, command: commands.DelAddr) -> None:
        if command.id and self._endpoints.pop(command.id, None) is None:
            _refuse(command, "address not found")

    def _set_limits(self, command: commands.SetLimits) -> None:
        old, new = self._limits, (command.subflows, command.add_addr_accepted)
        if any(limit is not None and limit > _MAX_LIMIT for limit in new):
            _refuse(command, f"limit greater than maximum ({_MAX_LIMIT})")
        self._limits = LimitsRead(
            old.subflows if new[0] is None else new[0],
            old.add_addr_accepted if new[1] is None else new[1],
        )

    def _set_flags(self, command: commands.SetFlags) -> None:
        if command.token is None or command.remote is None:
            self._set_endpoint_flags(command)
            return
        connection = self._userspace(command, command.token)
        wanted = (*_key(command.local), *_key(command.remote))
        for four_tuple, row in connection.subflows.items():
            if all(w in (0, is_) for w, is_ in zip(wanted, four_tuple, strict=True)):
                backup = bool(command.local.flags & AddressFlag.BACKUP)
                connection.subflows[four_tuple] = replace(row, backup_requested=backup)
                return
        _refuse(command, "subflow not found")

    def _set_endpoint_flags(self, command: commands.SetFlags) -> None:
        changeable = AddressFlag.BACKUP | AddressFlag.FULLMESH
        for known in self._endpoints.values():
            if _key(known) == _key(command.local):
                flags = known.flags & ~changeable | command.local.flags & changeable
                if flags & AddressFlag.SIGNAL and flags & AddressFlag.FULLMESH:
                    _refuse(command, "invalid addr flags")
                self._endpoints[known.id] = replace(known, flags=flags)
                return
        _refuse(command, "address not found")

    def _announce(self, command: commands.Announce) -> None:
        connection = self._userspace(command, command.token)
        if not command.local.id:
            _refuse(command, "invalid addr id")
        if not command.local.flags & AddressFlag.SIGNAL:
            _refuse(command, "invalid addr flags")
        _note_id(command, connection, command.local)

    def _remove(self, command: commands.Remove) -> None:
        connection = self._userspace(command, command.token)
        if command.local_id and connection.ids.pop(command.local_id, None) is None:
            _refuse(command, f"address with id {command.local_id} not found")
        for row in list(connection.subflows.values()):  # the peer closes what it knows
            if row.local_id == command.local_id and row.state != _SYN_SENT:
                self.end_subflow(command.token, row.four_tuple)

    def _subflow_create(self, command: commands.SubflowCreate) -> None:
        connection = self._userspace(command, command.token)
        local, remote = command.local, command.remote
        if local.flags & AddressFlag.SIGNAL:
            _refuse(command, "invalid addr flags")
        if is_ipv6(local.address) != is_ipv6(remote.address):
            _refuse(command, "families mismatch")
        _note_id(command, connection, replace(local, flags=local.flags | AddressFlag.SUBFLOW))
        answer = self.answers.get(remote.port, Answer.ACCEPTED)
        if not connection.established or answer is Answer.NO_ROUTE:
            _forget_id(connection, local.address)
            code = errno.ENETUNREACH if connection.established else errno.ENOTCONN
            _refuse(command, f"connect error: {-code}", code)
        self._ephemeral += 1
        port = local.port or self._ephemeral
        row = replace(
            JOINED,
            token=command.token,
            four_tuple=FourTuple(local.address, port, *_key(remote)),
            mapped=local.mapped,
            state=_SYN_SENT,
            local_id=local.id,
            backup_requested=bool(local.flags & AddressFlag.BACKUP),
            interface_index=local.interface_index,
            opened_here=True,
            fully_established=False,
        )
        self.put(row)
        self.answer(row, answer)

    def _subflow_destroy(self, command: commands.SubflowDestroy) -> None:
        connection = self._userspace(command, command.token)
        local, remote = command.local, command.remote
        for end, port in (("local", local.port), ("remote", remote.port)):
            if not port:
                _refuse(command, f"missing {end} port")
        four_tuple = FourTuple(*_key(local), *_key(remote))
        row = connection.subflows.get(four_tuple)
        if row is None or row.mapped != local.mapped:
            _refuse(command, "subflow not found", errno.ESRCH)
        _forget_id(connection, local.address)
        error = errno.ECONNRESET if row.state == _SYN_SENT else 0
        self.end_subflow(command.token, four_tuple, error)

    def _userspace(self, command: commands.Command, token: int) -> FakeConnection:
        connection = self.open.get(token)
        if connection is None:
            _refuse(command, "invalid token")
        if not connection.userspace:
            _refuse(command, "userspace PM not selected")
        return connection

    # The protocol: look-ups and dumps.

    def local_addresses(self, token: int) -> LocalAddressesRead | None:
        """Read who manages the connection and its address IDs."""
        connection = self.open.get(token)
        if connection is None:
            return None
        entries = tuple(connection.ids.values()) if connection.userspace else None
        return LocalAddressesRead(token, entries)

    def endpoints(self) -> EndpointsRead:
        """Read the endpoints."""
        return EndpointsRead(tuple(self._endpoints.values()))

    def limits(self) -> LimitsRead:
        """Read the limits."""
        return self._limits

    def settings(self) -> SettingsRead:
        """Read the settings."""
        return self._settings

    def set_path_manager(self, name: str) -> None:
        """Set the path manager for connections to come."""
        if name not in self._settings.available_path_managers:
            raise KernelRefused("path_manager", errno.ENOENT, f"there is no {name!r}")
        self._settings = replace(self._settings, path_manager=name)

    def tcp_timestamps(self) -> bool:
        """Whether TCP timestamps are on."""
        return self.timestamps

    def connection(self, token: int) -> ConnectionRead | None:
        """Look one connection up by its token."""
        connection = self.open.get(token)
        return connection.row if connection else None

    def token(self, descriptor: int) -> int:
        """Read the token of the connection behind a socket; raise NotMultipath."""
        if descriptor not in self.sockets:
            raise NotMultipath("the socket is not connected; connect, or pass what accept() gave")
        return self.sockets[descriptor]

    def subflow(
        self, four_tuple: FourTuple, *, mapped: bool, interface_index: int
    ) -> SubflowRead | None:
        """Look one subflow up."""
        owner = self._owners.get(four_tuple)
        if owner is None or self.open.get(owner.row.token) is not owner:
            return None
        row = owner.subflows.get(four_tuple)
        return (
            row if row and (row.mapped, row.interface_index) == (mapped, interface_index) else None
        )

    def pending_joins(
        self, token: int, local_address: str, remote_address: str, remote_port: int
    ) -> list[SubflowRead]:
        """Find the joins whose SYN is not answered yet."""
        connection = self.open.get(token)
        return [
            row
            for (local, _, *remote), row in (connection.subflows.items() if connection else ())
            if (local, *remote) == (local_address, remote_address, remote_port)
            and row.state == _SYN_SENT
        ]

    def connections(self) -> Iterator[Sequence[ConnectionRead]]:
        """Dump all connections."""
        return _slices([connection.row for connection in self.open.values()])

    def subflows(self) -> Iterator[Sequence[SubflowRead]]:
        """Dump all subflows."""
        return _slices([row for c in self.open.values() for row in c.subflows.values()])

    def listeners(self) -> list[ListenerRead]:
        """Dump the MPTCP sockets that listen."""
        places = (*self.app_listeners, *self.own_listeners)
        return [ListenerRead(*place, interface_index=0, uid=0, inode=1) for place in places]

    def statistics(self, token: int) -> dict[str, int] | None:
        """Read the counters of a connection."""
        connection = self.open.get(token)
        return {"subflows_total": len(connection.subflows)} if connection else None

    def subflow_statistics(
        self, four_tuple: FourTuple, *, mapped: bool, interface_index: int
    ) -> dict[str, int] | None:
        """Read the counters of a subflow."""
        row = self.subflow(four_tuple, mapped=mapped, interface_index=interface_index)
        return {"rtt": 0} if row else None

    def open_listener(
        self, user: Hashable, address: str, port: int, covering: frozenset[str] = frozenset()
    ) -> int:
        """Listen for *user* unless an application does."""
        if any((place, port) in self.app_listeners for place in covering):
            return port
        if (address, port) in self.app_listeners:
            text = f"{address} port {port}: another socket listens there"
            raise KernelRefused("listen", errno.EADDRINUSE, text)
        if not port:
            self._ephemeral += 1
            port = self._ephemeral
        if (address, port) not in self.own_listeners:
            self.own_listeners[address, port] = Counter()
            self.on_event(events.ListenerCreated(address, port))
        self.own_listeners[address, port][user] += 1
        return port

    def release_listener(self, user: Hashable, address: str, port: int) -> None:
        """Undo one opening by *user*."""
        users = self.own_listeners.get((address, port), Counter())
        if not users[user]:
            raise InvalidArgument(f"{address} port {port} is not listened on by {user}")
        users[user] -= 1
        self._close_unused()

    def close_listener(self, user: Hashable) -> None:
        """Stop listening on behalf of *user*; the last user of a listener closes it."""
        for users in self.own_listeners.values():
            del users[user]
        self._close_unused()

    def _close_unused(self) -> None:
        for place, users in list(self.own_listeners.items()):
            if not +users:
                del self.own_listeners[place]
                self.on_event(events.ListenerClosed(*place))


def _refuse(command: commands.Command, text: str, code: int = errno.EINVAL) -> NoReturn:
    raise KernelRefused(type(command).__name__, code, text)


def _key(entry: AddressEntry) -> tuple[str, int]:
    return entry.address, entry.port


def _note_id(command: commands.Command, connection: FakeConnection, entry: AddressEntry) -> None:
    """One address has one ID; the same address with a port is another entry."""
    for known in connection.ids.values():
        if (known.id == entry.id) != (_key(known) == _key(entry)):
            _refuse(command, "did not match address and id")
    if entry.id:
        connection.ids.setdefault(entry.id, entry)


def _forget_id(connection: FakeConnection, address: str) -> None:
    """Delete the first entry of the address, whatever its port and whoever uses it (measured)."""
    for known in connection.ids.values():
        if known.address == address:
            del connection.ids[known.id]
            return


def _subflow_event(kind: type[S], row: SubflowRead) -> S:
    return kind(
        row.token,
        row.four_tuple,
        row.local_id,
        row.remote_id,
        row.backup,
        row.interface_index,
        row.mapped,
    )


def _slices(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    return (rows[i : i + _ROWS] for i in range(0, len(rows), _ROWS))

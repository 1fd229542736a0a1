"""Asks the kernel what is there: MPTCP connections, their subflows, MPTCP listeners.

Knows the questions; what the rows mean is in diag_rows.py.  No dump is atomic: rows may come twice,
and an absence deserves a single look-up.  Source: sock_diag(7), <linux/inet_diag.h>.
"""
# SPDX-License-Identifier: BSD-3-Clause

import errno
from collections.abc import Callable, Generator
from socket import AF_INET, AF_INET6, IPPROTO_TCP
from struct import Struct
from typing import TypeVar

from mptcpd_dbus.core.errors import DecodeError, InvalidArgument, KernelRefused, NotReady
from mptcpd_dbus.core.readings import ConnectionRead, ListenerRead, SubflowRead
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.kernel.addresses import pack
from mptcpd_dbus.kernel.diag_rows import (
    CONNECTION_COUNTERS,
    LISTEN,
    SUBFLOW_COUNTERS,
    decode_connection,
    decode_information,
    decode_listener,
    decode_subflow,
)
from mptcpd_dbus.kernel.netlink import NLM_F_DUMP, U32, pack_attribute
from mptcpd_dbus.kernel.netlink_socket import NetlinkSocket, RefusedError
from mptcpd_dbus.kernel.unread import Unread

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
IPPROTO_MPTCP = 262
INET_DIAG_REQ_PROTOCOL = 3  # a protocol number too large for the structure's one byte
INFO_WANTED = 1 << 1  # idiag_ext; without it TCP gives no ULP information either

# struct inet_diag_req_v2: family, protocol, extensions, states; sport, dport (network order), src,
# dst, interface, cookie
REQUEST = Struct("=BBBxI2s2s16s16sIII")
NO_COOKIE = 0xFFFFFFFF
_NO_PORT = bytes(2)
_NO_ADDRESS = bytes(16)

# <net/tcp_states.h>
SYN_SENT, SYN_RECV, TIME_WAIT, CLOSE = 2, 3, 6, 7
ALL_STATES = 0xFFF
CONNECTION_STATES = ALL_STATES & ~(1 << LISTEN)
# A join that has failed or is not answered is no subflow yet; TIME_WAIT has no ULP any more.
SUBFLOW_STATES = ALL_STATES & ~sum(1 << s for s in (SYN_SENT, SYN_RECV, TIME_WAIT, CLOSE, LISTEN))

_Row = TypeVar("_Row", ConnectionRead, SubflowRead, ListenerRead)


class SockDiag:
    """Look-ups on one socket; each dump has its own, so that look-ups may come in between."""

    def __init__(self) -> None:
        self._socket = NetlinkSocket(NETLINK_SOCK_DIAG)
        self._unread = Unread("a socket")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def connection(self, token: int) -> ConnectionRead | None:
        """Look up one connection, whatever its family: 20 us."""
        row = self._find(_mptcp_request(AF_INET, CONNECTION_STATES, token))
        return decode_connection(row) if row is not None else None

    def statistics(self, token: int) -> dict[str, int] | None:
        """Read the counters of one connection, by their names in struct mptcp_info."""
        row = self._find(_mptcp_request(AF_INET, CONNECTION_STATES, token))
        return decode_information(row, CONNECTION_COUNTERS) if row is not None else None

    def subflow(
        self, four_tuple: FourTuple, *, mapped: bool = False, interface_index: int = 0
    ) -> SubflowRead | None:
        """Look up one subflow; one that is bound to a device is found by its index only."""
        found = self._find_subflow(four_tuple, mapped, interface_index)
        return found[1] if found is not None else None

    def subflow_statistics(
        self, four_tuple: FourTuple, *, mapped: bool = False, interface_index: int = 0
    ) -> dict[str, int] | None:
        """Read the counters of one subflow, by their names in struct tcp_info."""
        found = self._find_subflow(four_tuple, mapped, interface_index)
        return decode_information(found[0], SUBFLOW_COUNTERS) if found is not None else None

    def connections(self) -> Generator[list[ConnectionRead], None, None]:
        """Dump all connections, closing ones too, a list per datagram."""
        for family in (AF_INET, AF_INET6):
            yield from self._dump(_mptcp_request(family, CONNECTION_STATES), decode_connection)

    def subflows(self) -> Generator[list[SubflowRead], None, None]:
        """Dump all subflows that were established, a list per datagram."""
        for family in (AF_INET, AF_INET6):
            yield from self._dump(_tcp_dump_request(family, SUBFLOW_STATES), decode_subflow)

    def listeners(self) -> Generator[list[ListenerRead], None, None]:
        """Dump all listening MPTCP sockets, a list per datagram."""
        for family in (AF_INET, AF_INET6):
            yield from self._dump(_tcp_dump_request(family, 1 << LISTEN), decode_listener)

    def pending(
        self, token: int, local_address: str, remote_address: str, remote_port: int
    ) -> list[SubflowRead]:
        """Find the joins of a connection that the peer has not answered yet: under 1 ms."""
        return [
            row
            for family in (AF_INET, AF_INET6)
            for rows in self._dump(
                _tcp_dump_request(family, 1 << SYN_SENT, remote_port), decode_subflow
            )
            for row in rows
            if row.token == token
            and row.four_tuple.local_address == local_address
            and row.four_tuple.remote_address == remote_address
        ]

    def _find_subflow(
        self,
        four_tuple: FourTuple,
        mapped: bool,  # noqa: FBT001 - private
        interface_index: int,
    ) -> tuple[bytes, SubflowRead] | None:
        row = self._find(_tcp_request(four_tuple, mapped, interface_index))
        subflow = decode_subflow(row) if row is not None else None
        # Where no socket has the 4-tuple, the kernel gives a listener that would take it.
        if row is None or subflow is None or subflow.four_tuple != four_tuple:
            return None
        return row, subflow

    def _find(self, request: bytes) -> bytes | None:
        try:
            for rows in self._socket.ask(SOCK_DIAG_BY_FAMILY, 0, request):
                return rows[0]
        except RefusedError as refused:
            if refused.reply.errno == errno.ENOENT:
                return None
            raise KernelRefused("SOCK_DIAG", refused.reply.errno, refused.reply.text) from None
        return None

    def _dump(
        self, request: bytes, decode: Callable[[bytes], _Row | None]
    ) -> Generator[list[_Row], None, None]:
        sock = NetlinkSocket(NETLINK_SOCK_DIAG)
        try:
            for rows in sock.ask(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, request):
                decoded = (self._decoded(decode, data) for data in rows)
                yield [row for row in decoded if row is not None]
        except RefusedError as refused:
            if refused.reply.errno == errno.ENOENT:
                raise NotReady(
                    "the kernel cannot list MPTCP or TCP sockets: it needs the modules mptcp_diag"
                    " and tcp_diag (CONFIG_INET_MPTCP_DIAG)"
                ) from None
            raise KernelRefused("SOCK_DIAG", refused.reply.errno, refused.reply.text) from None
        finally:
            sock.close()

    def _decoded(self, decode: Callable[[bytes], _Row | None], data: bytes) -> _Row | None:
        """Decode a row of a dump; one that cannot be read costs itself only."""
        try:
            return decode(data)
        except DecodeError as error:
            self._unread.report(data, error)
            return None


def _mptcp_request(family: int, states: int, token: int = 0) -> bytes:
    """Ask for protocol 262; a single look-up goes by the token, which takes the cookie's place."""
    request = REQUEST.pack(
        family, 0, INFO_WANTED, states, _NO_PORT, _NO_PORT, _NO_ADDRESS, _NO_ADDRESS, 0, token, 0
    )
    return request + pack_attribute(INET_DIAG_REQ_PROTOCOL, U32.pack(IPPROTO_MPTCP))


def _tcp_dump_request(family: int, states: int, remote_port: int = 0) -> bytes:
    return REQUEST.pack(
        family,
        IPPROTO_TCP,
        INFO_WANTED,
        states,
        _NO_PORT,
        remote_port.to_bytes(2, "big"),
        _NO_ADDRESS,
        _NO_ADDRESS,
        0,
        NO_COOKIE,
        NO_COOKIE,
    )


def _tcp_request(four_tuple: FourTuple, mapped: bool, interface_index: int) -> bytes:  # noqa: FBT001 - private
    family, local = pack(four_tuple.local_address, mapped=mapped)
    _, remote = pack(four_tuple.remote_address, mapped=mapped)
    try:
        ports = [
            port.to_bytes(2, "big") for port in (four_tuple.local_port, four_tuple.remote_port)
        ]
    except OverflowError as error:
        raise InvalidArgument(f"{four_tuple} has a port out of range") from error
    return REQUEST.pack(
        family,
        IPPROTO_TCP,
        INFO_WANTED,
        ALL_STATES,
        *ports,
        local.ljust(16, b"\0"),
        remote.ljust(16, b"\0"),
        interface_index,
        NO_COOKIE,
        NO_COOKIE,
    )

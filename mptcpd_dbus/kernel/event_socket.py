"""The socket on which the kernel tells MPTCP events, read in slices and without asyncio.

Knows how to open, to drain and to notice a loss; what a loss means is the daemon's business.  It
takes messages of the kernel only.  Source: netlink(7), socket(7).
"""
# SPDX-License-Identifier: BSD-3-Clause

import errno
import socket

from mptcpd_dbus.core.errors import DecodeError, KernelRefused, NotReady
from mptcpd_dbus.core.events import MptcpEvent
from mptcpd_dbus.kernel.family import NETLINK_GENERIC, find_family
from mptcpd_dbus.kernel.mptcp_events import EVENT_GROUP, decode_event
from mptcpd_dbus.kernel.mptcp_pm import FAMILY
from mptcpd_dbus.kernel.netlink import U16
from mptcpd_dbus.kernel.netlink_socket import SOL_NETLINK, NetlinkSocket, widen
from mptcpd_dbus.kernel.unread import Unread

NETLINK_ADD_MEMBERSHIP = 1
# Every event costs 832 bytes of the buffer, whatever its size: this holds some 160,000.
RECEIVE_BUFFER = 64 << 20
READ_SIZE = 448  # events have 28 to 124 bytes, one per datagram; a larger buffer would be malloc's
SLICE = 256  # datagrams, 1.5 to 4 ms


class EventSocket:
    """A member of the group `mptcp_pm_events`, in the network namespace of its making."""

    def __init__(self, receive_buffer: int = RECEIVE_BUFFER) -> None:
        questions = NetlinkSocket(NETLINK_GENERIC)
        try:
            family = find_family(questions, FAMILY)
        finally:
            questions.close()
        if EVENT_GROUP not in family.groups:
            raise NotReady(f"the kernel's {FAMILY} has no group {EVENT_GROUP}: Linux 5.19 has it")
        self._kind = U16.pack(family.id)  # as it stands in the header
        self._unread = Unread("an event")
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            NETLINK_GENERIC,
        )
        try:
            self._socket.bind((0, 0))
            widen(self._socket, receive_buffer)
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, family.groups[EVENT_GROUP])
        except OSError as error:
            self._socket.close()
            text = "joining the group needs CAP_NET_ADMIN" if error.errno == errno.EPERM else ""
            raise KernelRefused(EVENT_GROUP, error.errno or 0, text) from error

    def fileno(self) -> int:
        """Give the descriptor to watch for reading."""
        return self._socket.fileno()

    def close(self) -> None:
        """Leave the group."""
        self._socket.close()

    def drain(self, limit: int = SLICE) -> tuple[list[MptcpEvent], bool, bool]:
        """Read events until none is left or *limit* datagrams are read: (events, lost, more).

        After an overflow the kernel drops every further event until the queue has been read
        empty, so whoever sees `lost` reads on while there is `more`, and only then looks afresh.
        """
        events: list[MptcpEvent] = []
        lost = False
        receive = self._socket.recvfrom
        for _ in range(limit):
            try:
                datagram, (sender, _groups) = receive(READ_SIZE)
            except BlockingIOError:
                return events, lost, False
            except OSError as error:
                lost = True
                if (
                    error.errno != errno.ENOBUFS
                ):  # no memory, say: what was read must not go with it
                    return events, lost, False
                continue
            if sender != 0 or datagram[4:6] != self._kind:
                continue  # another process, or no event
            try:
                event = decode_event(datagram)
            except DecodeError as error:
                self._unread.report(datagram, error)
            else:
                if event is not None:
                    events.append(event)
        return events, lost, True

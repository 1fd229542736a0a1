"""A blocking netlink socket that asks one question at a time and checks that the answer is its own.

The kernel answers within the system call that sends the question, so nothing really waits here.
Knows no family and no command.  Source: netlink(7).
"""
# SPDX-License-Identifier: BSD-3-Clause

import errno
import logging
import os
import socket
import struct
from collections.abc import Generator

from mptcpd_dbus.core.errors import DecodeError
from mptcpd_dbus.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    ErrorReply,
    error_reply,
    messages,
    pack_message,
)

logger = logging.getLogger(__name__)

SOL_NETLINK = 270
SO_RCVBUFFORCE = 33
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
# A dump comes in datagrams as large as the largest read seen, up to 32 KiB; a smaller read would
# silently lose their ends.
READ_SIZE = 65536
TIME_LIMIT = 5


class RefusedError(Exception):
    """The kernel answered with an error, or not at all."""

    def __init__(self, reply: ErrorReply) -> None:
        super().__init__(reply)
        self.reply = reply


class NetlinkSocket:
    """One netlink socket in the network namespace of its making."""

    def __init__(self, protocol: int, time_limit: int = TIME_LIMIT) -> None:
        self._time_limit = time_limit
        self._sequence = 0
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
        )
        self._socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", time_limit, 0)
        )
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ask(self, kind: int, flags: int, payload: bytes) -> Generator[list[bytes], None, None]:
        """Send a request; yield the payloads of the answer, one list per datagram.

        Raises RefusedError.  Answers to earlier questions, which came too late, are passed over.
        """
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        self._send(pack_message(kind, flags | NLM_F_REQUEST, self._sequence, payload))
        ends_itself = not flags & (NLM_F_DUMP | NLM_F_ACK)
        finished = False
        while not finished:
            payloads = []
            datagram = self._receive()
            try:
                for message in messages(datagram):
                    if message.sequence != self._sequence:
                        continue
                    if message.kind in (NLMSG_ERROR, NLMSG_DONE):
                        reply = error_reply(datagram, message)
                        if reply.errno:
                            raise RefusedError(reply)
                        finished = True
                    else:
                        payloads.append(datagram[message.start : message.end])
                        finished = finished or ends_itself
            except DecodeError as error:
                raise RefusedError(ErrorReply(errno.EBADMSG, str(error))) from error
            if payloads:
                yield payloads

    def _send(self, request: bytes) -> None:
        try:
            self._socket.send(request)
        except OSError as error:
            raise _refused(error) from error

    def _receive(self) -> bytes:
        while True:
            try:
                datagram, (sender, _) = self._socket.recvfrom(READ_SIZE)
            except BlockingIOError as error:
                text = f"no answer within {self._time_limit} s"
                raise RefusedError(ErrorReply(errno.ETIMEDOUT, text)) from error
            except OSError as error:
                raise _refused(error) from error
            if sender == 0:  # any process may write to a netlink socket; the kernel is 0
                return bytes(datagram)


def _refused(error: OSError) -> RefusedError:
    code = error.errno or errno.EIO
    return RefusedError(ErrorReply(code, os.strerror(code)))


def widen(sock: socket.socket, size: int) -> None:
    """Give *sock* a receive buffer of *size* bytes, or what an unprivileged process may have."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # it counts double
        if granted < size:
            logger.warning(
                "a receive buffer of %d bytes instead of %d: CAP_NET_ADMIN is missing, "
                "or net.core.rmem_max is too small",
                granted,
                size,
            )

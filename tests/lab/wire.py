"""What passes a link of the lab, stamped by the kernel: nobody's scheduling makes it late.

Packets wait in the socket until they are asked for, so that a measurement costs nothing while it
runs.  TCP over IPv4 only.  Source: packet(7), socket(7) (SO_TIMESTAMPNS).
"""
# SPDX-License-Identifier: BSD-3-Clause

import socket
import struct
from contextlib import suppress
from typing import NamedTuple, Self

from tests.lab.hosts import Host, Lab

ETH_P_ALL, ETH_P_IP = 3, 0x0800
SO_TIMESTAMPNS, SO_RCVBUFFORCE = 35, 33
PACKET_OUTGOING = 4
SYN, ACK = 0x02, 0x10
STAMP = struct.Struct("=qq")
BUFFER = 512 << 20


class Packet(NamedTuple):
    """A TCP segment: when it passed, whether it left, its ports and flags."""

    time: float
    outgoing: bool
    source: int
    destination: int
    flags: int


class Wire:
    """Listens to one link of a host from entering it to leaving it."""

    def __init__(self, lab: Lab, link: int, host: Host = "client") -> None:
        with lab.inside(host):
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL)
            )
            self._socket.bind((f"link{link}", ETH_P_ALL))
        with suppress(PermissionError):  # who is not root can only wait for a few
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def packets(self) -> list[Packet]:
        """Give what has passed since last asked."""
        found: list[Packet] = []
        while True:
            try:
                data, ancillary, _, sender = self._socket.recvmsg(128, 64)
            except BlockingIOError:
                return found
            seconds, nanoseconds = STAMP.unpack_from(ancillary[0][2])
            _, kind, direction, *_ = sender
            if kind == ETH_P_IP and data[23] == socket.IPPROTO_TCP:
                tcp = 14 + (data[14] & 15) * 4
                source, destination = struct.unpack_from("!HH", data, tcp)
                when = seconds + nanoseconds / 1e9
                outgoing = direction == PACKET_OUTGOING
                found.append(Packet(when, outgoing, source, destination, data[tcp + 13]))

"""What the kernel told, by a listener of its own that nobody else's trouble touches.

Events wait in its buffer until they are asked for, so that listening costs nothing while something
is measured; that it has lost none is checked.  Nothing of ours decodes them: this counts commands.
Source: <linux/mptcp_pm.h>, <linux/genetlink.h>, netlink(7).
"""
# SPDX-License-Identifier: BSD-3-Clause

import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

from tests.lab.hosts import Host, Lab

NETLINK_GENERIC, GENL_ID_CTRL, CTRL_CMD_GETFAMILY = 16, 16, 3
FAMILY_ID, FAMILY_NAME, FAMILY_GROUPS, GROUP_NAME, GROUP_ID = 1, 2, 7, 1, 2
SOL_NETLINK, ADD_MEMBERSHIP, SO_RCVBUFFORCE = 270, 1, 33
HEADER = struct.Struct("=IHHIIBBH")  # nlmsghdr and genlmsghdr
ATTRIBUTE = struct.Struct("=HH")
BUFFER = 512 << 20

CREATED, ESTABLISHED, CLOSED, JOINED = 1, 2, 3, 10
LISTENERS = {15, 16}  # the server's business, not that of connections


class Truth:
    """A member of the group `mptcp_pm_events` on a host."""

    def __init__(self, lab: Lab, host: Host = "client") -> None:
        with lab.inside(host):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
        self._socket.bind((0, 0))
        self._kind, group = self._family()
        with suppress(PermissionError):  # who is not root can only hear a few
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self._socket.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, group)
        self._socket.setblocking(False)
        self.counts: Counter[int] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def forget(self) -> None:
        """Count from here on."""
        self.events()
        self.counts.clear()

    def events(self) -> int:
        """Give how many events of connections there have been."""
        receive, counts, kind = self._socket.recv, self.counts, self._kind
        while True:
            try:
                data = receive(256)
            except BlockingIOError:
                return sum(counts.values())
            _, family, _, _, _, command, _, _ = HEADER.unpack_from(data)
            if family == kind and command not in LISTENERS:
                counts[command] += 1

    def _family(self) -> tuple[int, int]:
        """Ask for the number of the family, and of its group of events."""
        name = b"mptcp_pm\0"
        body = ATTRIBUTE.pack(4 + len(name), FAMILY_NAME) + name + bytes(-len(name) & 3)
        head = (HEADER.size + len(body), GENL_ID_CTRL, 1, 1, 0, CTRL_CMD_GETFAMILY, 1, 0)
        self._socket.send(HEADER.pack(*head) + body)
        found = dict(_attributes(self._socket.recv(65536)[HEADER.size :]))
        groups = (dict(_attributes(data)) for _, data in _attributes(found[FAMILY_GROUPS]))
        numbers = {group[GROUP_NAME]: group[GROUP_ID] for group in groups}
        number = numbers[b"mptcp_pm_events\0"]
        return struct.unpack("=H", found[FAMILY_ID])[0], struct.unpack("=I", number)[0]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        length, kind = ATTRIBUTE.unpack_from(data)
        yield kind & 0x3FFF, data[ATTRIBUTE.size : length]
        data = data[length + (-length & 3) :]

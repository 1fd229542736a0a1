"""MPTCP sockets that listen on announced addresses, so that the peer's joins find someone.

A join to an announced address with a port needs a listener on exactly that address and port.  What
joins never comes through accept(); new connections of strangers do, and are closed.  Knows users
only as keys.  Source: RFC 8684, 3.4.1; socket(7), listen(2).
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import errno
import os
import socket
from collections import Counter, defaultdict
from collections.abc import Hashable

from mptcpd_dbus.core.errors import InvalidArgument, KernelRefused, LimitReached
from mptcpd_dbus.kernel.addresses import pack

IPPROTO_MPTCP = 262
LISTENERS = 1024  # the unit allows four times as many descriptors
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_REST = 1.0  # seconds
BACKLOG = 1024  # a queue full of strangers would keep out those who join
STRANGERS_PER_TURN = 16
Place = tuple[str, int]
"""An address and a port."""

_WORDS = {
    errno.EACCES: "a port below 1024 needs CAP_NET_BIND_SERVICE",
    errno.EADDRINUSE: "another socket listens there",
    errno.EADDRNOTAVAIL: "this host does not have the address",
}


def may_listen() -> bool:
    """Whether this process may have sockets of the internet; its unit may forbid it."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC).close()
    except OSError as error:
        return error.errno != errno.EAFNOSUPPORT
    return True


class Listeners:
    """The listeners of this process; each lives as long as somebody uses it."""

    def __init__(self) -> None:
        self._sockets: dict[Place, socket.socket] = {}
        self._uses: Counter[Place] = Counter()
        self._users: defaultdict[Hashable, Counter[Place]] = defaultdict(Counter)

    def open(self, user: Hashable, address: str, port: int) -> int:
        """Listen on (address, port) for *user*, in the running loop; give the port.

        Port 0 is another one each time, which the kernel chooses.
        """
        place = (address, port)
        if place not in self._sockets:
            if len(self._sockets) >= LISTENERS:
                raise LimitReached(f"{LISTENERS} listeners are open; withdraw an address first")
            if not 0 <= port < 65536:
                raise InvalidArgument(f"port {port} is not between 0 and 65535")
            sock = _listen(address, port)
            place = (address, sock.getsockname()[1])
            self._sockets[place] = sock
            asyncio.get_running_loop().add_reader(sock, _turn_away, sock)
        self._uses[place] += 1
        self._users[user][place] += 1
        return place[1]

    def release(self, user: Hashable, address: str, port: int) -> None:
        """Undo one opening by *user*."""
        place = (address, port)
        mine = self._users.get(user, Counter())
        if not mine[place]:
            raise InvalidArgument(f"{address} port {port} is not listened on by {user}")
        mine[place] -= 1
        if not mine[place]:
            del mine[place]
        if not mine:
            del self._users[user]
        self._give_up(place, 1)

    def close(self, user: Hashable) -> None:
        """Give up whatever *user* opened; what nobody else uses stops listening."""
        for place, count in self._users.pop(user, Counter()).items():
            self._give_up(place, count)

    def inodes(self) -> set[int]:
        """Give the inodes of the sockets, by which sock_diag names them."""
        return {os.fstat(sock.fileno()).st_ino for sock in self._sockets.values()}

    def close_all(self) -> None:
        """Stop listening anywhere."""
        for user in list(self._users):
            self.close(user)

    def _give_up(self, place: Place, count: int) -> None:
        self._uses[place] -= count
        if self._uses[place]:
            return
        del self._uses[place]
        sock = self._sockets.pop(place)
        asyncio.get_running_loop().remove_reader(sock)
        sock.close()


def _listen(address: str, port: int) -> socket.socket:
    family, _ = pack(address, mapped=False)  # bind() would ask the name servers for a name
    try:
        sock = socket.socket(
            family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, IPPROTO_MPTCP
        )
    except OSError as error:
        raise _refused(error, address, port) from error
    try:
        if port:  # else it might get one that it could not listen on
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _refused(error, address, port) from error
    return sock


def _turn_away(sock: socket.socket) -> None:
    """Close strangers' connections, some per turn of the loop."""
    for _ in range(STRANGERS_PER_TURN):
        try:
            stranger, _ = sock.accept()
        except OSError as error:  # none left, or it left by itself
            if error.errno in _EXHAUSTED:
                # Still readable: without a rest the loop would do nothing else.
                loop = asyncio.get_running_loop()
                loop.remove_reader(sock)
                loop.call_later(_REST, _resume, sock)
            return
        stranger.close()


def _resume(sock: socket.socket) -> None:
    if sock.fileno() >= 0:  # not closed meanwhile
        asyncio.get_running_loop().add_reader(sock, _turn_away, sock)


def _refused(error: OSError, address: str, port: int) -> KernelRefused:
    code = error.errno or 0
    words = _WORDS.get(code, os.strerror(code))
    if code == errno.EAFNOSUPPORT and not may_listen():
        words = (
            "this service may not listen (no-listeners.conf): announce with Listener=false what"
            " another program listens on, or remove that file"
        )
    return KernelRefused("listen", code, f"{address} port {port}: {words}")

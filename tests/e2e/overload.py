"""Connections without end, a crowd at the bus's door, and a client that follows all that it hears.

The client is mptcpctl's own, and it notes what it hears of connections, in the order of its coming.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Self

from mptcpd_dbus.bus.message import Incoming
from mptcpd_dbus.ctl.daemon import Daemon
from mptcpd_dbus.ctl.follow import Following
from tests.e2e.stage import MANAGER, PORT, Stage
from tests.lab.bus import ADDRESS, SOCKET
from tests.lab.client import BUS, NAME, ROOT
from tests.lab.hosts import SERVER

LIFE = ("NewConnection", "ConnectionEstablished", "ConnectionClosed")
ECHO = PORT + 1


class Churn:
    """Connections that come and go, some at once and some when a crowd of them has gathered."""

    CROWD = 100

    def __init__(self, play: Stage) -> None:
        self.connections = 0
        self._going = True
        self._hasty, self._slow = (play.lab.app("client") for _ in range(2))
        self._tasks = [
            asyncio.ensure_future(work) for work in (self._come_and_go(), self._gather())
        ]

    @classmethod
    @asynccontextmanager
    async def on(cls, play: Stage) -> AsyncIterator[Self]:
        """Have it go on while the body runs, unless it is stopped before."""
        listener, _ = await play.server.call("listen", address=SERVER[4], port=ECHO)
        await play.server.call("echo", listener=listener)
        churn = cls(play)
        try:
            yield churn
        finally:
            await churn.stop()

    async def stop(self) -> None:
        """Let those that are there end."""
        self._going = False
        await asyncio.gather(*self._tasks)

    async def _come_and_go(self) -> None:
        while self._going:
            await self._hasty.call("churn", count=50, address=SERVER[4], port=ECHO)
            self.connections += 50

    async def _gather(self) -> None:
        app, there = self._slow, {"address": SERVER[4], "port": ECHO}
        while self._going:
            talks = await app.call("connect_many", count=self.CROWD, **there)
            await app.call("send_each", talks=talks)
            await app.call("recv_each", talks=talks)
            await app.call("close_all")
            self.connections += self.CROWD


@contextmanager
def crowd() -> Iterator[list[socket.socket]]:
    """Fill the queue of those who want to connect to a bus that hangs."""
    waiting: list[socket.socket] = []
    with ExitStack() as stack:
        error = 0
        while not error:
            waiting.append(stack.enter_context(socket.socket(socket.AF_UNIX)))
            waiting[-1].setblocking(False)
            error = waiting[-1].connect_ex(str(SOCKET))
        assert error == errno.EAGAIN
        yield waiting


class Believer(Following):
    """The control: it does not read anew when it is told that signals were dropped."""

    def _take(self, message: Incoming) -> None:
        if message.member != "SignalsDropped":
            super()._take(message)


class Follower:
    """A client that believes what it hears, and reads anew when it is told that it missed some."""

    def __init__(self, daemon: Daemon) -> None:
        self._following, self._believer = Following(daemon), Believer(daemon)
        self.lives: list[tuple[str, int]] = []
        """What happened to which number."""
        self.dropped: list[int] = []
        self.owners: list[str] = []
        """Who had the daemon's name, one after the other; "" is nobody."""

    @classmethod
    @asynccontextmanager
    async def on(cls) -> AsyncIterator[Self]:
        """Follow while the body runs."""
        async with Daemon.at(ADDRESS, ask_password=False) as daemon:
            follower = cls(daemon)
            transport = daemon.transport
            for member in LIFE:
                transport.on_signal(MANAGER, member, follower._note_life)
            transport.on_signal(MANAGER, "SignalsDropped", follower._note_dropped)
            transport.on_signal(BUS, "NameOwnerChanged", follower._note_owner)
            rule = f"type='signal',sender='{NAME}',path='{ROOT}',interface='{MANAGER}'"
            await transport.call(BUS, "/org/freedesktop/DBus", BUS, "AddMatch", "s", rule)
            for client in (follower._following, follower._believer):
                await client.start()
                await client.catch_up()
            yield follower

    async def view(self) -> set[str]:
        """Give the connections and subflows that it knows of."""
        await self._following.catch_up()
        return _paths(self._following)

    def belief(self) -> set[str]:
        """Give what it would know of if it never read anew."""
        return _paths(self._believer)

    def _note_life(self, message: Incoming) -> None:
        self.lives.append((message.member, int(str(message.values()[0]).rpartition("/")[2])))

    def _note_dropped(self, message: Incoming) -> None:
        self.dropped += message.values()

    def _note_owner(self, message: Incoming) -> None:
        self.owners.append(message.values()[2])


def _paths(client: Following) -> set[str]:
    return {subflow.path for subflow in client.subflows()} | set(client.connections)

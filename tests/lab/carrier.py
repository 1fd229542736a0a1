"""Stamps the moments at which a host of the lab hears that a link has lost or found its carrier.

The stamps are as good as the loop is free: cut a link in a thread, as `change` does.  It knows
nothing of what anybody makes of the news.  Source: rtnetlink(7), <linux/if.h>.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from typing import Self

from tests.lab.hosts import Host, Lab

RTMGRP_LINK = 1
RTM_NEWLINK = 16
NEWS = struct.Struct("=4xH10x4xiI")  # struct nlmsghdr, then the index and flags of ifinfomsg
IFF_LOWER_UP = 0x10000


class Carrier:
    """What a host hears of one link, from entering it to leaving it."""

    def __init__(self, lab: Lab, link: int, host: Host = "client") -> None:
        self._changes: asyncio.Queue[tuple[float, bool]] = asyncio.Queue()
        with lab.inside(host):
            self._index = socket.if_nametoindex(f"link{link}")
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            self._socket.bind((0, RTMGRP_LINK))

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._socket, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    async def change(self, way: Callable[[int], None], link: int, *, up: bool) -> float:
        """Have a link cut or restored and return when the host heard that its carrier is so."""
        while not self._changes.empty():
            self._changes.get_nowait()
        doing = asyncio.get_running_loop().run_in_executor(None, way, link)
        async with asyncio.timeout(5):
            while True:
                heard, state = await self._changes.get()
                if state is up:
                    break
        await doing
        return heard

    def _read(self) -> None:
        now = time.monotonic()
        data = self._socket.recv(65536)
        kind, index, flags = NEWS.unpack_from(data)
        if kind == RTM_NEWLINK and index == self._index:
            self._changes.put_nowait((now, bool(flags & IFF_LOWER_UP)))

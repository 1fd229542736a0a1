"""The host's interfaces, their addresses and default routes, told as core events.

The only importer of pyroute2.  Knows no connection; keeps just what it needs to tell what is new
from what is said again.  Source: rtnetlink(7), <linux/if_link.h>, <linux/if_addr.h>.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyroute2 import AsyncIPRoute

from mptcpd_dbus.core.events import (
    DeleteInterface,
    DeleteLocalAddress,
    EventsLost,
    NetworkEvent,
    NewInterface,
    NewLocalAddress,
    UpdateInterface,
)
from mptcpd_dbus.core.readings import DefaultRoutesRead
from mptcpd_dbus.kernel.netlink_socket import widen

logger = logging.getLogger(__name__)

Listener = Callable[[NetworkEvent | EventsLost | DefaultRoutesRead], None]

RECEIVE_BUFFER = 8 << 20
RETRY = 1.0  # seconds, where even a fresh socket fails
# RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE
GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
IFF_UP, IFF_RUNNING = 0x1, 0x40
IFA_F_OPTIMISTIC, IFA_F_DADFAILED, IFA_F_TENTATIVE = 0x04, 0x08, 0x40
RT_TABLE_MAIN, RTN_UNICAST = 254, 1
# enum ARPHRD_*, for interfaces of no software kind
HARDWARE = {1: "ether", 772: "loopback"}
FAMILIES = {socket.AF_INET: 4, socket.AF_INET6: 6}


@dataclass(frozen=True, slots=True)
class NetworkSnapshot:
    """All that the kernel has at one moment."""

    interfaces: tuple[NewInterface, ...]
    addresses: tuple[NewLocalAddress, ...]
    default_routes: DefaultRoutesRead


class RouteMonitor:
    """Tells *listener* of every change, and first of all that is there at the start."""

    def __init__(self, listener: Listener, receive_buffer: int = RECEIVE_BUFFER) -> None:
        self._listener = listener
        self._receive_buffer = receive_buffer
        self._interfaces: dict[int, NewInterface] = {}
        self._addresses: set[NewLocalAddress] = set()
        self._default_routes: DefaultRoutesRead | None = None
        self._routes_changed = asyncio.Event()
        self._socket: Any = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Join the groups, tell all that is there, and go on from that."""
        await self._open()
        self._update(await self.snapshot())
        self._tasks = [
            asyncio.create_task(self._read_messages(), name="rtnetlink"),
            asyncio.create_task(self._read_routes(), name="default routes"),
        ]

    async def close(self) -> None:
        """Leave the groups; no task remains."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def snapshot(self) -> NetworkSnapshot:
        """Ask for everything, on a socket of its own."""
        async with AsyncIPRoute() as route:
            interfaces = [_interface(m) async for m in await route.get_links()]
            addresses = [_address(m) async for m in await route.get_addr()]
            routes = await _default_routes(route)
        return NetworkSnapshot(
            tuple(i for i in interfaces if i is not None),
            tuple(a for a in addresses if a is not None),
            routes,
        )

    async def _open(self) -> None:
        """Make the socket anew: one overflow is the end of a socket of pyroute2."""
        if self._socket is not None:
            self._socket.close()
        self._socket = AsyncIPRoute()
        widen(self._socket.socket, self._receive_buffer)
        await self._socket.bind(GROUPS)

    async def _read_messages(self) -> None:
        while True:
            try:
                async for message in self._socket.get():
                    self._apply(message)
            except Exception:  # whatever it was: a deaf monitor would be worse
                logger.warning("rtnetlink: everything is read anew", exc_info=True)
                await self._recover()

    async def _recover(self) -> None:
        while True:
            try:
                await self._open()
                self._update(await self.snapshot())
            except Exception:  # likewise
                logger.warning("rtnetlink: tried again in %.0f s", RETRY, exc_info=True)
                await asyncio.sleep(RETRY)
            else:
                self._listener(EventsLost("rtnetlink"))
                return

    async def _read_routes(self) -> None:
        """Read the default routes after whatever may have changed them.

        Messages would not do: a link that goes down takes its IPv4 routes silently, and so does,
        on older kernels, their source address.
        """
        while True:
            await self._routes_changed.wait()
            self._routes_changed.clear()
            try:
                async with AsyncIPRoute() as route:
                    self._set_default_routes(await _default_routes(route))
            except Exception:  # likewise
                logger.warning("rtnetlink: default routes are read anew", exc_info=True)
                self._routes_changed.set()
                await asyncio.sleep(RETRY)

    def _apply(self, message: Any) -> None:
        match message["event"]:
            case "RTM_NEWLINK":
                interface = _interface(message)
                if interface is not None:
                    self._add_interface(interface)
            case "RTM_DELLINK":
                if _interface(message) is not None:
                    self._remove_interface(message["index"])
            case "RTM_NEWADDR":
                address = _address(message)
                if address is not None:
                    self._add_address(address)
                else:
                    self._remove_address(_address(message, usable=False))
            case "RTM_DELADDR":
                self._remove_address(_address(message, usable=False))
            case "RTM_NEWROUTE" | "RTM_DELROUTE":
                if message["dst_len"] == 0:
                    self._routes_changed.set()
            case _:
                pass  # the groups carry no others today

    def _update(self, snapshot: NetworkSnapshot) -> None:
        """Tell the difference between what was known and *snapshot*."""
        for address in self._addresses - set(snapshot.addresses):
            self._remove_address(address)
        for index in self._interfaces.keys() - {i.index for i in snapshot.interfaces}:
            self._remove_interface(index)
        for interface in snapshot.interfaces:
            self._add_interface(interface)
        for address in snapshot.addresses:
            self._add_address(address)
        self._set_default_routes(snapshot.default_routes)

    def _add_interface(self, interface: NewInterface) -> None:
        known = self._interfaces.get(interface.index)
        if known == interface:
            return
        self._interfaces[interface.index] = interface
        self._routes_changed.set()
        if known is None:
            self._listener(interface)
        else:
            self._listener(
                UpdateInterface(
                    interface.index,
                    interface.name,
                    interface.kind,
                    interface.up,
                    interface.running,
                )
            )

    def _remove_interface(self, index: int) -> None:
        if self._interfaces.pop(index, None) is None:
            return
        for address in [a for a in self._addresses if a.interface_index == index]:
            self._remove_address(address)
        self._routes_changed.set()
        self._listener(DeleteInterface(index))

    def _add_address(self, address: NewLocalAddress) -> None:
        if address not in self._addresses:
            self._addresses.add(address)
            self._listener(address)

    def _remove_address(self, address: NewLocalAddress | None) -> None:
        if address is None or address not in self._addresses:
            return
        self._addresses.remove(address)
        self._routes_changed.set()
        index, text = address.interface_index, address.address
        # The same address may be there with another prefix length.
        if not any(a.interface_index == index and a.address == text for a in self._addresses):
            self._listener(DeleteLocalAddress(index, text))

    def _set_default_routes(self, routes: DefaultRoutesRead) -> None:
        if routes != self._default_routes:
            self._default_routes = routes
            self._listener(routes)


def _interface(message: Any) -> NewInterface | None:
    """Read a link message; None for a bridge's word about its port, which is no interface."""
    if message["family"] != socket.AF_UNSPEC:
        return None
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info is not None else None
    return NewInterface(
        message["index"],
        message.get_attr("IFLA_IFNAME") or "",
        kind or HARDWARE.get(message["ifi_type"], ""),
        bool(message["flags"] & IFF_UP),
        bool(message["flags"] & IFF_RUNNING),
    )


def _address(message: Any, *, usable: bool = True) -> NewLocalAddress | None:
    """Read an address message; where it must be *usable*, None for one that is not."""
    # On a point-to-point link IFA_ADDRESS is the peer's; IPv6 has IFA_LOCAL there only.
    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    flags = message.get_attr("IFA_FLAGS") or message["flags"]
    tentative = flags & IFA_F_TENTATIVE and not flags & IFA_F_OPTIMISTIC
    if message["family"] not in FAMILIES or not text:
        return None
    if usable and (tentative or flags & IFA_F_DADFAILED):
        return None
    return NewLocalAddress(message["index"], text, message["prefixlen"])


async def _default_routes(route: Any) -> DefaultRoutesRead:
    interfaces: set[tuple[int, int]] = set()
    for family, version in FAMILIES.items():
        async for message in await route.get_default_routes(family, RT_TABLE_MAIN):
            if message["type"] != RTN_UNICAST:
                continue
            hops = message.get_attr("RTA_MULTIPATH") or ()
            indices = {hop["oif"] for hop in hops} | {message.get_attr("RTA_OIF")}
            interfaces.update((index, version) for index in indices if index)
    return DefaultRoutesRead(frozenset(interfaces))

"""The host's interfaces, their addresses and ways out, told as core events and readings.

Knows no connection; keeps just what it needs to tell what is new from what is said again.  Source:
rtnetlink(7), <linux/if_link.h>, <linux/if_addr.h>.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mptcpd_dbus.core.events import (
    DeleteInterface,
    DeleteLocalAddress,
    EventsLost,
    NetworkEvent,
    NewInterface,
    NewLocalAddress,
    UpdateInterface,
)
from mptcpd_dbus.core.readings import AddressTraitsRead, DefaultRoutesRead, RoutedAddressesRead
from mptcpd_dbus.kernel.netlink_socket import widen
from mptcpd_dbus.kernel.route_lookup import RouteLookup
from mptcpd_dbus.kernel.route_socket import AsyncIPRoute
from mptcpd_dbus.kernel.rtnl_messages import (
    decode_address,
    decode_interface,
    read_default_routes,
)

logger = logging.getLogger(__name__)

Told = NetworkEvent | EventsLost | DefaultRoutesRead | RoutedAddressesRead | AddressTraitsRead
Listener = Callable[[Told], None]

RECEIVE_BUFFER = 8 << 20
RETRY = 1.0  # seconds, where even a fresh socket fails
# enum rtnetlink_groups: LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE,
# IPV6_RULE, NEXTHOP
GROUPS = sum(1 << (group - 1) for group in (1, 5, 7, 8, 9, 11, 19, 32))

# Interface index, address, prefix length: the kernel may have an address with several prefixes.
_Key = tuple[int, str, int]


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
        self._addresses: dict[_Key, NewLocalAddress] = {}
        self._default_routes: DefaultRoutesRead | None = None
        self._routed = RoutedAddressesRead(frozenset())
        self._routes_changed = asyncio.Event()
        self._lookup = RouteLookup()
        self._socket: Any = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Join the groups, tell all that is there, and go on from that."""
        await self._open()
        self._update(await self.snapshot())
        await self._read_routed()
        self._tasks = [
            asyncio.create_task(self._read_messages(), name="rtnetlink"),
            asyncio.create_task(self._read_routes(), name="routes"),
        ]

    async def close(self) -> None:
        """Leave the groups; no task remains."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._lookup.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def snapshot(self) -> NetworkSnapshot:
        """Ask for everything, on a socket of its own."""
        async with AsyncIPRoute() as route:
            interfaces = [decode_interface(m) async for m in await route.get_links()]
            addresses = [decode_address(m) async for m in await route.get_addr()]
            routes = await read_default_routes(route)
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
            except Exception as error:  # whatever it was: a deaf monitor would be worse
                dropped = isinstance(error, OSError) and error.errno == errno.ENOBUFS
                why = "the kernel dropped events" if dropped else "reading failed"
                logger.warning("rtnetlink: %s; everything is read anew", why, exc_info=not dropped)
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
                self._routes_changed.set()
                self._listener(EventsLost("rtnetlink"))
                return

    async def _read_routes(self) -> None:
        """Read the ways out after whatever may have changed them.

        Messages would not do: a link that goes down takes its IPv4 routes silently, and so does,
        on older kernels, their source address; and rules choose among routes.
        """
        while True:
            await self._routes_changed.wait()
            self._routes_changed.clear()
            try:
                async with AsyncIPRoute() as route:
                    self._set_default_routes(await read_default_routes(route))
                await self._read_routed()
            except Exception:  # likewise
                logger.warning("rtnetlink: routes are read anew", exc_info=True)
                self._routes_changed.set()
                await asyncio.sleep(RETRY)

    async def _read_routed(self) -> None:
        """Look up every address; events go on meanwhile, for there may be hundreds."""
        routed = set()
        for index, address in self._present():
            if self._lookup.is_routed(index, address):
                routed.add((index, address))
            await asyncio.sleep(0)  # each look-up asks the kernel; events go on between two
        reading = RoutedAddressesRead(frozenset(routed & self._present()))
        if reading != self._routed:
            self._routed = reading
            self._listener(reading)

    def _present(self) -> set[tuple[int, str]]:
        return {(index, address) for index, address, _ in self._addresses}

    def _apply(self, message: Any) -> None:
        match message.get("event"):
            case "RTM_NEWLINK":
                interface = decode_interface(message)
                if interface is not None:
                    self._add_interface(interface)
            case "RTM_DELLINK":
                if decode_interface(message) is not None:
                    self._remove_interface(message["index"])
            case "RTM_NEWADDR" if (address := decode_address(message)) is not None:
                self._add_address(address)
            case "RTM_NEWADDR" | "RTM_DELADDR":  # one that is not usable might as well be gone
                self._remove_address(decode_address(message, usable=False))
            case "RTM_NEWROUTE" | "RTM_DELROUTE" if message["dst_len"] == 0:
                self._routes_changed.set()
            # pyroute2 has no word for RTM_NEWNEXTHOP and RTM_DELNEXTHOP; the latter takes the IPv4
            # routes that use it along, silently.
            case "RTM_NEWRULE" | "RTM_DELRULE" | None:
                self._routes_changed.set()
            case _:
                pass  # the groups carry no others today

    def _update(self, snapshot: NetworkSnapshot) -> None:
        """Tell the difference between what was known and *snapshot*."""
        addresses = {_key(a): a for a in snapshot.addresses}
        for key in self._addresses.keys() - addresses.keys():
            self._remove_address(self._addresses[key])
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
        for address in [a for a in self._addresses.values() if a.interface_index == index]:
            self._remove_address(address)
        # An interface that comes back with this index has no routes until they are told again.
        self._default_routes = None
        self._routes_changed.set()
        self._listener(DeleteInterface(index))

    def _add_address(self, address: NewLocalAddress) -> None:
        known = self._addresses.get(_key(address))
        self._addresses[_key(address)] = address
        index, text, traits = address.interface_index, address.address, address.traits
        if known is None:
            self._routes_changed.set()
            self._listener(address)
        elif known != address:
            self._listener(AddressTraitsRead(index, text, traits))

    def _remove_address(self, address: NewLocalAddress | None) -> None:
        if address is None or self._addresses.pop(_key(address), None) is None:
            return
        self._routes_changed.set()
        index, text = address.interface_index, address.address
        # The same address may be there with another prefix length.
        if (index, text) not in self._present():
            self._routed = RoutedAddressesRead(self._routed.addresses - {(index, text)})
            self._listener(DeleteLocalAddress(index, text))

    def _set_default_routes(self, routes: DefaultRoutesRead) -> None:
        if routes != self._default_routes:
            self._default_routes = routes
            self._listener(routes)


def _key(address: NewLocalAddress) -> _Key:
    return address.interface_index, address.address, address.prefix_length

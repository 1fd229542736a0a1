"""Gives the in-kernel path manager the addresses of the host, and takes them back when they go.

Every address that the daemon shows becomes an endpoint bound to its interface, unless it is of the
link or deprecated, or its interface has no carrier.  Endpoints of others (NetworkManager, ip(8),
programs on the bus) are never changed or removed, and an address that has one gets no second.  That
NetworkManager has some, too, is told once: one of the two should leave it to the other, and we do
by `managed = leave`.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import errno
from contextlib import suppress
from ipaddress import ip_address
from typing import Literal

from mptcpd_dbus.plugin import (
    ConfigurationError,
    Endpoint,
    Interface,
    InvalidArgument,
    KernelRefused,
    MptcpdError,
    NoSuchEndpoint,
    Plugin,
    PluginSettings,
    Timer,
)

MAX_LIMIT = 8  # the kernel's own bound
FIGHT, FIGHT_SECONDS = 3, 60.0
"""An endpoint that others have deleted so often within this time is left to them."""

LOOK_AGAIN = 10.0
"""Seconds until the next look at what a connection that has no other path still needs."""


class AddrAdvSettings(PluginSettings):
    """Section [plugin addr_adv]."""

    managed: Literal["use", "leave"] = "use"
    """Interfaces that NetworkManager manages: endpoints there as anywhere, or none of ours."""


class AddrAdv(Plugin):
    """Endpoints of the in-kernel path manager that follow the addresses of the host"""

    version = "1"
    steers = "kernel"
    claims = False
    settings: AddrAdvSettings

    async def start(self) -> None:
        self._flags = self.pm.addr_flags or ("subflow",)
        self._timer: Timer | None = None
        self._left: set[str] = set()
        self._theirs: set[str] = set()
        self._waiting: list[str] = []
        self._deleted: dict[str, list[float]] = {}
        self._added = {endpoint.address for endpoint in self._ours()}
        for endpoint in self._ours():
            if set(endpoint.flags) != set(self._flags):
                await self._change_flags(endpoint)
        await self._changed()

    # Whatever happens, the answer is to compare what there is with what there should be.

    async def _changed(self, *_: object, **__: object) -> None:
        """Compare in a moment, once for all that happens in this one."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.after(0, self._compare)

    new_interface = update_interface = delete_interface = _changed
    new_local_address = delete_local_address = _changed
    endpoints_changed = events_lost = ready = _changed

    async def reload(self) -> None:
        self._left.clear()
        self._theirs.clear()
        self._deleted.clear()
        await self._changed()

    # One comparison at a time: it waits in the queue of host events like the handlers.

    async def _compare(self) -> None:
        self._timer = None
        present = self._addresses()
        wanted: dict[str, Interface] = {}
        for address, interface in present:
            if interface.running and address not in interface.deprecated:
                wanted.setdefault(address, interface)
        self._notice_deleted({address for address, _ in present})
        alone = await self._remove_stale({(address, i.index) for address, i in present}, wanted)
        if alone and self._timer is None:
            self._timer = self.after(LOOK_AGAIN, self._compare)
        endpoints = [e for e in self.pm.endpoints if "implicit" not in e.flags]
        taken = {endpoint.address for endpoint in endpoints if not endpoint.port} | self._left
        theirs = {
            wanted[e.address].name
            for e in endpoints
            if e.origin == "networkmanager" and e.address in wanted
        }
        if theirs - self._theirs:
            self._theirs |= theirs
            self.after(0, self._conflict, sorted(theirs))
        missing = [address for address in wanted if address not in taken]
        if missing:
            await self._raise_limits(len(endpoints) + len(missing))
        waiting = await self._add({address: wanted[address] for address in missing})
        if waiting and waiting != self._waiting:
            self.log.info("the kernel takes no more endpoints: %s must wait", ", ".join(waiting))
        self._waiting = waiting

    async def _conflict(self, theirs: list[str]) -> None:
        raise ConfigurationError(
            f"NetworkManager has endpoints on {', '.join(theirs)}, too, and keeps them:"
            " set managed=leave in [plugin addr_adv], or connection.mptcp-flags=disabled in the"
            " profiles there"
        )

    def _addresses(self) -> list[tuple[str, Interface]]:
        """Give the first address of each interface, then the second ones, for slots are few."""
        found = []
        for interface in self.pm.interfaces:
            if interface.managed and self.settings.managed == "leave":
                continue
            usable = (a for a in interface.addresses if _can_be_routed(a))
            found += [(place, address, interface) for place, address in enumerate(usable)]
        found.sort(key=lambda one: one[0])
        return [(address, interface) for _, address, interface in found]

    async def _remove_stale(
        self, present: set[tuple[str, int]], wanted: dict[str, Interface]
    ) -> bool:
        """Take back what went; give whether some stay only because a connection has no other path.

        With its endpoint the kernel closes a subflow, while TCP would outlive the outage.
        """
        alone = False
        for endpoint in self._ours():
            interface = wanted.get(endpoint.address)
            if interface is not None and interface.index == endpoint.interface_index:
                continue
            there = (endpoint.address, endpoint.interface_index) in present
            if there and interface is None and self._is_all_that_is_left(endpoint.address):
                alone = True
            else:
                await self._remove(endpoint)
        return alone

    def _is_all_that_is_left(self, address: str) -> bool:
        """Whether a connection uses this address and no other that has a link."""
        for connection in self.pm.connections:
            if connection.path_manager == "kernel":
                used = {subflow.local_address for subflow in connection.subflows}
                if address in used and not any(self.pm.has_link(a) for a in used - {address}):
                    return True
        return False

    async def _add(self, missing: dict[str, Interface]) -> list[str]:
        """Add what is missing; give what must wait until there is a slot."""
        for address, interface in missing.items():
            try:
                await self.pm.add_endpoint(address, self._flags, interface=interface.name)
            except KernelRefused as error:
                if error.errno == errno.ERANGE:
                    return [a for a in missing if a not in self._added]
                if error.errno != errno.EEXIST:  # somebody else was quicker
                    self.log.warning("no endpoint for %s: %s", address, error)
            except MptcpdError as error:  # the interface or the endpoint is gone: we will hear
                self.log.debug("no endpoint for %s: %s", address, error)
            else:
                self._added.add(address)
        return []

    async def _raise_limits(self, count: int) -> None:
        """See that *count* endpoints can be used, without lowering what others have set."""
        await self.pm.set_limits()  # reads what others may have set just now
        subflows = min(count, MAX_LIMIT)
        accepted = subflows if "subflow" in self._flags else 0
        limits = self.pm.limits
        if limits.subflows < subflows:
            await self.pm.set_limits(subflows=subflows)
        if limits.add_addr_accepted < accepted:
            await self.pm.set_limits(add_addr_accepted=accepted)

    async def _change_flags(self, endpoint: Endpoint) -> None:
        """Follow the configuration; what others have changed since then stays."""
        try:
            await self.pm.set_endpoint_flags(endpoint, self._flags)
        except (InvalidArgument, KernelRefused):
            await self._remove(endpoint)  # and it is added with the right ones
        except NoSuchEndpoint:
            pass

    async def _remove(self, endpoint: Endpoint) -> None:
        self._added.discard(endpoint.address)
        with suppress(NoSuchEndpoint):
            await self.pm.remove_endpoint(endpoint)

    def _notice_deleted(self, present: set[str]) -> None:
        """Count what others delete, for they may delete without end what we add without end."""
        now = asyncio.get_running_loop().time()
        deleted = self._added - {endpoint.address for endpoint in self._ours()}
        self._added -= deleted
        for address in deleted:
            times = [t for t in self._deleted.get(address, []) if now - t < FIGHT_SECONDS]
            self._deleted[address] = [*times, now]
            if len(times) + 1 == FIGHT:
                self._left.add(address)
                self.log.warning(
                    "others delete the endpoint of %s again and again: left so", address
                )
        self._left &= present
        self._deleted = {a: times for a, times in self._deleted.items() if a in present}

    def _ours(self) -> list[Endpoint]:
        return [endpoint for endpoint in self.pm.endpoints if endpoint.ours]


def _can_be_routed(address: str) -> bool:
    found = ip_address(address)
    return not found.is_link_local and not found.is_loopback

"""What policies command: the one door for the daemon's own path manager and for one on the bus."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable
from typing import Protocol

from mptcpd_dbus.core.connections import Address, Connection, Subflow
from mptcpd_dbus.core.endpoints import Endpoint
from mptcpd_dbus.core.subflow_wish import SubflowWish
from mptcpd_dbus.core.types import AddressEntry


class EndpointOwners(Protocol):
    """Who has added which endpoint."""

    def added_by(self, endpoint: Endpoint, by: str) -> bool:
        """Whether the policy *by* has added *endpoint*."""


class Commands(Protocol):
    """Each command returns when it is done, or raises an MptcpdError."""

    @property
    def own_endpoints(self) -> EndpointOwners:
        """The endpoints that are ours."""

    async def create_subflow(
        self, connection: Connection, wish: SubflowWish, seconds: float
    ) -> Subflow:
        """Join from a local to a remote address and wait until both ends have accepted it."""

    async def announce_address(
        self,
        connection: Connection,
        address: str,
        *,
        port: int,
        address_id: int,
        listener: bool,
    ) -> Address:
        """Send ADD_ADDR."""

    async def remove_address(self, connection: Connection, address_id: int) -> None:
        """Send RM_ADDR for a local address ID."""

    async def destroy_subflow(self, subflow: Subflow) -> None:
        """Close *subflow*."""

    async def abandon(
        self, connection: Connection, address_id: int, still: Callable[[], bool] = ...
    ) -> None:
        """Give up a local address whose path is dead, if that is *still* wanted in its turn."""

    async def set_backup(self, subflow: Subflow, *, backup: bool) -> None:
        """Send MP_PRIO."""

    def address_id(self, connection: Connection, address: str, port: int) -> int:
        """Give the ID that a local address has, else the lowest free one, which is kept for it."""

    def map_address_id(
        self, connection: Connection, address: str, address_id: int, port: int
    ) -> None:
        """Use *address_id* for *address* from now on."""

    def forget_address_id(self, connection: Connection, address: str, port: int) -> int:
        """Keep no ID for *address*; give the one that was kept, or 0."""

    def listen(self, user: str, address: str, port: int) -> int:
        """Have an MPTCP socket listen; give its port."""

    def unlisten(self, user: str, address: str, port: int) -> None:
        """Undo one `listen`."""

    def statistics(self, connection: Connection) -> dict[str, int] | None:
        """Read the counters of *connection*; None when it is gone."""

    def subflow_statistics(self, subflow: Subflow) -> dict[str, int] | None:
        """Read the counters of *subflow*; None when it is gone."""

    async def add_endpoint(self, entry: AddressEntry, by: str) -> Endpoint:
        """Add an endpoint for the policy *by*."""

    async def remove_endpoint(self, endpoint: Endpoint) -> None:
        """Delete *endpoint*."""

    async def set_endpoint_flags(self, endpoint: Endpoint, flags: int) -> None:
        """Change *endpoint*'s flags."""

    async def flush_endpoints(self) -> None:
        """Delete all endpoints."""

    async def set_limits(self, subflows: int | None, add_addr_accepted: int | None) -> None:
        """Set the in-kernel path manager's limits; None leaves one as it is."""

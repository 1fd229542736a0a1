"""What a new subflow should be, and what is meant by what is left open."""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import dataclass

from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.errors import InvalidArgument, NotReady
from mptcpd_dbus.core.network import Interface, Network
from mptcpd_dbus.core.types import is_ipv6


@dataclass(frozen=True, slots=True)
class SubflowWish:
    """A subflow to be made; "" and 0 stand for the connection's own.

    `interface` names the device to bind to: "" for none, None for the one that owns the local
    address.
    """

    remote_address: str = ""
    remote_port: int = 0
    local_address: str = ""
    local_port: int = 0
    interface: str | None = None
    backup: bool = False


def complete(
    wish: SubflowWish, connection: Connection, network: Network
) -> tuple[SubflowWish, int]:
    """Fill in what *wish* leaves open; give the index of the device to bind to as well, or 0."""
    own = connection.four_tuple
    remote_address = wish.remote_address or own.remote_address
    remote_port = wish.remote_port or own.remote_port
    if connection.deny_join_id0 and (remote_address, remote_port) == own[2:]:
        raise NotReady(
            "the peer accepts no joins to its initial address and port (RFC 8684, section 3.1,"
            " flag C): give a remote address that it has announced"
        )
    interface: Interface | None = None
    local_address = wish.local_address
    if wish.interface:
        interface = network.by_name(wish.interface)
        local_address = local_address or _address_of(interface, remote_address)
    local_address = local_address or own.local_address
    if wish.interface is None:
        # A source address does not choose the link, the main table does; so bind, but for
        # addresses of the loopback interface, which serve every link.
        interface = network.owner(local_address)
        if interface is not None and interface.kind == "loopback":
            interface = None
    completed = SubflowWish(
        remote_address, remote_port, local_address, wish.local_port, wish.interface, wish.backup
    )
    return completed, interface.index if interface else 0


def _address_of(interface: Interface, remote_address: str) -> str:
    """Give an address of *interface* that can reach the family of *remote_address*."""
    for address in interface.addresses:
        if is_ipv6(address) == is_ipv6(remote_address) and not address.startswith("fe80:"):
            return address
    family = "IPv6" if is_ipv6(remote_address) else "IPv4"
    raise InvalidArgument(f"Interface: {interface.name} has no {family} address")

"""Addresses as people and policies write them."""
# SPDX-License-Identifier: BSD-3-Clause

from ipaddress import IPv4Address, IPv6Address, ip_address

from mptcpd_dbus.core.errors import InvalidArgument


def read_address(argument: str, text: str) -> str:
    """Give the address *text* in its usual form; raise InvalidArgument naming *argument*."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        raise InvalidArgument(
            f"{argument}: {text[:64]!r} is not an IP address (192.0.2.1 or 2001:db8::1)"
        ) from None
    if isinstance(address, IPv6Address):
        if address.scope_id:
            raise InvalidArgument(f"{argument}: {text[:64]!r}: a scope has no meaning here")
        if address.ipv4_mapped:
            address = address.ipv4_mapped
    if address.is_unspecified or address.is_multicast or address.is_link_local:
        raise InvalidArgument(f"{argument}: {text[:64]!r} is not the address of one host")
    return str(address)

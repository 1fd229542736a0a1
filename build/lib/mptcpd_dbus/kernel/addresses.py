"""Packed addresses as text: IPv4 mapped into IPv6 becomes IPv4 and the mark `mapped`.

Knows nothing of messages.  The text is inet_ntop(3)'s; the mapped form is RFC 4291, 2.5.5.2.
"""
# SPDX-License-Identifier: BSD-3-Clause

from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from mptcpd_dbus.core.errors import InvalidArgument
from mptcpd_dbus.core.types import is_ipv6

MAPPED_PREFIX = bytes(10) + b"\xff\xff"


# Few addresses take part in very many events; the bound is for a host that a whole network visits.
@lru_cache(maxsize=8192)
def ipv4_text(packed: bytes) -> str:
    """Four bytes as dotted text."""
    return inet_ntop(AF_INET, packed)


@lru_cache(maxsize=8192)
def ipv6_text(packed: bytes) -> tuple[str, bool]:
    """Sixteen bytes as text, and whether they are a mapped IPv4 address."""
    if packed.startswith(MAPPED_PREFIX):
        return inet_ntop(AF_INET, packed[12:]), True
    return inet_ntop(AF_INET6, packed), False


def pack(address: str, *, mapped: bool) -> tuple[int, bytes]:
    """Give the family and the bytes of *address*."""
    family = AF_INET6 if is_ipv6(address) else AF_INET
    try:
        packed = inet_pton(family, address)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{address!r} is no IP address") from error
    if family == AF_INET and mapped:
        return AF_INET6, MAPPED_PREFIX + packed
    return family, packed

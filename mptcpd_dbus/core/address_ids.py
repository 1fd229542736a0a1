"""Which address ID a local address has, or gets, on a connection under the userspace path manager.

Subflows from the same address have the same ID.  With a source port, the address counts as
another one (measured: the kernel says "did not match address and id" to anything else).  ID 0 is
the initial subflow's and never given out.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.errors import LimitReached

Key = tuple[str, int]
"""An address and its port, 0 without one."""


def known_id(connection: Connection, key: Key, in_flight: Mapping[Key, int]) -> int | None:
    """Give the ID that *key* already has.

    The kernel's table alone does not tell: a join that fails deletes the entry of its address even
    while other subflows use it (measured), so live subflows count too.
    """
    for entry in connection.local_addresses.values():
        if (entry.address, entry.port) == key:
            return entry.id
    if key in in_flight:
        return in_flight[key]
    address, port = key
    if port == 0:
        for subflow in connection.subflows.values():
            if (
                subflow.local_id
                and subflow.four_tuple.local_address == address
                and not _has_own_entry(connection, subflow.local_id)
            ):
                return subflow.local_id
    return None


def free_id(connection: Connection, in_flight: Iterable[int]) -> int:
    """Give the lowest ID that nothing on this connection uses."""
    taken = set(in_flight) | set(connection.local_addresses)
    taken.update(subflow.local_id for subflow in connection.subflows.values())
    for candidate in range(1, 256):
        if candidate not in taken:
            return candidate
    raise LimitReached(
        f"all 255 address IDs of connection {connection.token:08x} are in use; remove an address"
    )


def _has_own_entry(connection: Connection, local_id: int) -> bool:
    # Then the subflow's ID is that of an address with a source port, found above or another's.
    return local_id in connection.local_addresses


class AddressIds:
    """The IDs of commands that are on their way: nobody else may take them meanwhile."""

    def __init__(self) -> None:
        self._in_flight: dict[int, list[tuple[Key, int]]] = {}

    @contextmanager
    def reserved(self, connection: Connection, key: Key, wanted: int = 0) -> Iterator[int]:
        """Give the ID for *key*, the *wanted* one if any, and keep it until the kernel has it."""
        flying = self._in_flight.get(connection.number, [])
        chosen = (
            wanted
            or known_id(connection, key, dict(flying))
            or free_id(connection, (taken for _, taken in flying))
        )
        self._in_flight[connection.number] = flying
        flying.append((key, chosen))
        try:
            yield chosen
        finally:
            flying.remove((key, chosen))
            if not flying:
                self._in_flight.pop(connection.number, None)

"""Which address ID a local address has, or gets, on a connection under the userspace path manager.

Subflows from the same address have the same ID.  With a source port, the address counts as
another one (measured: the kernel says "did not match address and id" to anything else).  ID 0 is
the initial subflow's and never given out.  Source: RFC 8684, sections 3.2 and 3.4.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.errors import InvalidArgument, LimitReached

Key = tuple[str, int]
"""An address and its port, 0 without one."""


def known_id(
    connection: Connection,
    key: Key,
    promised: Mapping[Key, int],
    withdrawn: Collection[int] = (),
) -> int | None:
    """Give the ID that *key* already has.

    The kernel's table alone does not tell: a join that fails deletes the entry of its address even
    while other subflows use it (measured), so live subflows count too.  What was promised gives way
    where the kernel, which allocates IDs by itself, has given it to another address.
    """
    for entry in connection.local_addresses.values():
        if (entry.address, entry.port) == key:
            return entry.id
    if key in promised and _other(connection, promised[key], key) is None:
        return promised[key]
    address, port = key
    if port == 0:
        for subflow in connection.subflows.values():
            if (
                subflow.local_id
                and subflow.local_id not in withdrawn
                and subflow.four_tuple.local_address == address
                # Then it is that of an address with a source port, found above or another's.
                and subflow.local_id not in connection.local_addresses
            ):
                return subflow.local_id
    return None


def free_id(
    connection: Connection, promised: Collection[int], withdrawn: Collection[int] = ()
) -> int:
    """Give the lowest ID that was never used here, or else the one that was withdrawn first."""
    taken = {*promised, *connection.local_addresses}
    taken.update(subflow.local_id for subflow in connection.subflows.values())
    for candidate in chain((i for i in range(1, 256) if i not in withdrawn), withdrawn):
        if candidate not in taken:
            return candidate
    raise LimitReached(
        f"all 255 address IDs of connection {connection.token:08x} are in use; remove an address"
    )


@dataclass(slots=True)
class _Book:
    """What is known of one connection's IDs beyond what the kernel shows."""

    in_flight: list[tuple[Key, int]] = field(default_factory=list)
    reserved: dict[Key, int] = field(default_factory=dict)
    withdrawn: dict[int, None] = field(default_factory=dict)  # in the order of withdrawal

    def promised(self) -> dict[Key, int]:
        return self.reserved | dict(self.in_flight)


class AddressIds:
    """The IDs that are promised, by commands on their way and by reservation, and those withdrawn.

    The peer may still have something under a withdrawn one, so others come first.
    """

    def __init__(self) -> None:
        self._books: defaultdict[int, _Book] = defaultdict(_Book)

    @contextmanager
    def in_flight(self, connection: Connection, key: Key, wanted: int = 0) -> Iterator[int]:
        """Give the ID for *key*, the *wanted* one if any, and keep it until the kernel has it."""
        book = self._books[connection.number]
        chosen = wanted or self._choose(connection, key)
        book.in_flight.append((key, chosen))
        try:
            yield chosen
            book.withdrawn.pop(chosen, None)
        finally:
            book.in_flight.remove((key, chosen))

    def reserve(self, connection: Connection, key: Key) -> int:
        """Give the ID that *key* has, or else a free one, and keep it for *key* from now on."""
        chosen = self._choose(connection, key)
        self._books[connection.number].reserved[key] = chosen
        return chosen

    def assign(self, connection: Connection, key: Key, address_id: int) -> None:
        """Keep *address_id* for *key* from now on instead of what it had."""
        if not 0 < address_id < 256:
            raise InvalidArgument(f"address_id: {address_id} is not between 1 and 255")
        book = self._books[connection.number]
        owners = {taken: other for other, taken in book.promised().items()}
        owner = _other(connection, address_id, key) or owners.get(address_id, key)
        if owner != key:
            raise InvalidArgument(f"address_id: {address_id} is in use by {_text(owner)}")
        present = known_id(connection, key, {}, book.withdrawn)
        if present not in (None, address_id):
            raise InvalidArgument(
                f"address: {_text(key)} is in use under ID {present}; remove it first"
            )
        book.reserved[key] = address_id

    def forget(self, connection: Connection, key: Key) -> int:
        """Keep no ID for *key* any more; give the one that was kept, or 0."""
        return self._books[connection.number].reserved.pop(key, 0)

    def withdraw(self, connection: Connection, address_id: int) -> None:
        """Note that the peer is told to forget *address_id*: whoever had it gets another one."""
        book = self._books[connection.number]
        if address_id:
            book.withdrawn.pop(address_id, None)
            book.withdrawn[address_id] = None
        book.reserved = {key: kept for key, kept in book.reserved.items() if kept != address_id}

    def is_withdrawn(self, connection: Connection, address_id: int) -> bool:
        """Whether the peer was told to forget *address_id*, and nothing has got it since."""
        book = self._books.get(connection.number)
        withdrawn = book is not None and address_id in book.withdrawn
        return withdrawn and address_id not in connection.local_addresses

    def close(self, connection: Connection) -> None:
        """Forget everything of a connection that is gone."""
        self._books.pop(connection.number, None)

    def _choose(self, connection: Connection, key: Key) -> int:
        book = self._books[connection.number]
        promised = book.promised()
        return known_id(connection, key, promised, book.withdrawn) or free_id(
            connection, promised.values(), book.withdrawn
        )


def _other(connection: Connection, address_id: int, key: Key) -> Key | None:
    """Give what the kernel has under *address_id* if it is not *key*."""
    entry = connection.local_addresses.get(address_id)
    if entry is not None:
        found = (entry.address, entry.port)
        return found if found != key else None
    for subflow in connection.subflows.values():
        address = subflow.four_tuple.local_address
        if subflow.local_id == address_id and address != key[0]:
            return address, 0
    return None


def _text(key: Key) -> str:
    address, port = key
    return f"{address} port {port}" if port else address

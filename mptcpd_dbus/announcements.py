"""What this host has announced on its connections, and the listeners that joins to it need.

The kernel forgets an announced address when a subflow from it is destroyed (measured), although
the peer still knows it; so what was announced is remembered here until it is withdrawn.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections import defaultdict

from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.types import AddressEntry, is_ipv6
from mptcpd_dbus.kernel_protocol import Kernel


class Announcements:
    """By connection and address ID."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._entries: defaultdict[int, dict[int, AddressEntry]] = defaultdict(dict)

    def get(self, connection: Connection, address_id: int) -> AddressEntry | None:
        """Give what was announced under *address_id* and not withdrawn."""
        return self._entries.get(connection.number, {}).get(address_id)

    def of(self, connection: Connection) -> tuple[AddressEntry, ...]:
        """Give everything that was announced on *connection* and not withdrawn."""
        return tuple(self._entries.get(connection.number, {}).values())

    def add(self, connection: Connection, entry: AddressEntry) -> None:
        """Remember *entry* until it is withdrawn."""
        self._entries[connection.number][entry.id] = entry

    def withdraw(self, connection: Connection, address_id: int) -> AddressEntry | None:
        """Forget what was announced under *address_id*, and give it."""
        return self._entries.get(connection.number, {}).pop(address_id, None)

    def listen(self, connection: Connection, entry: AddressEntry) -> None:
        """See to it that joins to *entry* are heard.

        An announced port wants a listener on exactly that address and port (measured: a wildcard
        refuses); without one, whatever covers the connection's own port will do.
        """
        covering = {entry.address}
        if not entry.port:
            covering.add("::" if is_ipv6(entry.address) else "0.0.0.0")  # noqa: S104 # no bind
            if connection.mapped:
                covering.add("::")
        port = entry.port or connection.four_tuple.local_port
        user = _user(connection, entry)
        self._kernel.open_listener(user, entry.address, port, frozenset(covering))

    def silence(self, connection: Connection, entry: AddressEntry) -> None:
        """Listen for *entry* no more; the last user of a listener closes it."""
        self._kernel.close_listener(_user(connection, entry))

    def close(self, connection: Connection) -> None:
        """Forget everything of a connection that is gone."""
        for entry in self._entries.pop(connection.number, {}).values():
            self.silence(connection, entry)


def _user(connection: Connection, entry: AddressEntry) -> tuple[int, str, int]:
    return (connection.number, entry.address, entry.port)

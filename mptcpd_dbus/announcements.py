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

    def add(self, connection: Connection, entry: AddressEntry, *, listen: bool) -> None:
        """Remember *entry* and, with *listen*, see to it that joins to it are heard.

        An announced port wants a listener on exactly that address and port (measured: a wildcard
        refuses); without one, whatever covers the connection's own port will do.
        """
        if listen:
            covering = {entry.address}
            if not entry.port:
                covering.add("::" if is_ipv6(entry.address) else "0.0.0.0")  # noqa: S104 # no bind
                if connection.mapped:
                    covering.add("::")
            port = entry.port or connection.four_tuple.local_port
            user = (connection.number, entry.id)
            self._kernel.open_listener(user, entry.address, port, frozenset(covering))
        self._entries[connection.number][entry.id] = entry

    def remove(self, connection: Connection, address_id: int) -> None:
        """Forget what was announced under *address_id*; the last user of a listener closes it."""
        if self._entries.get(connection.number, {}).pop(address_id, None) is not None:
            self._kernel.close_listener((connection.number, address_id))

    def close(self, connection: Connection) -> None:
        """Forget everything of a connection that is gone."""
        for address_id in self._entries.pop(connection.number, ()):
            self._kernel.close_listener((connection.number, address_id))

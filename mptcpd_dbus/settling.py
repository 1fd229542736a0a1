"""Connections that are too young to be objects: most of a busy host's are gone before they settle.

Knows nothing of the bus.  Time is what the caller says it is, in seconds.
"""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.core.connections import Connection


class Settling:
    """Remembers who came when; each is due after *settle_time*, or as soon as somebody asks."""

    def __init__(self, settle_time: float) -> None:
        self._settle_time = settle_time
        self._due_at: dict[Connection, float] = {}  # in the order of their coming
        self._by_number: dict[int, Connection] = {}
        self._hastened: dict[Connection, None] = {}

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._due_at

    def come(self, connection: Connection, now: float) -> None:
        """Begin to wait."""
        self._due_at[connection] = now + self._settle_time
        self._by_number[connection.number] = connection

    def leave(self, connection: Connection) -> None:
        """Wait no longer: it has closed, or is due."""
        del self._due_at[connection]
        del self._by_number[connection.number]
        self._hastened.pop(connection, None)

    def hasten(self, number: int) -> bool:
        """Make the connection of that number due at once; give whether it was waiting."""
        connection = self._by_number.get(number)
        if connection is None:
            return False
        self._hastened[connection] = None
        return True

    def hasten_all(self) -> bool:
        """Make all due at once; give whether any was waiting."""
        self._hastened.update(dict.fromkeys(self._due_at))
        return bool(self._hastened)

    def due(self, now: float) -> list[Connection]:
        """Give those that need not wait any longer."""
        due = list(self._hastened)
        for connection, due_at in self._due_at.items():
            if due_at > now:
                break
            if connection not in self._hastened:
                due.append(connection)
        return due

    @property
    def next_due(self) -> float | None:
        """When the oldest is due; None while none waits."""
        return next(iter(self._due_at.values()), None)

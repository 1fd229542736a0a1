"""Connections that are too young to be objects: most of a busy host's are gone before they settle.

Knows nothing of the bus.  Time is what the caller says it is, in seconds.
"""
# SPDX-License-Identifier: BSD-3-Clause

from itertools import islice

from mptcpd_dbus.core.connections import Connection


class Settling:
    """Remembers who came when; each is due after *settle_time*, or as soon as somebody asks."""

    def __init__(self, settle_time: float) -> None:
        self._settle_time = settle_time
        self._waiting: dict[int, tuple[Connection, float]] = {}  # in the order of their coming
        self._hastened: set[int] = set()

    def come(self, connection: Connection, now: float) -> None:
        """Begin to wait."""
        self._waiting[connection.number] = connection, now + self._settle_time

    def leave(self, connection: Connection) -> None:
        """Wait no longer: it has closed, or is due."""
        del self._waiting[connection.number]

    def waits(self, number: int) -> bool:
        """Whether the connection of that number is too young."""
        return number in self._waiting

    def hasten(self, number: int) -> None:
        """Make the connection of that number due at once, also if it is just about to come."""
        self._hastened.add(number)

    def hasten_some(self, most: int, last: int) -> bool:
        """Make the oldest due at once, up to that many and that number; give whether any was."""
        oldest = [number for number in islice(self._waiting, most) if number <= last]
        self._hastened.update(oldest)
        return bool(oldest)

    def due(self, now: float) -> list[Connection]:
        """Give those that need not wait any longer, in the order of their coming."""
        due = self._waiting.keys() & self._hastened
        self._hastened.clear()
        for number, (_, due_at) in self._waiting.items():
            if due_at > now:
                break
            due.add(number)
        return [self._waiting[number][0] for number in sorted(due)]

    @property
    def next_due(self) -> float | None:
        """When the oldest is due; None while none waits."""
        return next((due_at for _, due_at in self._waiting.values()), None)

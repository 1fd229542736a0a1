"""A policy host that only writes down what it is told to do."""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.core.connections import Connection


class FakePolicies:
    """It raises what a test wants it to."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []
        self.raises: Exception | None = None

    async def enable(self, name: str) -> None:
        """Hear of it."""
        self._hear("enable", name)

    async def disable(self, name: str) -> None:
        """Hear of it."""
        self._hear("disable", name)

    async def reload(self, name: str) -> None:
        """Hear of it."""
        self._hear("reload", name)

    async def set_owner(self, connection: Connection, name: str) -> None:
        """Hear of it."""
        self._hear("set_owner", f"{connection.token:08x}", name)

    async def reload_configuration(self) -> None:
        """Hear of it."""
        self._hear("reload_configuration")

    def _hear(self, *told: str) -> None:
        self.told.append(told)
        if self.raises is not None:
            raise self.raises

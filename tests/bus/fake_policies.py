"""A policy host that only writes down what it is told to do."""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.policy_protocol import Program, Registration


class FakePolicies:
    """It raises what a test wants it to."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []
        self.raises: Exception | None = None
        self.programs: dict[str, Program] = {}

    async def register(self, wanted: Registration, program: Program) -> None:
        """Hear of it."""
        self._hear("register", wanted.name)
        self.programs[wanted.name] = program

    async def unregister(self, program: Program) -> None:
        """Hear of it."""
        for name, known in list(self.programs.items()):
            if known is program:
                del self.programs[name]
                self._hear("unregister", name)

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

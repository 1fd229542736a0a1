"""What the bus asks of the policy host: the one door for the real one and for those of tests."""
# SPDX-License-Identifier: BSD-3-Clause

from typing import Protocol

from mptcpd_dbus.core.connections import Connection


class Policies(Protocol):
    """Each command returns when it is done; all may raise InvalidArgument and NotReady."""

    async def enable(self, name: str) -> None:
        """Let the policy *name* run; it gets new connections and those that nobody owns."""

    async def disable(self, name: str) -> None:
        """Stop the policy *name*; its connections pass to the next in line."""

    async def reload(self, name: str) -> None:
        """Load the file of *name* anew; its settings stay."""

    async def set_owner(self, connection: Connection, name: str) -> None:
        """Let the policy *name*, or nobody if it is "", decide for *connection* from now on."""

    async def reload_configuration(self) -> None:
        """Read the configuration again and follow it."""

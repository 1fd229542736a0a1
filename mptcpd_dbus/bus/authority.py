"""Who may call which method: the one place that is asked before a handler runs.

Knows callers and targets, not messages.  Whatever it cannot allow, it refuses with a BusError.
"""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.bus.interface import Call, Method
from mptcpd_dbus.bus.names import MANAGE_CONNECTIONS
from mptcpd_dbus.bus.polkit import Polkit
from mptcpd_dbus.bus.programs import Programs
from mptcpd_dbus.core.connections import Connection, Subflow


class Authority:
    """Lets a call through, or raises BusError."""

    def __init__(self, polkit: Polkit, programs: Programs) -> None:
        self._polkit = polkit
        self._programs = programs

    async def check(
        self, call: Call, target: object, method: Method, details: dict[str, str]
    ) -> None:
        """Return if the caller may call *method* on *target*.

        A program decides for its connections as a plugin does, and registering was authorised.
        """
        connection = target.connection if isinstance(target, Subflow) else target
        decides = (
            method.action == MANAGE_CONNECTIONS
            and isinstance(connection, Connection)
            and self._programs.decides(call.sender, connection)
        )
        if method.action is not None and not decides:
            await self._polkit.check(call, method.action, details)

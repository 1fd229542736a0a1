"""Who may call which method: the one place that is asked before a handler runs.

Knows callers and targets, not messages.  Whatever it cannot allow, it refuses with a BusError.
"""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.bus.interface import Call, Method
from mptcpd_dbus.bus.polkit import Polkit


class Authority:
    """Lets a call through, or raises BusError."""

    def __init__(self, polkit: Polkit) -> None:
        self._polkit = polkit

    async def check(
        self, call: Call, _target: object, method: Method, details: dict[str, str]
    ) -> None:
        """Return if the caller may call *method* on the target."""
        if method.action is not None:
            await self._polkit.check(call, method.action, details)

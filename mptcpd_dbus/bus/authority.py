"""Who may call which method: the one place that is asked before a handler runs.

Besides those whom polkit allows, those may command a connection who decide for it as a policy or
have shown its socket.  Unique names are never used again on one bus, so this proof needs no watch
on its caller: it is forgotten with the connection, or with this bus.  Knows no messages.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections import deque
from typing import Any
from weakref import WeakKeyDictionary

from mptcpd_dbus.bus.interface import Call, Method
from mptcpd_dbus.bus.names import CONTROL_OWN_CONNECTIONS, MANAGE_CONNECTIONS, PROVERS
from mptcpd_dbus.bus.polkit import Polkit
from mptcpd_dbus.bus.programs import Programs
from mptcpd_dbus.core.connections import Connection, Subflow

_RESERVED = 1024  # ports below it are not for everybody: PROT_SOCK, <net/sock.h>


class Authority:
    """Lets a call through, or raises BusError."""

    def __init__(self, polkit: Polkit, programs: Programs) -> None:
        self._polkit = polkit
        self._programs = programs
        # Only who holds the socket can drive others out of the bound.
        self._provers: WeakKeyDictionary[Connection, deque[str]] = WeakKeyDictionary()

    def prove(self, call: Call, connection: Connection) -> None:
        """Note that the caller has shown the socket of *connection*."""
        provers = self._provers.setdefault(connection, deque(maxlen=PROVERS))
        if call.sender not in provers:
            provers.append(call.sender)

    async def check(
        self, call: Call, target: object, method: Method, details: dict[str, str]
    ) -> bool:
        """Return if the caller may call *method* on *target*: whether it does so as its owner."""
        if method.action is None or self._owns(call, target, method.action):
            return True
        # Whoever has the socket proves it by that alone; polkit, where there is any, may forbid it.
        own = method.action == CONTROL_OWN_CONNECTIONS
        await self._polkit.check(call, method.action, details, without=own)
        return own

    def _owns(self, call: Call, target: object, action: str) -> bool:
        """Whether it is a command on a connection that is the caller's.

        A program decides for its connections as a plugin does, and registering was authorised.
        """
        connection = target.connection if isinstance(target, Subflow) else target
        if action != MANAGE_CONNECTIONS or not isinstance(connection, Connection):
            return False
        proved = call.sender in self._provers.get(connection, ()) and not _takes_more(call)
        return proved or self._programs.decides(call.sender, connection)


def _takes_more(call: Call) -> bool:
    """Whether *call* takes of the host what the owner of a socket does not have by it.

    That is a local port that is not for everybody, and a listener of ours: those are not many.
    """
    options: dict[str, Any] = next((a for a in call.arguments if isinstance(a, dict)), {})
    ports = (options.get(name) for name in ("Port", "LocalPort"))
    return (call.member == "AnnounceAddress" and options.get("Listener") is not False) or any(
        isinstance(port, int) and 0 < port < _RESERVED for port in ports
    )

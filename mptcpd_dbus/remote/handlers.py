"""From a call of org.mptcpd1.Policy to the handler of a plugin and the pictures that it gets.

What a call names may be gone from the mirror when it comes.  Must not know how handlers are run.
"""
# SPDX-License-Identifier: BSD-3-Clause

from typing import Any

from mptcpd_dbus.bus.policy import HANDLER_OF
from mptcpd_dbus.bus.signals import NO_RESET_REASON
from mptcpd_dbus.core.connections import Address, Connection, Subflow
from mptcpd_dbus.core.events import SubflowClosed
from mptcpd_dbus.core.network import Interface
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.policy import snapshots
from mptcpd_dbus.policy.mailbox import HOST
from mptcpd_dbus.policy.network_filter import NetworkFilter
from mptcpd_dbus.remote.mirror import Mirror

Told = tuple[str, int, tuple[Any, ...]]
"""A handler, the queue that it belongs to, and its arguments."""


class Handlers:
    """Knows what calls say, by the things of *mirror*, as *network* shows them."""

    def __init__(self, mirror: Mirror, network: NetworkFilter) -> None:
        self._mirror = mirror
        self._network = network

    def told(self, member: str, values: list[Any]) -> Told | None:
        """Give what a call of the method *member* tells; None if that is not known here."""
        handler = HANDLER_OF.get(member)
        if handler is None:
            return None
        if not values or not str(values[0]).startswith("/"):
            return handler, HOST, self._of_the_host(member, values)
        thing = self._mirror.recall(values[0])
        if isinstance(thing, Connection):
            return handler, thing.number, self._of_connection(handler, thing, values)
        if isinstance(thing, Interface):
            picture = snapshots.interface(thing, self._network.shown(thing) or {})
            return handler, HOST, (picture, *(values[3:4] if "address" in handler else ()))
        return None

    def _of_the_host(self, member: str, values: list[Any]) -> tuple[Any, ...]:
        if member.startswith("Listener"):
            self._mirror.listens(*values, still=member == "ListenerCreated")
            return (snapshots.Listener(*values),)
        return tuple(values)

    def _of_connection(
        self, handler: str, connection: Connection, values: list[Any]
    ) -> tuple[Any, ...]:
        thing = self._mirror.recall(values[1])
        picture = snapshots.connection(connection)
        match handler:
            case "new_address":
                return (picture, snapshots.Address(values[3], values[4], values[5], remote=True))
            case "address_removed":
                known = isinstance(thing, Address)
                gone = snapshots.Address(values[3], "", 0, remote=True)
                return (picture, snapshots.address(thing) if known else gone)
            case "new_subflow" | "subflow_priority" if isinstance(thing, Subflow):
                return (picture, snapshots.subflow(thing))
            case "new_subflow" | "subflow_closed" | "subflow_priority":
                return (picture, _ended(values, connection, thing))
            case _:
                return (picture,)


def _ended(values: list[Any], connection: Connection, thing: Any) -> snapshots.Subflow:
    """Picture a subflow that has ended, or a join that failed: then there was no *thing*."""
    token, local, local_port, remote, remote_port, local_id, remote_id, backup, index = values[2:11]
    error, reason = values[12:14] if len(values) > 13 else (0, NO_RESET_REASON)
    four_tuple = FourTuple(local, local_port, remote, remote_port)
    event = SubflowClosed(
        token,
        four_tuple,
        local_id,
        remote_id,
        backup,
        index,
        error=error,
        reset_reason=None if reason == NO_RESET_REASON else reason,
    )
    return snapshots.closed_subflow(
        event, connection, thing if isinstance(thing, Subflow) else None
    )

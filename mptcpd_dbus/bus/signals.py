"""The signals: one per event, under the event's name, and how an event becomes its arguments.

They belong to Manager and not to the objects: a client needs a single match rule, and an object
may be gone when its signal is sent.  First come the object paths that it is about ("/" for what has
no object), then the token.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable
from typing import Any

from mptcpd_dbus.bus.interface import Signal, args
from mptcpd_dbus.bus.paths import connection_path, path_of
from mptcpd_dbus.core import events
from mptcpd_dbus.core.network import Interface
from mptcpd_dbus.core.state import Change

Values = tuple[Any, ...]

_FOUR_TUPLE = ("s local_address", "q local_port", "s remote_address", "q remote_port")
_CONNECTION = args("o connection", "u token", *_FOUR_TUPLE, "b server_side", "b deny_join_id0")
_SUBFLOW = (
    "o connection",
    "o subflow",
    "u token",
    *_FOUR_TUPLE,
    "y local_id",
    "y remote_id",
    "b backup",
    "u interface_index",
    "s interface",
)
_INTERFACE = args("o path", "u index", "s name", "s kind", "b up", "b running")

NO_RESET_REASON = -1


def _connection(event: Any, change: Change) -> Values:
    return (
        _path(change),
        event.token,
        *event.four_tuple,
        event.server_side,
        event.deny_join_id0,
    )


def _path(change: Change) -> str:
    assert change.connection is not None  # noqa: S101 # for the type checker
    return connection_path(change.connection.number)


def _closed(event: Any, change: Change) -> Values:
    return (_path(change), event.token)


def _address(event: Any, change: Change) -> Values:
    return (_path(change), path_of(change.subject), event.token, event.remote_id)


def _new_address(event: Any, change: Change) -> Values:
    return (*_address(event, change), event.address, event.port)


def _subflow(event: Any, change: Change) -> Values:
    subflow = change.subject
    interface = getattr(subflow, "interface", None)
    return (
        _path(change),
        path_of(subflow),
        event.token,
        *event.four_tuple,
        event.local_id,
        event.remote_id,
        event.backup,
        interface.index if interface else event.interface_index,
        interface.name if interface else "",
    )


def _subflow_closed(event: Any, change: Change) -> Values:
    reason = NO_RESET_REASON if event.reset_reason is None else event.reset_reason
    return (*_subflow(event, change), event.error, reason)


def _listener(event: Any, _: Change) -> Values:
    return (event.address, event.port)


def _interface(event: Any, change: Change) -> Values:
    return (
        path_of(change.subject),
        event.index,
        event.name,
        event.kind,
        event.up,
        event.running,
    )


def _interface_gone(event: Any, change: Change) -> Values:
    return (path_of(change.subject), event.index, _name(change))


def _local_address(event: Any, change: Change) -> Values:
    return (
        path_of(change.subject),
        event.interface_index,
        _name(change),
        event.address,
        event.prefix_length,
    )


def _local_address_gone(event: Any, change: Change) -> Values:
    return (path_of(change.subject), event.interface_index, _name(change), event.address)


def _lost(event: Any, _: Change) -> Values:
    return (event.source,)


def _name(change: Change) -> str:
    return change.subject.name if isinstance(change.subject, Interface) else ""


SIGNALS: dict[type[events.Event], tuple[Signal, Callable[[Any, Change], Values]]] = {
    events.NewConnection: (
        Signal(
            "NewConnection",
            _CONNECTION,
            "A connection's first subflow finished its MP_CAPABLE handshake (RFC 8684, section"
            " 3.1). The path can be called from now on; its object is announced when the connection"
            " has settled (settle-time), or when somebody calls it.",
        ),
        _connection,
    ),
    events.ConnectionEstablished: (
        Signal(
            "ConnectionEstablished",
            _CONNECTION,
            "The peer has confirmed MPTCP with its first data or option: from now on subflows may"
            " be added.",
        ),
        _connection,
    ),
    events.ConnectionClosed: (
        Signal(
            "ConnectionClosed",
            args("o connection", "u token"),
            "The connection is gone, and its subflows with it: they get no SubflowClosed. After a"
            " peer's abort the kernel tells nothing, and this comes with the next sweep.",
        ),
        _closed,
    ),
    events.NewAddress: (
        Signal(
            "NewAddress",
            args(
                "o connection",
                "o path",
                "u token",
                "y remote_id",
                "s address",
                "q port",
            ),
            "The peer announced an address (ADD_ADDR, RFC 8684, section 3.4.1). The port is the"
            " announced one or, where none was, the remote port of the subflow that carried the"
            " option. Said once per announcement, not once per retransmission.",
        ),
        _new_address,
    ),
    events.AddressRemoved: (
        Signal(
            "AddressRemoved",
            args("o connection", "o path", "u token", "y remote_id"),
            "The peer withdrew an address (REMOVE_ADDR, RFC 8684, section 3.4.2); the path is '/'"
            " for an ID that it never announced.",
        ),
        _address,
    ),
    events.NewSubflow: (
        Signal(
            "NewSubflow",
            args(*_SUBFLOW),
            "A subflow joined the connection (MP_JOIN, RFC 8684, section 3.2). On the side that"
            " asked for it this is no promise: the peer may still refuse, and SubflowClosed"
            " follows. 'backup' is what the peer asked for; the interface is the device that the"
            " socket is bound to, else the one that owns the local address, index 0 and '' where"
            " there is none.",
        ),
        _subflow,
    ),
    events.SubflowClosed: (
        Signal(
            "SubflowClosed",
            args(*_SUBFLOW, "u error", "i reset_reason"),
            "A subflow ended or, with the path '/', a join failed. 'error' is an errno (111"
            " refused, 110 timed out, 113 unreachable, 104 reset) or 0; 'reset_reason' is the"
            " peer's MP_TCPRST reason (RFC 8684, section 3.6) or -1. A remote port of 0 tells of"
            " a join that was given up before it was answered.",
        ),
        _subflow_closed,
    ),
    events.SubflowPriority: (
        Signal(
            "SubflowPriority",
            args(*_SUBFLOW),
            "The peer changed a subflow's priority (MP_PRIO, RFC 8684, section 3.3.8).",
        ),
        _subflow,
    ),
    events.ListenerCreated: (
        Signal(
            "ListenerCreated",
            args("s address", "q port"),
            "An MPTCP socket of this host began to listen (kernels from 6.2 on).",
        ),
        _listener,
    ),
    events.ListenerClosed: (
        Signal(
            "ListenerClosed",
            args("s address", "q port"),
            "An MPTCP socket of this host stopped listening (kernels from 6.2 on).",
        ),
        _listener,
    ),
    events.NewInterface: (
        Signal("NewInterface", _INTERFACE, "A network interface appeared."),
        _interface,
    ),
    events.UpdateInterface: (
        Signal(
            "UpdateInterface",
            _INTERFACE,
            "A network interface changed its name, its kind or its flags; 'up' is the"
            " administrator's wish, 'running' the carrier.",
        ),
        _interface,
    ),
    events.DeleteInterface: (
        Signal(
            "DeleteInterface",
            args("o path", "u index", "s name"),
            "A network interface is gone.",
        ),
        _interface_gone,
    ),
    events.NewLocalAddress: (
        Signal(
            "NewLocalAddress",
            args("o interface", "u index", "s name", "s address", "y prefix_length"),
            "A network interface has a new usable address.",
        ),
        _local_address,
    ),
    events.DeleteLocalAddress: (
        Signal(
            "DeleteLocalAddress",
            args("o interface", "u index", "s name", "s address"),
            "A network interface lost an address.",
        ),
        _local_address_gone,
    ),
    events.EventsLost: (
        Signal(
            "EventsLost",
            args("s source"),
            "The kernel dropped events because its queue to the daemon ('mptcp_pm' or 'rtnetlink')"
            " was full. The objects are read anew and right again; a client that counts signals"
            " must look at the objects instead.",
        ),
        _lost,
    ),
}

SIGNALS_DROPPED = Signal(
    "SignalsDropped",
    args("t count"),
    "Signals came faster than the bus takes them, or than it is given them (signal-budget); 'count'"
    " of them were dropped since the daemon joined the bus. It is the one signal that is no event,"
    " and comes once a second while there are too many. A client that follows signals must read the"
    " objects anew.",
)

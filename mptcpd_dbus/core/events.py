"""What happens: one class per event, and one word for it in every layer.

The class name is the name of the D-Bus signal; the kernel's own spelling stands in
`kernel/mptcp_events.py`.  Fields follow enum mptcp_event_attr, <linux/mptcp_pm.h>.
"""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

from mptcpd_dbus.core.network import NO_TRAITS, AddressTrait
from mptcpd_dbus.core.types import FourTuple

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True)
def _event(kind: type[_T]) -> type[_T]:
    """Make a data class that is frozen for the type checker.

    A frozen one takes four times as long to make, which is what the way of an event is short of.
    """
    return dataclass(slots=True, unsafe_hash=True)(kind)


class AnyEvent:
    """What all events are, and no reading is."""

    __slots__ = ()


@_event
class _OfConnection(AnyEvent):
    token: int
    four_tuple: FourTuple
    local_id: int = 0
    remote_id: int = 0
    server_side: bool = False
    deny_join_id0: bool = False
    mapped: bool = False


@_event
class _OfSubflow(AnyEvent):
    token: int
    four_tuple: FourTuple
    local_id: int = 0
    remote_id: int = 0
    backup: bool = False
    interface_index: int = 0
    mapped: bool = False


@_event
class NewConnection(_OfConnection):
    """A connection's first subflow finished its MP_CAPABLE handshake (RFC 8684, section 3.1)."""


@_event
class ConnectionEstablished(_OfConnection):
    """The peer has confirmed MPTCP with its first data or option: subflows may now be added."""


@_event
class ConnectionClosed(AnyEvent):
    """The connection is gone, with all its subflows."""

    token: int


@_event
class NewAddress(AnyEvent):
    """The peer announced an address (ADD_ADDR, RFC 8684, section 3.4.1).

    `port` is the announced port or, where none was announced, the remote port of the subflow that
    carried the option.
    """

    token: int
    remote_id: int
    address: str
    port: int


@_event
class AddressRemoved(AnyEvent):
    """The peer withdrew an address (REMOVE_ADDR, RFC 8684, section 3.4.2)."""

    token: int
    remote_id: int


@_event
class NewSubflow(_OfSubflow):
    """A subflow joined the connection (MP_JOIN, RFC 8684, section 3.2).

    `backup` is what the *peer* asked for.  `interface_index` is 0 unless the socket is bound to a
    device.
    """


@_event
class SubflowClosed(_OfSubflow):
    """A subflow ended, or a join failed before it began.

    `error` is an errno or 0; `reset_reason` is the peer's MP_TCPRST reason (RFC 8684, section 3.6)
    or None where no such option came.
    """

    error: int = 0
    reset_reason: int | None = None


@_event
class SubflowPriority(_OfSubflow):
    """The peer changed a subflow's priority (MP_PRIO, RFC 8684, section 3.3.8)."""


@_event
class ListenerCreated(AnyEvent):
    """An MPTCP socket began to listen."""

    address: str
    port: int


@_event
class ListenerClosed(AnyEvent):
    """An MPTCP socket stopped listening."""

    address: str
    port: int


@_event
class NewInterface(AnyEvent):
    """A network interface appeared (RTM_NEWLINK, rtnetlink(7))."""

    index: int
    name: str
    kind: str
    up: bool
    running: bool


@_event
class UpdateInterface(AnyEvent):
    """A network interface changed its name, its kind or its flags."""

    index: int
    name: str
    kind: str
    up: bool
    running: bool


@_event
class DeleteInterface(AnyEvent):
    """A network interface is gone (RTM_DELLINK)."""

    index: int


@_event
class NewLocalAddress(AnyEvent):
    """An interface has a usable address (RTM_NEWADDR; IFA_LOCAL, neither tentative nor failed)."""

    interface_index: int
    address: str
    prefix_length: int
    traits: AddressTrait = NO_TRAITS


@_event
class DeleteLocalAddress(AnyEvent):
    """An interface lost an address (RTM_DELADDR)."""

    interface_index: int
    address: str


@_event
class EventsLost(AnyEvent):
    """A kernel socket overflowed; the state has been read anew.

    `source` is "mptcp_pm" or "rtnetlink".
    """

    source: str


ConnectionEvent = (
    NewConnection
    | ConnectionEstablished
    | ConnectionClosed
    | NewAddress
    | AddressRemoved
    | NewSubflow
    | SubflowClosed
    | SubflowPriority
)
MptcpEvent = ConnectionEvent | ListenerCreated | ListenerClosed
NetworkEvent = (
    NewInterface | UpdateInterface | DeleteInterface | NewLocalAddress | DeleteLocalAddress
)
Event = MptcpEvent | NetworkEvent | EventsLost

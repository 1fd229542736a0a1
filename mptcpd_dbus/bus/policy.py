"""The interface org.mptcpd1.Policy: what a program exports that decides for connections.

It is the one interface that the daemon calls and does not serve.  A handler's method has the name
and the arguments of Manager's signal of the same event.  Must not know how a line of calls is held
back, nor of pictures more than their fields.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable
from typing import Any, NamedTuple

from mptcpd_dbus.bus.interface import Argument, Interface, Method, args
from mptcpd_dbus.bus.names import INTERFACE_PREFIX
from mptcpd_dbus.bus.paths import (
    NOTHING,
    address_path,
    connection_path,
    interface_path,
    subflow_path,
)
from mptcpd_dbus.bus.signals import NO_RESET_REASON, SIGNALS

Values = tuple[Any, ...]

_SIGNALS = {signal.name: signal for signal, _ in SIGNALS.values()}
_BRIEF = args("o connection", "u token")


class _Values:
    """From the pictures that a plugin's handler gets to the arguments of a method."""

    def __init__(self, index_of: Callable[[str], int]) -> None:
        self._index_of = index_of

    def connection(self, c: Any) -> Values:
        return (*self.brief(c), *_ends(c), c.server_side, c.deny_join_id0)

    def brief(self, c: Any) -> Values:
        return (connection_path(c.number), c.token)

    def address_removed(self, c: Any, a: Any) -> Values:
        path = address_path(c.number, a.id, remote=a.remote) if a.address else NOTHING
        return (connection_path(c.number), path, c.token, a.id)

    def new_address(self, c: Any, a: Any) -> Values:
        return (*self.address_removed(c, a), a.address, a.port)

    def subflow(self, c: Any, s: Any) -> Values:
        return (
            connection_path(c.number),
            subflow_path(c.number, s.number) if s.number else NOTHING,
            c.token,
            *_ends(s),
            s.local_id,
            s.remote_id,
            s.backup,
            s.interface_index or self._index_of(s.interface),
            s.interface,
        )

    def subflow_closed(self, c: Any, s: Any) -> Values:
        reason = NO_RESET_REASON if s.reset_reason is None else s.reset_reason
        return (*self.subflow(c, s), s.error, reason)

    def listener(self, listener: Any) -> Values:
        return (listener.address, listener.port)

    def interface(self, i: Any) -> Values:
        return (interface_path(i.index), i.index, i.name, i.kind, i.up, i.running)

    def interface_gone(self, i: Any) -> Values:
        return (interface_path(i.index), i.index, i.name)

    def local_address(self, i: Any, address: str) -> Values:
        return (*self.local_address_gone(i, address), i.addresses.get(address, 0))

    def local_address_gone(self, i: Any, address: str) -> Values:
        return (*self.interface_gone(i), address)

    def plain(self, *values: Any) -> Values:
        return values


def _ends(thing: Any) -> Values:
    return (thing.local_address, thing.local_port, thing.remote_address, thing.remote_port)


class _Handler(NamedTuple):
    """A handler: what makes its arguments, what it tells; *arguments* where no signal has them."""

    name: str
    values: Callable[..., Values]
    doc: str
    arguments: tuple[Argument, ...] | None = None

    @property
    def method(self) -> str:
        """The name of its method, which is that of the event."""
        return "".join(word.capitalize() for word in self.name.split("_"))


_HANDLERS = (
    _Handler(
        "new_connection",
        _Values.connection,
        "Decide for a connection from now on: it is new, or was there already and nobody or another"
        " policy decided for it.",
    ),
    _Handler(
        "connection_established",
        _Values.connection,
        "Act: from now on subflows can be added. It comes at once for a connection that was there"
        " already.",
    ),
    _Handler(
        "connection_closed",
        _Values.brief,
        "Forget the connection; its subflows went without a word of their own.",
    ),
    _Handler(
        "connection_released",
        _Values.brief,
        "Forget the connection; it lives on under another policy, or under none.",
        _BRIEF,
    ),
    _Handler("new_address", _Values.new_address, "The peer announced an address."),
    _Handler("address_removed", _Values.address_removed, "The peer withdrew an address."),
    _Handler("new_subflow", _Values.subflow, "A subflow joined, made by either end."),
    _Handler("subflow_closed", _Values.subflow_closed, "A subflow ended, or a join failed."),
    _Handler("subflow_priority", _Values.subflow, "The peer changed a subflow's priority."),
    _Handler("listener_created", _Values.listener, "An MPTCP socket of this host began to listen."),
    _Handler(
        "listener_closed", _Values.listener, "An MPTCP socket of this host stopped listening."
    ),
    _Handler(
        "new_interface",
        _Values.interface,
        "There is a network interface that the configuration shows to policies: each of them at the"
        " registration, a new one later.",
    ),
    _Handler(
        "update_interface",
        _Values.interface,
        "A network interface changed: its name, kind or flags, or a property of its object.",
    ),
    _Handler("delete_interface", _Values.interface_gone, "A network interface is gone."),
    _Handler("new_local_address", _Values.local_address, "An interface has a new address."),
    _Handler("delete_local_address", _Values.local_address_gone, "An interface lost an address."),
    _Handler(
        "endpoints_changed",
        _Values.plain,
        "The in-kernel path manager's endpoints changed, whoever did it.",
        (),
    ),
    _Handler(
        "events_lost",
        _Values.plain,
        "Some events did not come ('mptcp_pm' or 'rtnetlink' names the source): look at the"
        " objects.",
    ),
    _Handler(
        "ready",
        _Values.plain,
        "MPTCP is on (net.mptcp.enabled): at the registration, and when it was switched on again.",
        (),
    ),
    _Handler(
        "not_ready",
        _Values.plain,
        "MPTCP was switched off: there will be no new connections.",
        (),
    ),
)


async def _served_elsewhere(*_: Any) -> None:
    """Stand where a handler stands: clients serve this interface, nothing here is called by it."""
    raise NotImplementedError


def _method(handler: _Handler) -> Method:
    name, doc, arguments = handler.method, handler.doc, handler.arguments
    if arguments is None:
        arguments = _SIGNALS[name].arguments
        doc = f"{doc} The arguments are those of the signal Manager.{name}."
    return Method(name, arguments, (), _served_elsewhere, doc)


RELEASED = Method(
    "Released",
    args("s reason"),
    (),
    _served_elsewhere,
    "The policy decides no more: an administrator disabled it, or it does not read its calls (then"
    " it may register again after 10 seconds). No ConnectionReleased comes beside it, and nobody"
    " waits for the answer.",
)

POLICY = Interface(
    INTERFACE_PREFIX + "Policy",
    "A policy outside the daemon: a program exports this interface at a path of its choice and"
    " calls Manager.RegisterPolicy. From then on it decides for connections like a plugin of the"
    " daemon: each method tells it of an event of a connection that it decides for, or of the host,"
    " in the order of events and after everybody was told: the objects are by then what the event"
    " has made them, and those that it ended are gone. It acts by the methods of the objects. Most"
    " calls want no answer; the"
    " first and then every 32nd does, and a program must answer it, with an error if it likes: with"
    " 128 calls unanswered further ones are held back, and after 5 seconds of that, or 30 seconds"
    " without the answer, the daemon lets the program go. A method that a program does not have"
    " costs it nothing. When the daemon has left the bus and is back, a program registers again.",
    methods=(*map(_method, _HANDLERS), RELEASED),
)

HANDLER_OF = {handler.method: handler.name for handler in _HANDLERS}
"""The handler of each method that calls one."""

_METHOD_OF = {method.name: method for method in POLICY.methods}


def handlers(index_of: Callable[[str], int]) -> dict[str, tuple[Method, Callable[..., Values]]]:
    """Give the method of each handler, and what makes its arguments of the handler's.

    *index_of* gives the index of the interface that has a name, or 0.
    """
    values = _Values(index_of)
    return {h.name: (_METHOD_OF[h.method], h.values.__get__(values)) for h in _HANDLERS}

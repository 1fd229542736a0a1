"""From a method call to its answer: find, compare, decode, authorise, find again, handle, reply.

The only place where a method is found by its name.  Reads are answered at once; methods with a
handler run as tasks.  Nothing runs before it is authorised, and no caller learns more of an error
than `error_names.py` lets out.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mptcpd_dbus.bus.audit import Audit
from mptcpd_dbus.bus.decoding import decode
from mptcpd_dbus.bus.error_names import (
    FAILED,
    INVALID_ARGS,
    LIMITS_EXCEEDED,
    PROPERTY_READ_ONLY,
    UNKNOWN_INTERFACE,
    UNKNOWN_METHOD,
    UNKNOWN_OBJECT,
    UNKNOWN_PROPERTY,
    BusError,
    on_the_bus,
)
from mptcpd_dbus.bus.interface import Call, Method
from mptcpd_dbus.bus.introspection import node_xml
from mptcpd_dbus.bus.message import INTERACTIVE, Incoming
from mptcpd_dbus.bus.names import CALL_DESCRIPTORS, ROOT, SMALL_BYTES
from mptcpd_dbus.bus.peers import Peer, Peers
from mptcpd_dbus.bus.published import CompiledInterface, CompiledMethod, Published
from mptcpd_dbus.bus.signatures import WireError
from mptcpd_dbus.bus.transport import Transport
from mptcpd_dbus.bus.turns import Turns
from mptcpd_dbus.bus.wire import Variant, begin_array, encode, end_array

PROPERTIES = "org.freedesktop.DBus.Properties"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
PEER = "org.freedesktop.DBus.Peer"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"

# Gives whether the target is the caller's own, or raises BusError when the caller may not:
# (call, target, method, details for polkit).
Authorise = Callable[[Call, Any, Method, dict[str, str]], Awaitable[bool]]

_STANDARD = {
    (PEER, "Ping"): "",
    (PEER, "GetMachineId"): "",
    (INTROSPECTABLE, "Introspect"): "",
    (PROPERTIES, "Get"): "ss",
    (PROPERTIES, "GetAll"): "s",
    (PROPERTIES, "Set"): "ssv",
    (OBJECT_MANAGER, "GetManagedObjects"): "",
}


class Dispatcher:
    """Answers the calls that the doorkeeper lets in."""

    def __init__(
        self,
        transport: Transport,
        peers: Peers,
        authorise: Authorise,
        *,
        objects: Mapping[str, Published],
        children: Mapping[str, Mapping[str, None]],
        managed_objects: Callable[[], Awaitable[Sequence[bytes]]],
        prepare: Callable[[str], None],
    ) -> None:
        self._transport = transport
        self._peers = peers
        self._authorise = authorise
        self._objects = objects
        self._children = children
        self._managed_objects = managed_objects
        self._prepare = prepare
        self._large_answers = Turns(transport.taken)
        self._audit = Audit()
        self._tasks: set[asyncio.Task[None]] = set()
        peers.on_call = self._on_call

    def stop(self) -> None:
        """Cancel the handlers that are at work."""
        for task in self._tasks:
            task.cancel()
        self._audit.stop()

    def _on_call(self, call: Incoming, peer: Peer) -> None:
        began = time.monotonic()
        try:
            self._prepare(call.path)
            published = self._objects.get(call.path)
            method = _own_method(call, published)
            if published is not None and method is not None:
                self._start(call, peer, self._handle, published, method)
            else:
                self._standard(call, peer, published)
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets an answer
            self._refuse(call, error)
        self._peers.charge(peer, 0, time.monotonic() - began)

    def _refuse(self, call: Incoming, error: Exception) -> None:
        if isinstance(error, WireError):
            error = BusError(INVALID_ARGS, str(error))
        told = on_the_bus(error)
        self._transport.reply_error(call, told.name, told.text)
        self._transport.close_descriptors(call)

    def _reply(self, call: Incoming, peer: Peer, signature: str, *body: bytes | bytearray) -> None:
        size = sum(map(len, body))
        if size > SMALL_BYTES and not self._peers.affords(peer, size):
            raise BusError(LIMITS_EXCEEDED, "too many large answers; follow the signals")
        self._transport.reply(call, signature, *body)
        self._peers.charge(peer, size)  # the work was done, also for a caller who wants none

    # Work that takes more than a moment

    def _start(
        self, call: Incoming, peer: Peer, work: Callable[..., Awaitable[None]], *more: Any
    ) -> None:
        if not self._peers.begin(peer):
            raise BusError(LIMITS_EXCEEDED, "too many calls at work; wait for an answer")
        task = asyncio.ensure_future(self._run(call, peer, work, more))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Not in the task, which may be cancelled before it has begun.
        task.add_done_callback(lambda _: self._transport.close_descriptors(call))

    async def _run(
        self,
        call: Incoming,
        peer: Peer,
        work: Callable[..., Awaitable[None]],
        more: tuple[Any, ...],
    ) -> None:
        try:
            await work(call, peer, *more)
        except asyncio.CancelledError:
            self._transport.reply_error(call, FAILED, "the call was cancelled")
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets an answer
            self._refuse(call, error)
        finally:
            self._peers.end(peer)

    async def _handle(
        self, call: Incoming, peer: Peer, published: Published, found: CompiledMethod
    ) -> None:
        arguments = _arguments(call, found.signature)
        interactive = bool(call.flags & INTERACTIVE)
        caller = Call(call.sender, peer.uid, interactive, call.member, tuple(arguments))
        if found.method.action is not None:
            body = await self._command(call, caller, published, found)
            self._reply(call, peer, found.result_signature, body)
        else:
            began = time.monotonic()
            body = await self._do(call, caller, published, found)
            self._reply(call, peer, found.result_signature, body)
            # It only reads and does not wait: that was our own time.
            self._peers.charge(peer, 0, time.monotonic() - began)

    async def _command(
        self, call: Incoming, caller: Call, published: Published, found: CompiledMethod
    ) -> bytearray:
        """Do what needs an authorisation, if there is one; how it went is in the log."""
        method = found.method
        details = {
            argument.name: str(value)
            for argument, value in zip(method.arguments, caller.arguments, strict=True)
            if isinstance(value, str | int) and argument.signature != "h"
        }
        own, result, why = False, "cancelled", ""
        try:
            own = await self._authorise(caller, published.target, method, details)
            body = await self._do(call, caller, published, found)
            result = "ok"
        except Exception as error:  # noqa: BLE001  whatever it is, it is in the log
            told = on_the_bus(error)
            result, why = told.name, told.text
            raise told from None
        finally:
            self._audit.note(caller, published, found, result, why=why, own=own)
        return body

    async def _do(
        self, call: Incoming, caller: Call, published: Published, found: CompiledMethod
    ) -> bytearray:
        """Have the handler do it; give its packed results."""
        if self._objects.get(call.path) is not published:  # a dialogue may take minutes
            raise _unknown_object(call)
        method = found.method
        arguments = [
            _passed(call, value) if argument.signature == "h" else value
            for argument, value in zip(method.arguments, caller.arguments, strict=True)
        ]
        results = await method.handler(published.target, caller, *arguments) or ()
        body = bytearray()
        try:
            found.pack_results(body, results)
        except WireError as error:
            raise RuntimeError(f"{found.interface}.{method.name} answered {results!r}") from error
        return body

    # Standard interfaces

    def _standard(self, call: Incoming, peer: Peer, published: Published | None) -> None:
        interface = self._standard_interface(call, published)
        arguments = _arguments(call, _STANDARD[interface, call.member])
        if published is not None and interface == PROPERTIES:
            self._property(call, peer, published, arguments)
        elif call.member == "Ping":
            self._reply(call, peer, "", b"")
        elif call.member == "GetMachineId":
            self._reply(call, peer, "s", _packed("s", _machine_id()))
        elif call.member == "Introspect":
            self._reply(call, peer, "s", _packed("s", self._introspect(call.path, published)))
        else:
            self._start(call, peer, self._answer_managed_objects)

    def _standard_interface(self, call: Incoming, published: Published | None) -> str:
        """Find the standard interface that has the member, or say which part is unknown."""
        if published is None and call.path not in self._children and call.interface != PEER:
            raise _unknown_object(call)
        has = {PEER, INTROSPECTABLE}
        if published is not None:
            has |= {PROPERTIES, *(own.name for own in published.interfaces)}
        if call.path == ROOT:
            has.add(OBJECT_MANAGER)
        interface = call.interface or _INTERFACE_OF.get(call.member, "")
        if call.interface and interface not in has:
            raise BusError(UNKNOWN_INTERFACE, f"{call.path} has no interface {interface}")
        if interface not in has or (interface, call.member) not in _STANDARD:
            raise BusError(UNKNOWN_METHOD, f"{call.path} has no method {call.member}")
        return interface

    async def _answer_managed_objects(self, call: Incoming, peer: Peer) -> None:
        async with self._large_answers.turn(peer.uid):
            self._reply(call, peer, "a{oa{sa{sv}}}", *await self._managed_objects())

    def _introspect(self, path: str, published: Published | None) -> str:
        interfaces = published.interfaces if published is not None else ()
        return node_xml(
            [own.interface for own in interfaces],
            self._children.get(path, ()),
            manages_objects=path == ROOT,
        )

    def _property(
        self, call: Incoming, peer: Peer, published: Published, arguments: list[Any]
    ) -> None:
        name = arguments[0]
        interfaces = [own for own in published.interfaces if name in ("", own.name)]
        if not interfaces and name not in _STANDARD_NAMES:
            raise BusError(UNKNOWN_INTERFACE, f"{published.path} has no interface {name}")
        if call.member == "GetAll":
            self._reply(call, peer, "a{sv}", _all_properties(interfaces, published.target))
            return
        prop = next(
            (own.properties[arguments[1]] for own in interfaces if arguments[1] in own.properties),
            None,
        )
        if prop is None:
            raise BusError(UNKNOWN_PROPERTY, f"{published.path} has no property {arguments[1]}")
        if call.member == "Set":
            raise BusError(PROPERTY_READ_ONLY, f"{prop.name} is read-only; use a method")
        value = Variant(prop.signature, prop.getter(published.target))
        self._reply(call, peer, "v", _packed("v", value))


_STANDARD_NAMES = frozenset(interface for interface, _ in _STANDARD)
_INTERFACE_OF = {member: interface for interface, member in _STANDARD}


def _own_method(call: Incoming, published: Published | None) -> CompiledMethod | None:
    """Find a method of ours; a call without an interface is legal and takes the first."""
    for interface in published.interfaces if published is not None else ():
        if call.interface in ("", interface.name):
            method = interface.methods.get(call.member)
            if method is not None:
                return method
    return None


def _arguments(call: Incoming, signature: str) -> list[Any]:
    if call.signature != signature:
        raise BusError(INVALID_ARGS, f'{call.member} takes "{signature}", not "{call.signature}"')
    return decode(signature, call.order)(call.body)


def _passed(call: Incoming, index: int) -> int:
    """Give the descriptor that an argument of type h means; it stays the call's to close."""
    if index >= call.unix_fds:
        raise BusError(INVALID_ARGS, f"the call brought no descriptor {index}")
    if index >= len(call.descriptors):
        raise BusError(
            LIMITS_EXCEEDED, f"bring {CALL_DESCRIPTORS} descriptor, or try again when there is room"
        )
    return call.descriptors[index]


def _all_properties(interfaces: list[CompiledInterface], target: object) -> bytearray:
    """Pack `a{sv}`: with an empty interface name, of all interfaces together."""
    body = bytearray()
    at = begin_array(body)
    for interface in interfaces:
        interface.pack_entries(body, interface.read(target))
    end_array(body, at)
    return body


def _packed(signature: str, *values: Any) -> bytearray:
    body = bytearray()
    encode(signature)(body, values)
    return body


def _machine_id() -> str:
    return Path("/etc/machine-id").read_text(encoding="ascii").strip()


def _unknown_object(call: Incoming) -> BusError:
    return BusError(UNKNOWN_OBJECT, f"there is no object {call.path}")

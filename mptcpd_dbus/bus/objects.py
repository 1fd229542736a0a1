"""The object tree: what is at which path, and the signals that tell of it.

Nothing here costs more with more objects, but GetManagedObjects, whose answer is kept bytes.
Signals leave at `flush`, in an order that a client can rely on: InterfacesAdded, events,
PropertiesChanged, InterfacesRemoved.  What is announced and what GetManagedObjects answers are the
same set at any moment: an object is in the answer from its InterfacesAdded to its removal.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mptcpd_dbus.bus.dispatch import Authorise, Dispatcher
from mptcpd_dbus.bus.flat import encode_flat
from mptcpd_dbus.bus.interface import Interface, Signal
from mptcpd_dbus.bus.message import (
    INTERFACE,
    LENGTH_AND_SERIAL,
    LENGTH_AT,
    MEMBER,
    PATH,
    SIGNAL,
    SIGNATURE,
    finish,
    header,
)
from mptcpd_dbus.bus.names import ROOT, SLICE_SECONDS
from mptcpd_dbus.bus.peers import Peers
from mptcpd_dbus.bus.published import CompiledInterface, Published
from mptcpd_dbus.bus.signatures import WireError, is_path
from mptcpd_dbus.bus.transport import Transport
from mptcpd_dbus.bus.wire import encode

_log = logging.getLogger(__name__)

_MANAGER = "org.freedesktop.DBus.ObjectManager"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_SLICES = 1_000  # then the rest is built at once: with enough churn there is no other end
_JOINED = 512  # entries, of some 500 bytes: a part that the stream need not join with others
_pack_removed = encode("oas")
_pack_text = encode("s")
_EMPTY_ARRAY = bytes(4)


def _begin_signal(path: str, interface: str, member: str, signature: str) -> bytes:
    fields = [(PATH, path), (INTERFACE, interface), (MEMBER, member)]
    return bytes(header(SIGNAL, [*fields, (SIGNATURE, signature)] if signature else fields))


_ADDED = _begin_signal(ROOT, _MANAGER, "InterfacesAdded", "oa{sa{sv}}")
_REMOVED = _begin_signal(ROOT, _MANAGER, "InterfacesRemoved", "oas")


async def _nothing() -> None:
    pass


class ObjectTree:
    """Objects at ROOT and below; calls to them are answered as soon as they are added.

    *prepare* hears of the path of each call, and brings what is there up to date.
    """

    def __init__(
        self,
        transport: Transport,
        peers: Peers,
        authorise: Authorise,
        prepare: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._transport = transport
        self._objects: dict[str, Published] = {}
        self._children: dict[str, dict[str, None]] = {}
        self._managed: dict[str, Published] = {}
        self._stale: dict[str, Published] = {}  # managed, but its entry must be built
        self._volatile: dict[str, Published] = {}  # managed, but its entry cannot be kept
        self._added: dict[str, Published] = {}
        self._changed: dict[str, Published] = {}
        self._events: list[bytes] = []
        self._removed: dict[str, Published] = {}
        self._replaced: list[Published] = []
        self._signals: list[bytes | bytearray] = []  # of this flush
        self._speaking = False
        self.at_end: Callable[[], None] = lambda: None
        """Ends each flush: it sends what is told to some alone, and the objects show it by then."""
        self.before_all: Callable[[], Awaitable[None]] = _nothing
        """Awaited before all objects are given: it may add what is not here yet."""
        self._dispatcher = Dispatcher(
            transport,
            peers,
            authorise,
            objects=self._objects,
            children=self._children,
            managed_objects=self._managed_objects,
            prepare=prepare,
        )

    def start(self) -> None:
        """Send signals from now on: before the name is owned nobody can have asked for them."""
        self.flush()
        self._speaking = True

    def stop(self) -> None:
        """Cancel the handlers that are at work; no signal is sent any more."""
        self._speaking = False
        self._dispatcher.stop()

    # What there is

    def add(self, path: str, target: object, interfaces: Sequence[Interface]) -> None:
        """Put *target* at *path*, callable at once and announced at the next flush."""
        if path in self._objects or not is_path(path) or not f"{path}/".startswith(f"{ROOT}/"):
            raise ValueError(f"no object can be added at {path}")
        self._objects[path] = self._added[path] = Published(path, target, interfaces)
        self._index(path)
        gone = self._removed.pop(path, None)
        if gone is not None:  # its removal must be told before the new one is announced
            self._replaced.append(gone)

    def remove(self, path: str) -> None:
        """Take the object at *path* away; it is told at the next flush, if its coming was."""
        published = self._objects.pop(path)
        self._unindex(path)
        self._added.pop(path, None)
        self._changed.pop(path, None)
        self._managed.pop(path, None)
        self._stale.pop(path, None)
        self._volatile.pop(path, None)
        if published.announced and path != ROOT:
            self._removed[path] = published

    def changed(self, path: str) -> None:
        """Have the properties at *path* compared with the published ones at the next flush."""
        published = self._objects.get(path)
        if published is not None and published.announced:
            self._changed[path] = published

    def event_signal(
        self, interface: Interface, signal: Signal, values: Callable[..., Sequence[Any]]
    ) -> Callable[..., None]:
        """Give what queues this signal of the root object, to be sent at the next flush.

        It takes what *values* makes the signal's arguments of.
        """
        head = _begin_signal(ROOT, interface.name, signal.name, signal.signature)
        begin, end = head[:LENGTH_AT], head[LENGTH_AT + LENGTH_AND_SERIAL.size :]
        pack = encode_flat(signal.signature)
        put = LENGTH_AND_SERIAL.pack
        queue, next_serial = self._events.append, self._transport.next_serial

        def tell(*about: Any) -> None:
            if not self._speaking:
                return
            try:
                body = pack(values(*about))
            except WireError:
                _log.exception("signal %s.%s cannot be sent", interface.name, signal.name)
                return
            queue(b"".join((begin, put(len(body), next_serial()), end, body)))

        return tell

    def tell_now(self, interface: Interface, signal: Signal, *values: Any) -> None:
        """Send a signal of the root object at once, and let nothing drop it."""
        if self._speaking:
            message = bytearray(_begin_signal(ROOT, interface.name, signal.name, signal.signature))
            body_at = len(message)
            encode(signal.signature)(message, values)
            self._transport.send(finish(message, body_at, self._transport.next_serial()))

    def _index(self, path: str) -> None:
        while path != "/":
            parent, _, name = path.rpartition("/")
            path = parent or "/"
            siblings = self._children.setdefault(path, {})
            if name in siblings:
                return
            siblings[name] = None

    def _unindex(self, path: str) -> None:
        while path != "/" and path not in self._objects and path not in self._children:
            parent, _, name = path.rpartition("/")
            path = parent or "/"
            siblings = self._children[path]
            del siblings[name]
            if siblings:
                return
            del self._children[path]

    # What is told

    def flush(self) -> None:
        """Send what has been queued since the last flush."""
        for published in self._replaced:
            self._tell_removed(published)
        for published in self._added.values():
            self._publish(published)
        self._signals += self._events
        for published in self._changed.values():
            self._tell_changes(published)
        for published in self._removed.values():
            self._tell_removed(published)
        self._replaced.clear()
        self._added.clear()
        self._events.clear()
        self._changed.clear()
        self._removed.clear()
        if self._signals:
            self._transport.send_signals(self._signals)
            self._signals.clear()
        self.at_end()

    def _publish(self, published: Published) -> None:
        published.refresh()
        published.announced = True
        if published.path == ROOT:  # it is the manager of the objects, not one of them
            return
        self._managed[published.path] = published
        if self._speaking:
            message = bytearray(_ADDED)
            message += published.marshal()[: published.size]
            self._send(message, len(_ADDED))
        else:
            self._stale[published.path] = published
        if published.volatile:
            self._volatile[published.path] = published

    def _tell_changes(self, published: Published) -> None:
        old = published.values
        published.refresh()
        if published.path in self._managed:
            self._stale[published.path] = published
        if not self._speaking:
            return
        for interface, before, now in zip(published.interfaces, old, published.values, strict=True):
            indices = interface.changed(before, now)
            if indices:
                self._send_changes(published.path, interface, now, indices)

    def _send_changes(
        self, path: str, interface: CompiledInterface, values: list[Any], indices: list[int]
    ) -> None:
        message = bytearray(_begin_signal(path, _PROPERTIES, "PropertiesChanged", "sa{sv}as"))
        body_at = len(message)
        _pack_text(message, (interface.name,))
        interface.pack_properties(message, values, indices)
        message += bytes(-len(message) & 3) + _EMPTY_ARRAY
        self._send(message, body_at)

    def _tell_removed(self, published: Published) -> None:
        if self._speaking:
            message = bytearray(_REMOVED)
            names = [interface.name for interface in published.interfaces]
            _pack_removed(message, (published.path, names))
            self._send(message, len(_REMOVED))

    def _send(self, message: bytearray, body_at: int) -> None:
        self._signals.append(finish(message, body_at, self._transport.next_serial()))

    # GetManagedObjects

    async def _managed_objects(self) -> list[bytes]:
        """Return the body of the answer in parts: entries that are missing are built in slices.

        The last look at what is missing and the list of all are one step, so the answer is the
        state between two signals.
        """
        await self.before_all()
        for _ in range(_SLICES):
            self._build_entries(time.monotonic() + SLICE_SECONDS)
            if not self._stale:
                break
            await asyncio.sleep(0)  # events have their turn between two slices
        self._build_entries(float("inf"))
        return self._entries()

    def _build_entries(self, until: float) -> None:
        while self._stale and time.monotonic() < until:
            self._stale.popitem()[1].marshal()

    def _entries(self) -> list[bytes]:
        for path, published in self._volatile.items():
            if path not in self._changed:  # its change must still be found at the next flush
                published.refresh()
        entries = [published.entry or published.marshal() for published in self._managed.values()]
        if entries:  # the last one is not padded
            entries[-1] = entries[-1][: next(reversed(self._managed.values())).size]
        # To look at each entry once is what costs; from here on there are few parts.
        steps = range(0, len(entries), _JOINED)
        parts = [b"".join(entries[step : step + _JOINED]) for step in steps]
        return [sum(map(len, parts)).to_bytes(8, "little"), *parts]

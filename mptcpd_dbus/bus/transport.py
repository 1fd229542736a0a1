"""One connection to a bus: calls and answers both ways, signals, names.

dbus-next's reader and writer must not face a system bus: one legal header field disconnects
them, a 31 MiB message freezes them, EAGAIN kills them.  So dbus-next finds the bus, connects and
authenticates, and everything after is ours.  Knows nothing of objects, callers or authorisation.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import importlib.metadata
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any

from dbus_next import AuthError, BusType
from dbus_next.aio import MessageBus

from mptcpd_dbus.bus import message as wire_message
from mptcpd_dbus.bus.descriptors import Descriptors
from mptcpd_dbus.bus.error_names import DISCONNECTED, FAILED, LIMITS_EXCEEDED, BusError
from mptcpd_dbus.bus.message import (
    CALL,
    DESTINATION,
    ERROR,
    ERROR_NAME,
    INTERFACE,
    LENGTH_AND_SERIAL,
    LENGTH_AT,
    MEMBER,
    NO_REPLY,
    PATH,
    REPLY_SERIAL,
    RETURN,
    SIGNATURE,
    Head,
    Incoming,
)
from mptcpd_dbus.bus.names import (
    CALL_BYTES,
    CALL_DESCRIPTORS,
    HELD_DESCRIPTORS,
    MESSAGE_BYTES,
    OTHER_BYTES,
)
from mptcpd_dbus.bus.signatures import WireError
from mptcpd_dbus.bus.stream import Stream
from mptcpd_dbus.bus.wire import encode

_log = logging.getLogger(__name__)

DBUS = "org.freedesktop.DBus"
DBUS_PATH = "/org/freedesktop/DBus"

_DBUS_NEXT = "0.2.3"
_CONNECT_SECONDS = 25
_DO_NOT_QUEUE = 4
_PRIMARY_OWNER, _ALREADY_OWNER = 1, 4
_pack_text = encode("s")


def check_dbus_next() -> None:
    """Refuse to start on a dbus-next whose private parts we have not read."""
    version = importlib.metadata.version("dbus-next")
    if version != _DBUS_NEXT or not hasattr(MessageBus, "_authenticate"):
        raise RuntimeError(
            f"dbus-next {version} is installed; install dbus-next=={_DBUS_NEXT}, the only release "
            "whose private names mptcpd-dbus knows"
        )


# What the bus answers for a name that nobody owns: it knows of nobody to start, or could not start
# them, itself or by systemd.  All else, time-outs too, says that there is somebody.
_ABSENT = {
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.systemd1.NoSuchUnit",
    "org.freedesktop.systemd1.UnitMasked",
}
_SPAWN = "org.freedesktop.DBus.Error.Spawn."


class SaidByTheBus(BusError):
    """The bus refused the call, or tells that nobody answers it."""


class NobodyThere(SaidByTheBus):
    """The bus itself says that the callee is not there and cannot be started."""


class _Connection(MessageBus):  # type: ignore[misc]  # dbus-next is untyped
    """What we use of dbus-next: it finds the bus, connects the socket and authenticates."""

    def _setup_socket(self) -> None:
        """Connect within a bound: dbus-next waits until a bus that hangs has room for one more.

        With any time limit the kernel is not asked to wait, see connect(2), EAGAIN.  And what fails
        is closed; dbus-next leaves that to the garbage collector.
        """
        usual = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_CONNECT_SECONDS)
        try:
            super()._setup_socket()
        except OSError:
            for name in ("_stream", "_sock"):
                if hasattr(self, name):  # else there was no descriptor for a socket
                    getattr(self, name).close()
            raise
        finally:
            socket.setdefaulttimeout(usual)

    async def _auth_readline(self) -> str:
        """Read a line of the handshake; dbus-next's own spins for ever when the bus hangs up."""
        line = b""
        while not line.endswith(b"\r\n"):
            byte = await self._loop.sock_recv(self._sock, 1)
            if not byte:
                raise ConnectionError("the bus closed the connection while we authenticated")
            line += byte
        return line[:-2].decode()


class Transport:
    """A connection to the bus at *address*: "system", "session" or a D-Bus address.

    Answers and signals of more than *other_bytes* are refused.  No more than *signal_budget*
    signals a second are sent, if it is not 0.
    """

    def __init__(
        self, address: str, other_bytes: int = OTHER_BYTES, signal_budget: int = 0
    ) -> None:
        check_dbus_next()
        match address:
            case "system":
                bus = _Connection(bus_type=BusType.SYSTEM, negotiate_unix_fd=True)
            case "session":
                bus = _Connection(bus_type=BusType.SESSION, negotiate_unix_fd=True)
            case _:
                bus = _Connection(bus_address=address, negotiate_unix_fd=True)
        self._bus = bus
        sock = bus._sock  # noqa: SLF001  dbus-next has no public way to it
        self._other_bytes = other_bytes
        self._descriptors = Descriptors()
        self._stream = Stream(
            sock,
            self._descriptors,
            self._receive,
            self._refuse,
            self._dropped,
            other_bytes=other_bytes,
            signal_budget=signal_budget,
        )
        self._serial = 0
        self._answers: dict[int, asyncio.Future[list[Any]]] = {}
        self._listeners: dict[tuple[str, str], list[Callable[[Incoming], None]]] = {}
        self.unique_name = ""
        self.disconnected = self._stream.closed
        self.disconnected.add_done_callback(self._on_closed)
        self.on_call: Callable[[Incoming], None] | None = None
        self.on_dropped: Callable[[], None] | None = None
        self.muted: dict[bytes, bool] = {}
        self.ignored = 0

    # Connection and names

    async def connect(self) -> None:
        """Authenticate and say Hello; calls may come in from now on.  Raises OSError."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._bus._authenticate()  # noqa: SLF001  dbus-next has no public way
            self._stream.resume_reading()
            (self.unique_name,) = await self.call(DBUS, DBUS_PATH, DBUS, "Hello")
        except (AuthError, BusError) as error:
            self.disconnect("the bus refused us")
            raise ConnectionError(f"the bus refused us: {error}") from error
        except BaseException:
            self.disconnect("connecting failed")
            raise
        finally:
            self._bus._stream.close()  # noqa: SLF001  it would never be closed otherwise

    def disconnect(self, reason: str = "closed") -> None:
        """Leave the bus after what is queued has been offered to the socket once."""
        self._stream.close(reason)

    def _on_closed(self, closed: asyncio.Future[str]) -> None:
        for answer in list(self._answers.values()):
            if not answer.done():
                answer.set_exception(BusError(DISCONNECTED, closed.result()))

    async def request_name(self, name: str) -> bool:
        """Own *name* now, or not at all: there is no waiting in a queue for it."""
        (answer,) = await self.call(DBUS, DBUS_PATH, DBUS, "RequestName", "su", name, _DO_NOT_QUEUE)
        return answer in (_PRIMARY_OWNER, _ALREADY_OWNER)

    async def name_has_owner(self, name: str) -> bool:
        """Whether somebody owns *name* now."""
        (answer,) = await self.call(DBUS, DBUS_PATH, DBUS, "NameHasOwner", "s", name)
        return bool(answer)

    async def name_owner(self, name: str) -> str:
        """Give who owns *name* now; "" if nobody does."""
        try:
            (owner,) = await self.call(DBUS, DBUS_PATH, DBUS, "GetNameOwner", "s", name)
        except NobodyThere:
            return ""
        return str(owner)

    # What we send

    def next_serial(self) -> int:
        """Return the serial of the next message: never 0, and 32 bits wide."""
        self._serial = self._serial % 0xFFFFFFFF + 1
        return self._serial

    def send(self, data: bytes | bytearray) -> None:
        """Queue a message that is no signal of ours to all."""
        self._stream.send(data)

    def send_signals(self, signals: Sequence[bytes | bytearray]) -> None:
        """Queue signals to all; they may be dropped, which `on_dropped` is told of."""
        self._stream.send_signals(signals)

    async def taken(self) -> None:
        """Wait until the bus has taken most of what is queued, or is gone."""
        await self._stream.taken()

    def _dropped(self) -> None:
        if self.on_dropped is not None:
            self.on_dropped()

    @property
    def signals_dropped(self) -> int:
        """How many signals the queue had no room for, or the budget."""
        return self._stream.signals_dropped

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        *body: Any,
        timeout: float = 25,  # noqa: ASYNC109  the caller's words; D-Bus' own default
        flags: int = 0,
    ) -> list[Any]:
        """Call a method and return the values of its answer; with NO_REPLY, nothing at once.

        Raises BusError with the name of the remote error, TimeoutError, or BusError(Disconnected).
        """
        if self.disconnected.done():
            raise BusError(DISCONNECTED, "not connected to the bus")
        fields: list[tuple[bytes, str | int]] = [
            (PATH, path),
            (DESTINATION, destination),
            (INTERFACE, interface),
            (MEMBER, member),
        ]
        if signature:
            fields.append((SIGNATURE, signature))
        data = wire_message.header(CALL, fields, flags)
        body_at = len(data)
        encode(signature)(data, body)
        if flags & NO_REPLY:
            wire_message.finish(data, body_at, self.next_serial())
            self.send(data)
            return []
        async with asyncio.timeout(timeout):
            return await self.send_call(data, body_at)

    def send_call(self, data: bytearray, body_at: int) -> asyncio.Future[list[Any]]:
        """Send a call that is ready but for its serial; give its answer to come."""
        serial = self.next_serial()
        wire_message.finish(data, body_at, serial)
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._answers[serial] = answer
        answer.add_done_callback(lambda _: self._answers.pop(serial, None))
        self.send(data)
        return answer

    def reply(self, call: Incoming, signature: str, *body: bytes | bytearray) -> None:
        """Answer *call* with a packed body, which may come in parts."""
        if call.flags & NO_REPLY:
            return
        fields: list[tuple[bytes, str | int]] = [
            (REPLY_SERIAL, call.serial),
            (DESTINATION, call.sender),
        ]
        if signature:
            fields.append((SIGNATURE, signature))
        data = wire_message.header(RETURN, fields)
        size = sum(map(len, body))
        if len(data) + size > MESSAGE_BYTES:
            self.reply_error(call, LIMITS_EXCEEDED, "the answer is too large for the bus")
            return
        LENGTH_AND_SERIAL.pack_into(data, LENGTH_AT, size, self.next_serial())
        self._stream.send(data, *body)

    def reply_error(self, call: Incoming, name: str, text: str) -> None:
        """Answer *call* with an error; the text becomes one line that any terminal can show."""
        if call.flags & NO_REPLY:
            return
        line = " ".join(text.split())[:1000]
        data = wire_message.header(
            ERROR,
            [
                (REPLY_SERIAL, call.serial),
                (DESTINATION, call.sender),
                (ERROR_NAME, name),
                (SIGNATURE, "s"),
            ],
        )
        body_at = len(data)
        _pack_text(data, ("".join(letter if letter.isprintable() else "?" for letter in line),))
        self.send(wire_message.finish(data, body_at, self.next_serial()))

    # What we receive

    def on_signal(self, interface: str, member: str, handler: Callable[[Incoming], None]) -> None:
        """Hand signals of this name to *handler*, which looks at the sender: anybody may send one.

        The match rule is the caller's to add, for only the caller knows how narrow it can be.
        """
        self._listeners.setdefault((interface, member), []).append(handler)

    def _refuse(self, head: Head, data: bytes) -> None:
        try:
            message = wire_message.parse(head, data)
        except WireError:
            return
        if head.kind == CALL:
            self.reply_error(message, LIMITS_EXCEEDED, f"a call may have {CALL_BYTES} bytes")
        else:
            self._answer(message, BusError(LIMITS_EXCEEDED, f"more than {self._other_bytes} bytes"))

    def close_descriptors(self, message: Incoming) -> None:
        """Close what *message* brought: to be called by whoever has a call and is done with it."""
        brought, message.descriptors = message.descriptors, []
        if brought:
            self._descriptors.close(brought)

    def _receive(self, head: Head, data: bytes, descriptors: list[int]) -> None:
        # Who floods a bus sends faster than a header can be read with care.  A caller who forges
        # the field in a place where it is no field reaches nothing but that his own call is lost.
        if self.muted and head.kind == CALL:
            mute = self.muted.get(wire_message.quick_sender(head, data))
            if mute or (mute is False and head.flags & NO_REPLY):
                self.ignored += 1
                self._descriptors.close(descriptors)
                return
        try:
            message = wire_message.parse(head, data)
        except WireError as error:
            _log.debug("a malformed message was ignored: %s", error)
            self._descriptors.close(descriptors)
            return
        message.descriptors = descriptors
        full = self._descriptors.held > HELD_DESCRIPTORS
        if descriptors and (full or not _may_keep(message)):
            self.close_descriptors(message)
        try:
            self._deliver(message)
        except WireError as error:
            _log.debug("a malformed message was ignored: %s", error)
        except Exception:  # noqa: BLE001  the next message must still come
            _log.exception("a message could not be handled")
            self.close_descriptors(message)

    def _deliver(self, message: Incoming) -> None:
        match message.kind:
            case wire_message.CALL:
                if self.on_call is not None and message.sender:
                    self.on_call(message)
                else:
                    self.close_descriptors(message)
            case wire_message.SIGNAL:
                for handler in self._listeners.get((message.interface, message.member), ()):
                    handler(message)
            case wire_message.RETURN:
                self._answer(message, None)
            case wire_message.ERROR:
                self._answer(message, _remote_error(message))
            case _:
                pass  # other kinds must be ignored, says the specification

    def _answer(self, message: Incoming, error: BusError | None) -> None:
        answer = self._answers.get(message.reply_serial)
        if answer is None or answer.done():
            return
        if error is not None:
            answer.set_exception(error)
            return
        try:
            answer.set_result(message.values())
        except WireError as malformed:
            answer.set_exception(BusError(FAILED, str(malformed)))


def _may_keep(message: Incoming) -> bool:
    """Whether somebody may want the descriptors of *message*, all of which have come."""
    return (
        message.kind == CALL
        and "h" in message.signature
        and len(message.descriptors) == message.unix_fds <= CALL_DESCRIPTORS
    )


def _remote_error(message: Incoming) -> BusError:
    try:
        values = message.values()
    except WireError:
        values = []
    text = values[0] if values and isinstance(values[0], str) else ""
    name = message.error_name
    if message.sender != DBUS:
        return BusError(name, text)
    absent = name in _ABSENT or name.startswith(_SPAWN)
    return (NobodyThere if absent else SaidByTheBus)(name, text)

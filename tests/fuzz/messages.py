"""Fuzz target: one D-Bus message, beside two other readers of the same bytes.

What libdbus takes, as the bus does, is taken, and says what GLib reads there.  We may take more:
what comes to us the bus has judged.
"""
# SPDX-License-Identifier: BSD-3-Clause

import ctypes
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from mptcpd_dbus.bus import message
from mptcpd_dbus.bus.decoding import decode
from mptcpd_dbus.bus.message import Head, Incoming, parse, quick_sender, read_head
from mptcpd_dbus.bus.signatures import WireError, complete_types
from mptcpd_dbus.bus.wire import Variant, encode

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ImportWarning)  # its importer is of an old kind
    sys.path.append("/usr/lib/python3/dist-packages")  # Debian's python3-gi fits its interpreter
    from gi.repository import Gio, GLib

    sys.path.pop()

LENGTH = 1024

_LIBDBUS = ctypes.CDLL("libdbus-1.so.3")
_LIBDBUS.dbus_message_demarshal.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p)
_LIBDBUS.dbus_message_demarshal.restype = ctypes.c_void_p
_LIBDBUS.dbus_message_unref.argtypes = (ctypes.c_void_p,)
_FDS = Gio.DBusCapabilityFlags.UNIX_FD_PASSING
_FIELDS = {
    1: "path",
    2: "interface",
    3: "member",
    4: "error_name",
    5: "reply_serial",
    6: "destination",
    7: "sender",
    9: "unix_fds",
}
_BODIES: dict[str, tuple[Any, ...]] = {
    "": (),
    "sqa{sv}": ("10.0.2.1", 443, {"Timeout": Variant("u", 5)}),
    "a{sv}": ({"Flags": Variant("as", ["signal"]), "Port": Variant("aq", [1, 2])},),
    "ybnqiuxtdsog": (1, True, -2, 2, -3, 3, -4, 4, 0.5, "s", "/a/b", "a{sv}"),
    "a(uv)ayaas": ([(7, Variant("(sb)", ("x", False)))], b"bytes", [[], ["a", "b"]]),
    "vv": (Variant("v", Variant("v", Variant("a{us}", {1: "one"}))), Variant("ay", b"")),
    "oa{sa{sv}}": ("/", {"a.b": {"C": Variant("t", 1 << 40)}}),
}


def seeds() -> Iterator[bytes]:
    """Give a message of each kind, with bodies of all types, of both byte orders."""
    for kind in (message.CALL, message.RETURN, message.ERROR, message.SIGNAL):
        for signature, values in _BODIES.items():
            yield _message(kind, signature, values)
    for order in (Gio.DBusMessageByteOrder.BIG_ENDIAN, Gio.DBusMessageByteOrder.LITTLE_ENDIAN):
        theirs = Gio.DBusMessage.new_method_call("a.b", "/a", "c.d", "E")
        theirs.set_byte_order(order)
        theirs.set_serial(9)
        theirs.set_body(GLib.Variant("(saynv)", ("x", b"yz", -1, GLib.Variant("(xd)", (1, 2.0)))))
        yield theirs.to_blob(Gio.DBusCapabilityFlags.NONE)


def _message(kind: int, signature: str, values: tuple[Any, ...]) -> bytes:
    fields: list[tuple[bytes, str | int]] = [
        (message.PATH, "/org/mptcpd1"),
        (message.INTERFACE, "org.mptcpd1.Manager"),
        (message.MEMBER, "CreateSubflow"),
        (message.ERROR_NAME, "org.mptcpd1.Error.Failed"),
        (message.REPLY_SERIAL, 3),
        (message.DESTINATION, "org.mptcpd1"),
        (message.SENDER, ":1.7"),
        (message.SIGNATURE, signature),
    ]
    data = message.header(kind, fields)
    body_at = len(data)
    encode(signature)(data, values)
    return bytes(message.finish(data, body_at, 5))


def check(data: bytes) -> None:
    """Read *data* three times."""
    data = data.ljust(message.HEAD_BYTES, b"\0")  # the stream waits for so many
    try:
        head = read_head(data, 0)
        if len(data) != head.total:
            return  # the stream would wait for more, or cut here
        _read_as_ours(head, data)
        incoming = parse(head, data)
        values = incoming.values()
    except WireError as error:
        _justify(error, data)
        return
    if _valid(data):
        with suppress(GLib.Error):  # it stumbles over some of what libdbus takes
            theirs = Gio.DBusMessage.new_from_blob(data, _FDS)
            _compare(incoming, values, theirs)


def _justify(error: WireError, data: bytes) -> None:
    """Fail where *error* is no ground: the bus takes it, and not for deeper variants than ours."""
    assert "no option has the type" in str(error) or not _valid(data), error


def _read_as_ours(head: Head, data: bytes) -> None:
    assert len(quick_sender(head, data)) <= len(data)
    for signature in ("sqa{sv}", "a{sv}", "as", "o"):  # of our methods
        with suppress(WireError):
            values = decode(signature, head.order)(data[head.body_at :])
            assert len(values) == len(complete_types(signature))


def _valid(data: bytes) -> bool:
    valid = _LIBDBUS.dbus_message_demarshal(data, len(data), None)
    if valid:
        _LIBDBUS.dbus_message_unref(valid)
    return bool(valid)


def _compare(ours: Incoming, values: list[Any], theirs: Any) -> None:
    assert ours.serial == theirs.get_serial()
    assert ours.kind == int(theirs.get_message_type())
    assert ours.signature == theirs.get_signature()
    for code, name in _FIELDS.items():
        field = theirs.get_header(code)
        assert getattr(ours, name) == (field.unpack() if field else type(getattr(ours, name))())
    body = theirs.get_body()
    assert repr(values) == repr(_children(body) if body else [])


def _value(body: Any) -> Any:
    """Give what GLib read as we give it."""
    kind = body.get_type_string()
    if kind == "ay":
        return bytes(body.get_data_as_bytes().get_data() or b"")
    if kind == "v":
        return _value(body.get_variant())
    if kind.startswith("a{"):
        return dict(_children(body.get_child_value(n)) for n in range(body.n_children()))
    if kind[0] in "a(":
        return _children(body) if kind[0] == "a" else tuple(_children(body))
    if kind == "h":
        return body.get_handle() % (1 << 32)  # GLib has it signed, the specification does not
    return body.unpack()


def _children(body: Any) -> list[Any]:
    return [_value(body.get_child_value(number)) for number in range(body.n_children())]

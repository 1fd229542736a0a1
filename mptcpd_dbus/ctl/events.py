"""The daemon's signals as objects for programs and as lines for people.

The names of the arguments are those of the contract (dbus/org.mptcpd1.Manager.xml), which a test
compares.
"""
# SPDX-License-Identifier: BSD-3-Clause

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.ctl.things import plain
from mptcpd_dbus.ctl.view import Line, View, cell, end

_FOUR_TUPLE = ("local_address", "local_port", "remote_address", "remote_port")
_CONNECTION = ("connection", "token", *_FOUR_TUPLE, "server_side", "deny_join_id0")
_SUBFLOW = (
    *("connection", "subflow", "token", *_FOUR_TUPLE, "local_id", "remote_id"),
    *("backup", "interface_index", "interface"),
)
_INTERFACE = ("path", "index", "name", "kind", "up", "running")

SIGNALS: dict[str, tuple[str, ...]] = {
    "NewConnection": _CONNECTION,
    "ConnectionEstablished": _CONNECTION,
    "ConnectionClosed": ("connection", "token"),
    "NewAddress": ("connection", "path", "token", "remote_id", "address", "port"),
    "AddressRemoved": ("connection", "path", "token", "remote_id"),
    "NewSubflow": _SUBFLOW,
    "SubflowClosed": (*_SUBFLOW, "error", "reset_reason"),
    "SubflowPriority": _SUBFLOW,
    "ListenerCreated": ("address", "port"),
    "ListenerClosed": ("address", "port"),
    "NewInterface": _INTERFACE,
    "UpdateInterface": _INTERFACE,
    "DeleteInterface": ("path", "index", "name"),
    "NewLocalAddress": ("interface", "index", "name", "address", "prefix_length"),
    "DeleteLocalAddress": ("interface", "index", "name", "address"),
    "EventsLost": ("source",),
    "SignalsDropped": ("count",),
}

DAEMON_RUNNING = "DaemonRunning"
"""The first line: from here on every event is told."""
DAEMON_STOPPED, DAEMON_STARTED = "DaemonStopped", "DaemonStarted"

_WIDTH = max(map(len, SIGNALS))
_NOT_TOLD = {"connection", "subflow", "path", "interface_index", "index", *_FOUR_TUPLE}


def event_view(when: datetime, name: str, body: Sequence[Any]) -> View:
    """Give an event; a later daemon may say more of it than we know."""
    fields = {
        field: plain(field, value)
        for field, value in zip(SIGNALS.get(name, ()), body, strict=False)
    }
    data = {"time": when.isoformat(timespec="microseconds"), "event": name, **fields}
    line = f"{when:%H:%M:%S.%f}"[:-3] + f" {name:{_WIDTH}} {' '.join(_words(fields))}"
    return View(data, [Line(line.rstrip())])


def _words(fields: Mapping[str, Any]) -> list[str]:
    """Tell what people look at: token, 4-tuple, then the rest as NAME=VALUE."""
    words = []
    left = {name: value for name, value in fields.items() if name not in _NOT_TOLD}
    if "token" in left:
        words.append(left.pop("token"))
    if "local_address" in fields:
        words.append(str(FourTuple(*(fields[name] for name in _FOUR_TUPLE))))
    elif "port" in left:
        words.append(end(left.pop("address"), left.pop("port")))
    if "error" in left:
        left["error"] = os.strerror(left["error"]) if left["error"] else ""
    if left.get("reset_reason") == -1:
        del left["reset_reason"]
    for name, value in left.items():
        if value is True:
            words.append(name)
        elif value is not False and value != "":
            words.append(f"{name}={cell(value)}")
    return words

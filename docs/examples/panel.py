#!/usr/bin/python3
"""Says in one line which interfaces carry how many connections, as a desktop's panel would.

    /usr/bin/python3 panel.py

GLib keeps the picture: its ObjectManager client subscribes before it asks, follows the signals, and
begins anew when mptcpd-dbus is back.  Needs PyGObject (python3-gi in Debian); other languages have
the same class, in JavaScript it is Gio.DBusObjectManagerClient, too.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections import Counter
from typing import Any

from gi.repository import Gio, GLib

NAME, ROOT = "org.mptcpd1", "/org/mptcpd1"
PAUSE = 100  # milliseconds in which changes come together


class Panel:
    """A line that follows the objects."""

    def __init__(self, bus: Gio.DBusConnection) -> None:
        self.bus, self.line, self.due = bus, "", 0
        self.manager: Any = None
        # The one thing that GLib cannot know: signals that never left the daemon.
        dropped = (f"{NAME}.Manager", "SignalsDropped", ROOT, None, Gio.DBusSignalFlags.NONE)
        bus.signal_subscribe(NAME, *dropped, lambda *_: self.follow())
        self.follow()

    def follow(self) -> Any:
        """Read all objects and follow them; who only looks does not start a service."""
        flags = Gio.DBusObjectManagerClientFlags.DO_NOT_AUTO_START
        about = (self.bus, flags, NAME, ROOT, None, None, None)
        Gio.DBusObjectManagerClient.new(*about, self.ready)
        return GLib.SOURCE_REMOVE

    def ready(self, _: Any, result: Gio.AsyncResult) -> None:
        """Take what was read."""
        try:
            self.manager = Gio.DBusObjectManagerClient.new_finish(result)
        except GLib.Error as error:
            print(f"asking again in a second: {error.message}", flush=True)
            GLib.timeout_add_seconds(1, self.follow)
            return
        for signal in (
            "notify::name-owner",
            "object-added",
            "object-removed",
            "interface-proxy-properties-changed",
        ):
            self.manager.connect(signal, self.changed)
        self.update()

    def changed(self, *_: Any) -> None:
        """Look soon: a burst of changes is worth one look."""
        self.due = self.due or GLib.timeout_add(PAUSE, self.update)

    def update(self) -> Any:
        """Say what is new."""
        self.due = 0
        line = self.describe()
        if line != self.line:
            self.line = line
            print(line, flush=True)
        return GLib.SOURCE_REMOVE

    def describe(self) -> str:
        """Put the picture into a line."""
        if self.manager.get_name_owner() is None:
            return "mptcpd-dbus is not running (systemctl start mptcpd-dbus)"
        objects = self.manager.get_objects()
        connections = sum(it.get_interface(f"{NAME}.Connection") is not None for it in objects)
        subflows = [it.get_interface(f"{NAME}.Subflow") for it in objects]
        over = Counter(
            subflow.get_cached_property("Interface").unpack() for subflow in subflows if subflow
        )
        return ", ".join(
            [
                f"{connections} connections",
                *(f"{n} over {name}" for name, n in sorted(over.items())),
            ]
        )


if __name__ == "__main__":
    panel = Panel(Gio.bus_get_sync(Gio.BusType.SYSTEM))
    GLib.MainLoop().run()

"""A desktop's client: GLib's ObjectManager client at the root, which follows all objects.

A line of JSON on standard output tells of each object added and removed and of each property
changed; for each line on standard input one more tells its whole view.  It knows the D-Bus
standard and the name, and nothing of ours.  See the documentation of GDBusObjectManagerClient.
"""
# SPDX-License-Identifier: BSD-3-Clause

import json
import sys
from typing import Any

from gi.repository import Gio, GLib

NAME, ROOT = "org.mptcpd1", "/org/mptcpd1"


def tell(what: str, *about: Any) -> None:
    """Write a line to the test."""
    sys.stdout.write(json.dumps([what, *about]) + "\n")
    sys.stdout.flush()


def view(manager: Any) -> dict[str, dict[str, dict[str, Any]]]:
    """Give what the client believes: path, interface, property."""
    return {
        item.get_object_path(): {
            proxy.get_interface_name(): {
                name: proxy.get_cached_property(name).unpack()
                for name in proxy.get_cached_property_names() or ()
            }
            for proxy in item.get_interfaces()
        }
        for item in manager.get_objects()
    }


def main() -> None:
    """Follow the objects until standard input ends."""
    manager = Gio.DBusObjectManagerClient.new_for_bus_sync(
        Gio.BusType.SYSTEM, Gio.DBusObjectManagerClientFlags.NONE, NAME, ROOT, None, None, None
    )
    manager.connect("object-added", lambda _, item: tell("added", item.get_object_path()))
    manager.connect("object-removed", lambda _, item: tell("removed", item.get_object_path()))
    manager.connect(
        "interface-proxy-properties-changed",
        lambda _, item, proxy, changed, __: tell(
            "changed", item.get_object_path(), proxy.get_interface_name(), changed.unpack()
        ),
    )
    loop = GLib.MainLoop()

    def asked(*_: Any) -> bool:
        if sys.stdin.readline():
            tell("view", view(manager))
            return True
        loop.quit()
        return False

    GLib.io_add_watch(0, GLib.PRIORITY_DEFAULT, GLib.IO_IN | GLib.IO_HUP, asked)
    tell("ready")
    loop.run()


if __name__ == "__main__":
    main()

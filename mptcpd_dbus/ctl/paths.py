"""The commands subflow and address: what the userspace path manager's connections can be told."""
# SPDX-License-Identifier: BSD-3-Clause

from typing import Any

from mptcpd_dbus.bus.names import ADDRESS, CONNECTION, SUBFLOW
from mptcpd_dbus.ctl import find, things
from mptcpd_dbus.ctl.daemon import Daemon
from mptcpd_dbus.ctl.output import Output
from mptcpd_dbus.ctl.view import DONE, Line, View

_JOIN = {
    "local": ("LocalAddress", "s"),
    "local-port": ("LocalPort", "q"),
    "dev": ("Interface", "s"),
    "backup": ("Backup", "b"),
    "timeout": ("Timeout", "u"),
}
_ANNOUNCE = {"port": ("Port", "q"), "id": ("Id", "y")}


async def add(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Join, and tell what came of it."""
    connection = await find.connection(daemon, given["CONNECTION"])
    target = given.get("REMOTE", ""), given.get("PORT", 0)
    wishes = things.options(given, _JOIN)
    (path,) = await daemon.command(
        connection, CONNECTION, "CreateSubflow", "sqa{sv}", *target, wishes
    )
    it = things.thing(path, await daemon.properties(path, SUBFLOW))
    words = f"subflow {things.number(path)}: {find.four_tuple(it)} dev {it['interface'] or '-'}"
    out.show(View({"subflow": it}, [Line(words)]))


async def delete(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Close it."""
    path = await find.subflow(daemon, given["SUBFLOW"])
    wishes = things.options(given, {"announce": ("Announce", "b")})
    await daemon.command(path, SUBFLOW, "Destroy", "a{sv}", wishes)
    out.show(DONE)


async def backup(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Make it a backup, or no longer one."""
    path = await find.subflow(daemon, given["SUBFLOW"])
    await daemon.command(path, SUBFLOW, "SetBackup", "ba{sv}", given["on|off"], {})
    out.show(DONE)


async def announce(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Announce it, and tell its ID."""
    connection = await find.connection(daemon, given["CONNECTION"])
    wishes = things.options(given, _ANNOUNCE)
    (path,) = await daemon.command(
        connection, CONNECTION, "AnnounceAddress", "sa{sv}", given["ADDRESS"], wishes
    )
    it = things.thing(path, await daemon.properties(path, ADDRESS))
    out.show(View({"address": it}, [Line(f"{it['address']} id {it['id']}")]))


async def remove(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Withdraw it."""
    connection = await find.connection(daemon, given["CONNECTION"])
    await daemon.command(connection, CONNECTION, "RemoveAddress", "ya{sv}", given["ID"], {})
    out.show(DONE)

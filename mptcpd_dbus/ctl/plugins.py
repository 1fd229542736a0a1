"""The commands plugin list, show, enable, disable and reload."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Sequence
from typing import Any

from mptcpd_dbus.bus.names import PLUGIN, ROOT
from mptcpd_dbus.ctl import things
from mptcpd_dbus.ctl.daemon import Daemon
from mptcpd_dbus.ctl.find import plugin_path
from mptcpd_dbus.ctl.output import Output
from mptcpd_dbus.ctl.things import Thing
from mptcpd_dbus.ctl.view import DONE, Column, Pairs, Table, View, cell

_COLUMNS = (
    Column("NAME"),
    Column("STATE"),
    Column("CONNECTIONS", 2),
    Column("PRIORITY", 4),
    Column("STEERS", 3),
    Column("ERRORS", 5),
    Column("PROBLEM", 1, least=40),
)


async def list_plugins(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """List them in their order."""
    del given
    found = await all_of(daemon)
    out.show(View({"plugins": found}, [table(found)]))


async def all_of(daemon: Daemon) -> list[Thing]:
    """Read them, in the order in which they are asked."""
    return things.in_order(await daemon.below(f"{ROOT}/plugin", PLUGIN), "priority", "name")


def table(found: Sequence[Thing]) -> Table:
    """Give a row for each plugin."""
    rows = [
        (
            it["name"],
            it["state"],
            str(it["connections"]),
            str(it["priority"]),
            it["steers"],
            str(it["errors"]),
            cell(it["problem"]),
        )
        for it in found
    ]
    return Table(_COLUMNS, rows, "No plugins.")


async def show(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Show all of one."""
    path = plugin_path(given["NAME"])
    it = things.thing(path, await daemon.properties(path, PLUGIN))
    pairs = [(key.replace("_", " ").capitalize(), cell(value)) for key, value in it.items()]
    out.show(View(it, [Pairs(pairs)]))


async def enable(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Let it run."""
    await _tell(daemon, given, "Enable", out)


async def disable(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Stop it."""
    await _tell(daemon, given, "Disable", out)


async def reload(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Load its file again."""
    await _tell(daemon, given, "Reload", out)


async def _tell(daemon: Daemon, given: dict[str, Any], member: str, out: Output) -> None:
    await daemon.command(plugin_path(given["NAME"]), PLUGIN, member, "a{sv}", {})
    out.show(DONE)

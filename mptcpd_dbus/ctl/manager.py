"""The commands limits, path-manager and reload: what holds for the whole host."""
# SPDX-License-Identifier: BSD-3-Clause

from typing import Any

from mptcpd_dbus.bus.names import MANAGER, ROOT
from mptcpd_dbus.ctl import things
from mptcpd_dbus.ctl.daemon import Daemon
from mptcpd_dbus.ctl.failure import Misuse
from mptcpd_dbus.ctl.output import Output
from mptcpd_dbus.ctl.view import DONE, Line, View

_LIMITS = {"subflows": ("Subflows", "u"), "add_addr_accepted": ("AddAddrAccepted", "u")}


async def show_limits(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Show them as ip(8) does."""
    del given
    found = limits(await daemon.properties(ROOT, MANAGER))
    out.show(View(found, [Line(limits_words(found))]))


def limits(manager: things.Thing) -> dict[str, int]:
    """Pick the limits from the manager's properties."""
    return {
        "add_addr_accepted": manager["AddAddrAcceptedLimit"],
        "subflows": manager["SubflowLimit"],
    }


def limits_words(found: dict[str, int]) -> str:
    """Spell limits as ip(8) does."""
    return " ".join(f"{word} {value}" for word, value in found.items())


async def set_limits(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Set what is given."""
    wishes = things.options(given, _LIMITS)
    if not wishes:
        raise Misuse("limits set: give subflows N, add_addr_accepted N, or both")
    await daemon.command(ROOT, MANAGER, "SetLimits", "a{sv}", wishes)
    out.show(DONE)


async def path_manager(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Choose it, or show which one is chosen."""
    if wanted := given.get("kernel|userspace"):
        await daemon.command(ROOT, MANAGER, "SetPathManager", "sa{sv}", wanted, {})
        out.show(DONE)
        return
    found = await daemon.properties(ROOT, MANAGER)
    data = {
        "path_manager": found["PathManager"],
        "available_path_managers": found["AvailablePathManagers"],
    }
    out.show(View(data, [Line(found["PathManager"])]))


async def reload(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Have the daemon read its files again."""
    del given
    await daemon.command(ROOT, MANAGER, "Reload", "a{sv}", {})
    out.show(DONE)

"""The command status: how the daemon and Multipath TCP on this host are doing."""
# SPDX-License-Identifier: BSD-3-Clause

from collections import Counter
from typing import Any

from mptcpd_dbus.bus.names import MANAGER, ROOT
from mptcpd_dbus.ctl import endpoints, manager, plugins, things
from mptcpd_dbus.ctl.daemon import Daemon
from mptcpd_dbus.ctl.facts import facts
from mptcpd_dbus.ctl.output import Output
from mptcpd_dbus.ctl.things import Thing
from mptcpd_dbus.ctl.view import Block, Line, Pairs, View, cell


async def status(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Show it; with --debug what a bug report needs, too."""
    properties = await daemon.properties(ROOT, MANAGER)
    data = things.thing(ROOT, properties)
    del data["subflow_limit"], data["add_addr_accepted_limit"]
    data["limits"] = manager.limits(properties)
    data["endpoints"] = await endpoints.all_of(daemon)
    data["plugins"] = await plugins.all_of(daemon)
    blocks = _blocks(data)
    if "debug" in given:
        counters = await daemon.read(ROOT, MANAGER, "GetStatistics")
        data["debug"] = {"statistics": counters, **facts()}
        blocks += _debug_blocks(data)
    out.show(View(data, blocks))


def _blocks(data: Thing) -> list[Block]:
    others = [name for name in data["available_path_managers"] if name != data["path_manager"]]
    pairs = [
        ("mptcpd-dbus", data["version"]),
        ("MPTCP", "on" if data["enabled"] else "off: sysctl net.mptcp.enabled=1"),
        ("Path manager", f"{data['path_manager']} (others: {cell(others)})"),
        ("Steered by", steered_by(data)),
        ("Scheduler", cell(data["scheduler"])),
        ("Limits", manager.limits_words(data["limits"])),
        ("Connections", str(data["connection_count"])),
        ("Endpoints", str(len(data["endpoints"]))),
        ("Events lost", str(data["events_lost"])),
        ("Signals dropped", str(data["signals_dropped"])),
    ]
    return [Pairs(pairs), Line(""), plugins.table(data["plugins"])]


def steered_by(data: Thing) -> str:
    """Say who steers new connections, and how that is changed."""
    plugins = [
        it["name"]
        for it in data["plugins"]
        if it["state"] == "running" and it["steers"] in (data["path_manager"], "both")
    ]
    match data["path_manager"]:
        case "kernel":
            origins = Counter(endpoint["origin"] for endpoint in data["endpoints"])
            whose = ", ".join(f"{count} of {name}" for name, count in sorted(origins.items()))
            return (
                f"the kernel, by its endpoints ({whose or 'none'});"
                " by plugins after `mptcpctl path-manager userspace`"
            )
        case "userspace":
            return (
                f"{', '.join(plugins) or 'nobody: no plugin for it is running'};"
                " by the kernel after `mptcpctl path-manager kernel`"
            )
        case other:
            return f"the kernel's {other}"


def _debug_blocks(data: Thing) -> list[Block]:
    debug = data["debug"]
    blocks = [
        *_titled("Features", Line(cell(data["features"]))),
        *_titled("Endpoints", endpoints.table(data["endpoints"])),
    ]
    for name in ("system", "packages", "sysctls", "statistics", "counters"):
        pairs = [(key, cell(value)) for key, value in debug[name].items()]
        blocks += _titled(name.capitalize(), Pairs(pairs))
    return [*blocks, *_titled("Sockets", *map(Line, debug["sockets"]))]


def _titled(title: str, *blocks: Block) -> list[Block]:
    return [Line(""), Line(title, heading=True), *blocks]

"""The commands list, show and owner."""
# SPDX-License-Identifier: BSD-3-Clause

import pwd
from functools import cache
from typing import Any

from mptcpd_dbus.bus.names import ADDRESS, CONNECTION, SUBFLOW
from mptcpd_dbus.ctl import find, things
from mptcpd_dbus.ctl.daemon import Daemon
from mptcpd_dbus.ctl.output import Output
from mptcpd_dbus.ctl.things import Thing
from mptcpd_dbus.ctl.view import DONE, Block, Column, Line, Pairs, Table, View, cell, end

_LIST = (
    Column("TOKEN"),
    Column("LOCAL", 2),
    Column("REMOTE"),
    Column("STATE", 1),
    Column("SUBFLOWS", 5),
    Column("DEV", 3, least=12),
    Column("PM", 6),
    Column("OWNER", 4, least=10),
    Column("USER", 7, least=4),
)
_SUBFLOWS = (
    Column("SUBFLOW"),
    Column("LOCAL"),
    Column("REMOTE"),
    Column("DEV", 1, least=6),
    Column("IDS", 5),
    Column("BACKUP", 2),
    Column("RTT", 3),
    Column("SENT", 4),
    Column("RECEIVED", 4),
    Column("RETRANS", 6),
)
_ADDRESSES = (Column("ANNOUNCED"), Column("ID"), Column("BY", 1), Column("PORT", 2))


async def list_connections(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """List them; all objects are read at once, so what is shown is one state."""
    wanted = {key: given.get(key) for key in ("interface", "uid", "address", "port", "policy")}
    found = things.matching(things.connections(await daemon.objects()), **wanted)
    rows = [
        (
            it["token"],
            *ends(it),
            state(it),
            str(len(it["subflows"])),
            cell(sorted({subflow["interface"] or "?" for subflow in it["subflows"]})),
            cell(it["path_manager"]),
            cell(it["owner"]),
            user(it["uid"]),
        )
        for it in found
    ]
    out.show(View({"connections": found}, [Table(_LIST, rows, "No connections.")]))


def ends(it: Thing) -> tuple[str, str]:
    """Spell both ends of a connection or subflow."""
    four = find.four_tuple(it)
    return end(*four[:2]), end(*four[2:])


def state(it: Thing) -> str:
    """Spell how far a connection has come, or that it is none any more."""
    return "fallback" if it["fallback"] else str(it["state"])


@cache
def user(uid: int | None) -> str:
    """Give the user's name, or number where there is no name."""
    try:
        return cell(None) if uid is None else pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


async def show_connection(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Show one; only what belongs to it is read."""
    path = await find.connection(daemon, given["CONNECTION"])
    connection = things.thing(path, await daemon.properties(path, CONNECTION))
    connection["statistics"] = await daemon.read(path, CONNECTION, "GetStatistics")
    connection["subflows"] = things.in_order(await daemon.below(path, SUBFLOW))
    for subflow in connection["subflows"]:
        subflow["statistics"] = await daemon.read(subflow["path"], SUBFLOW, "GetStatistics")
    connection["addresses"] = things.in_order(await daemon.below(path, ADDRESS))
    out.show(View(connection, _blocks(connection)))


def _blocks(it: Thing) -> list[Block]:
    local, remote = ends(it)
    counters = it["statistics"]
    pairs = [
        ("Connection", it["token"]),
        ("Path", it["path"]),
        ("Local", local),
        ("Remote", remote),
        ("Side", "server" if it["server_side"] else "client"),
        ("State", state(it)),
        ("Path manager", cell(it["path_manager"])),
        ("Owner", cell(it["owner"])),
        ("User", user(it["uid"])),
        ("Deny join ID 0", cell(it["deny_join_id0"])),
        ("Sent", size(counters.get("bytes_sent"))),
        ("Received", size(counters.get("bytes_received"))),
        ("Sent again", size(counters.get("bytes_retrans"))),
    ]
    return [
        Pairs(pairs),
        Line(""),
        Table(_SUBFLOWS, [_subflow_row(subflow) for subflow in it["subflows"]], "No subflows."),
        Line(""),
        Table(_ADDRESSES, [_address_row(its) for its in it["addresses"]], "No other addresses."),
    ]


def _subflow_row(it: Thing) -> tuple[str, ...]:
    counters = it["statistics"]
    return (
        str(things.number(it["path"])),
        *ends(it),
        cell(it["interface"]),
        f"{it['local_id']}-{it['remote_id']}",
        backup(it),
        milliseconds(counters.get("rtt")),
        size(counters.get("bytes_sent")),
        size(counters.get("bytes_received")),
        cell(counters.get("total_retrans")),
    )


def backup(it: Thing) -> str:
    """Spell who has asked for a subflow to be a backup."""
    return {(False, False): "no", (True, False): "here", (False, True): "peer"}.get(
        (it["backup_requested"], it["backup"]), "both"
    )


def milliseconds(count: int | None) -> str:
    """Spell microseconds in three digits or so."""
    return f"{count / 1000:.{2 if count < 10_000 else 1}f}ms" if count else cell(None)


def _address_row(it: Thing) -> tuple[str, ...]:
    return (it["address"], str(it["id"]), "peer" if it["remote"] else "us", cell(it["port"] or ""))


def size(count: int | None) -> str:
    """Spell a number of bytes in three digits or so."""
    if count is None:
        return cell(None)
    value, spelt = float(count), f"{count}B"
    for unit in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value /= 1000
        spelt = f"{value:.1f}{unit}"
    return spelt


async def set_owner(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Let another plugin decide."""
    path = await find.connection(daemon, given["CONNECTION"])
    await daemon.command(path, CONNECTION, "SetOwner", "sa{sv}", given["NAME"], {})
    out.show(DONE)

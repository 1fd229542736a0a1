"""The commands endpoint show, add, delete, change and flush, in the grammar of ip-mptcp(8)."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Sequence
from typing import Any

from mptcpd_dbus.bus.names import ENDPOINT, MANAGER, ROOT
from mptcpd_dbus.ctl import things
from mptcpd_dbus.ctl.daemon import Daemon
from mptcpd_dbus.ctl.failure import FAILED, Failure, Misuse
from mptcpd_dbus.ctl.output import Output
from mptcpd_dbus.ctl.things import Thing
from mptcpd_dbus.ctl.view import DONE, Column, Line, Table, View, cell

_COLUMNS = (
    Column("ADDRESS"),
    Column("ID"),
    Column("FLAGS", 1),
    Column("DEV", 2, least=6),
    Column("PORT", 4),
    Column("ORIGIN", 3),
)
_FLAGS = ("signal", "subflow", "backup", "fullmesh", "laminar")
_OPTIONS = {"port": ("Port", "q"), "id": ("Id", "y"), "dev": ("Interface", "s")}


async def show(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """List them, or the one with that ID."""
    found = await all_of(daemon)
    if "id" in given:
        found = [_chosen(found, given)]
    out.show(View({"endpoints": found}, [table(found)]))


def table(found: Sequence[Thing]) -> Table:
    """Give a row for each endpoint."""
    rows = [
        (
            it["address"],
            str(it["id"]),
            cell(it["flags"]),
            cell(it["interface"]),
            cell(it["port"] or ""),
            it["origin"],
        )
        for it in found
    ]
    return Table(_COLUMNS, rows, "No endpoints.")


async def add(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Add it, and tell the ID that the kernel chose."""
    flags = [flag for flag in _FLAGS if flag in given]
    wishes = things.options(given, _OPTIONS)
    (path,) = await daemon.command(
        ROOT, MANAGER, "AddEndpoint", "sasa{sv}", given["ADDRESS"], flags, wishes
    )
    endpoint = things.thing(path, await daemon.properties(path, ENDPOINT))
    out.show(View({"endpoint": endpoint}, [Line(f"{endpoint['address']} id {endpoint['id']}")]))


async def delete(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Delete it."""
    endpoint = _chosen(await all_of(daemon), given)
    await daemon.command(endpoint["path"], ENDPOINT, "Remove", "a{sv}", _forced(given))
    out.show(DONE)


async def change(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Set and clear flags; the others stay."""
    endpoint = _chosen(await all_of(daemon), given)
    flags = changed(endpoint["flags"], given)
    await daemon.command(endpoint["path"], ENDPOINT, "SetFlags", "asa{sv}", flags, _forced(given))
    out.show(DONE)


def changed(flags: Sequence[str], given: dict[str, Any]) -> list[str]:
    """Give the flags as *given* wants them."""
    on = {word for word in ("backup", "fullmesh") if word in given}
    off = {word for word in ("backup", "fullmesh") if f"no{word}" in given}
    if on & off or not on | off:
        raise Misuse("endpoint change: give backup or nobackup, fullmesh or nofullmesh, or both")
    return [flag for flag in flags if flag not in off] + sorted(on - set(flags))


async def flush(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Delete all, or the daemon's own."""
    options = things.options(given, {"own": ("Own", "b")}) | _forced(given)
    await daemon.command(ROOT, MANAGER, "FlushEndpoints", "a{sv}", options)
    out.show(DONE)


async def all_of(daemon: Daemon) -> list[Thing]:
    """Read them, in the order of their numbers."""
    return things.in_order(await daemon.below(f"{ROOT}/endpoint", ENDPOINT))


def _forced(given: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    return things.options(given, {"force": ("Force", "b")})


def _chosen(found: Sequence[Thing], given: dict[str, Any]) -> Thing:
    """Give the endpoint that is meant, by its ID, its address, or both."""
    wanted = {
        key: given[word] for word, key in (("id", "id"), ("ADDRESS", "address")) if word in given
    }
    if not wanted:
        raise Misuse("say which endpoint: its address, or id and its ID")
    fitting = [it for it in found if all(it[key] == value for key, value in wanted.items())]
    if len(fitting) == 1:
        return fitting[0]
    words = " ".join(f"{key} {value}" for key, value in wanted.items())
    if fitting:
        raise Failure(FAILED, f"there are {len(fitting)} endpoints with {words}: give the ID")
    raise Failure(FAILED, f"there is no endpoint with {words}; see `mptcpctl endpoint`")

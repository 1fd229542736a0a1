"""One frame of top: who is shown, in which order, and how; pure."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

from mptcpd_dbus.ctl.connections import backup, ends, milliseconds, size
from mptcpd_dbus.ctl.follow import Connection
from mptcpd_dbus.ctl.rates import Rates, total
from mptcpd_dbus.ctl.things import Thing, number, thing
from mptcpd_dbus.ctl.view import Block, Column, Line, Table, View, cell

_COLUMNS = (
    Column("SUBFLOW"),
    Column("LOCAL", 7),
    Column("REMOTE", 5, least=11),
    Column("DEV", 1, least=6),
    Column("UP"),
    Column("DOWN"),
    Column("RTT", 2),
    Column("VAR", 8),
    Column("NEW", 6),
    Column("RETRANS", 4),
    Column("BACKUP", 3),
)
AROUND = 3
"""Lines beside the rows: the head, the titles, and what is left out."""
_RATE, _TIME = 9, 7  # columns do not move with what is in them


def busiest(connections: Iterable[Connection], rows: int) -> list[Connection]:
    """Give those that so many rows have room for, the last perhaps in part."""
    found, left = [], rows
    for connection in sorted(connections, key=lambda it: (-_rate(it), number(it.path))):
        if left <= 0:
            break
        found.append(connection)
        left -= 1 + len(connection.subflows)
    return found


def _rate(connection: Connection) -> float:
    every = (it.meter.rates for it in connection.subflows.values())
    return sum((its.sent or 0) + (its.received or 0) for its in every)


def frame(when: datetime, connections: Collection[Connection], rows: int) -> View:
    """Show the busiest in so many rows, and say how many there are beside them."""
    things = [_thing(connection) for connection in busiest(connections, rows)]
    shown = [row for it in things for row in _rows(it)][:rows]
    heads = sum("/" not in row[0] for row in shown)
    subflows = sum(len(it.subflows) for it in connections)
    blocks: list[Block] = [Table(_COLUMNS, shown, "No connections.")]
    hidden = _counted(len(connections) - heads, subflows - (len(shown) - heads))
    if hidden:
        blocks.append(Line(f"and {hidden} more"))
    data = {"connections": things, "left_out": len(connections) - len(things), "running": True}
    return _view(when, _counted(len(connections), subflows) or "0 connections", data, blocks)


def absence(when: datetime) -> View:
    """Show that there is no daemon."""
    words = "mptcpd-dbus is not running: waiting until it is"
    return _view(when, words, {"connections": [], "left_out": 0, "running": False}, [])


def _view(when: datetime, words: str, data: dict[str, Any], blocks: Iterable[Block]) -> View:
    head = Line(f"{when:%H:%M:%S}  {words}", heading=True)
    return View({"time": when.isoformat(timespec="microseconds"), **data}, [head, *blocks])


def _counted(connections: int, subflows: int) -> str:
    return ", ".join(
        f"{count} {name}{'' if count == 1 else 's'}"
        for count, name in ((connections, "connection"), (subflows, "subflow"))
        if count
    )


def _thing(connection: Connection) -> Thing:
    subflows = sorted(connection.subflows.values(), key=lambda it: number(it.path))
    every = [it.meter.rates for it in subflows]
    return thing(connection.path, connection.properties) | {
        "rates": _rounded(total(every)),
        "subflows": [
            thing(it.path, it.properties) | {"rates": _rounded(it.meter.rates)} for it in subflows
        ],
    }


def _rounded(rates: Rates) -> dict[str, int | None]:
    return {
        name: None if value is None else round(value) for name, value in rates._asdict().items()
    }


def _rows(it: Thing) -> Iterable[tuple[str, ...]]:
    yield _row(it["token"], it, cell(None), cell(None))
    for its in it["subflows"]:
        yield _row(f"{it['token']}/{number(its['path'])}", its, cell(its["interface"]), backup(its))


def _row(name: str, it: Thing, interface: str, is_backup: str) -> tuple[str, ...]:
    rates = it["rates"]
    return (
        name,
        *ends(it),
        interface,
        _speed(rates["sent"]),
        _speed(rates["received"]),
        milliseconds(rates["rtt"]).ljust(_TIME),
        milliseconds(rates["rttvar"]).ljust(_TIME),
        cell(rates["new_retrans"]),
        cell(rates["total_retrans"]),
        is_backup,
    )


def _speed(rate: int | None) -> str:
    return (cell(None) if rate is None else f"{size(rate)}/s").ljust(_RATE)

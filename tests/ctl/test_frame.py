"""A frame has the busiest connections, as many as there is room for; those are asked first."""
# SPDX-License-Identifier: BSD-3-Clause

from datetime import UTC, datetime

import pytest

from mptcpd_dbus.ctl.follow import Connection, Subflow
from mptcpd_dbus.ctl.frame import absence, busiest, frame
from mptcpd_dbus.ctl.rates import Meter
from mptcpd_dbus.ctl.sample import chosen
from mptcpd_dbus.ctl.view import Line, Table

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ENDS = {
    "LocalAddress": "10.0.1.1",
    "LocalPort": 40000,
    "RemoteAddress": "10.0.9.1",
    "RemotePort": 80,
}
SUBFLOW = {"Interface": "link1", "Backup": False, "BackupRequested": False}


def _connection(number: int, *sent: int) -> Connection:
    """Give one with so many subflows, which send so many bytes in a second."""
    path = f"/org/mptcpd1/connection/{number}"
    made = Connection(path, {"Token": number, **ENDS})
    for index, count in enumerate(sent, start=1):
        meter = Meter(0.0)
        meter.read(float(number), {"bytes_sent": 0, "bytes_received": 0})
        meter.read(number + 1.0, {"bytes_sent": count, "bytes_received": 0})
        its = f"{path}/subflow/{index}"
        made.subflows[its] = Subflow(its, {**ENDS, **SUBFLOW}, meter)
    return made


CONNECTIONS = [_connection(10, 0), _connection(2, 5, 7), _connection(9, 0), _connection(4, 11)]


def _names(rows: int) -> list[str]:
    return [connection.path.rpartition("/")[2] for connection in busiest(CONNECTIONS, rows)]


def test_the_busiest_come_first_then_the_oldest() -> None:
    assert _names(99) == ["2", "4", "9", "10"]


@pytest.mark.parametrize(
    ("rows", "names"),
    [(0, []), (1, ["2"]), (3, ["2"]), (4, ["2", "4"]), (5, ["2", "4"]), (6, ["2", "4", "9"])],
)
def test_no_more_are_chosen_than_there_is_room_for(rows: int, names: list[str]) -> None:
    assert _names(rows) == names


@pytest.mark.parametrize(
    ("rows", "shown", "left_out", "words"),
    [
        (9, 9, 0, None),
        (8, 8, 0, "and 1 subflow more"),
        (5, 5, 2, "and 2 connections, 2 subflows more"),
        (4, 4, 2, "and 2 connections, 3 subflows more"),
        (1, 1, 3, "and 3 connections, 5 subflows more"),
    ],
)
def test_what_is_left_out_is_said(rows: int, shown: int, left_out: int, words: str | None) -> None:
    view = frame(NOON, CONNECTIONS, rows)

    head, table, *more = view.blocks
    assert head == Line("12:00:00  4 connections, 5 subflows", heading=True)
    assert isinstance(table, Table)
    assert len(table.rows) == shown
    assert more == ([Line(words)] if words else [])
    assert view.data["left_out"] == left_out
    assert len(view.data["connections"]) == 4 - left_out


def test_without_a_daemon_nothing_is_shown_but_that() -> None:
    view = absence(NOON)

    assert view.blocks == [
        Line("12:00:00  mptcpd-dbus is not running: waiting until it is", heading=True)
    ]
    assert view.data["running"] is False
    assert frame(NOON, [], 9).data["running"] is True


def _subflows(*numbers: int) -> list[Subflow]:
    return [its for number in numbers for its in _connection(number, 1).subflows.values()]


def test_when_there_are_few_all_are_asked() -> None:
    every = _subflows(1, 2, 3)

    assert {it.path for it in chosen(every[:1], every, 100)} == {it.path for it in every}


@pytest.mark.parametrize("shown", [0, 10, 300])
def test_no_more_are_asked_than_may_be_and_none_twice(shown: int) -> None:
    every = _subflows(*range(1, 1000))

    found = [it.path for it in chosen(every[:shown], every, 100)]

    assert len(found) == len({*found}) == 100


def test_those_that_are_shown_come_first_and_leave_some_for_the_others() -> None:
    every = _subflows(*range(1, 1000))
    shown = every[-300:]

    found = chosen(shown, every, 100)

    assert [it.path for it in found[:75]] == [it.path for it in shown[:75]]  # the longest not asked
    assert [it.path for it in found[75:]] == [it.path for it in every[:25]]
    assert chosen(shown[:5], every, 100)[:5] == shown[:5]


def test_traffic_that_one_reading_has_hinted_at_is_measured_at_once() -> None:
    every = _subflows(*range(1, 1000))
    hinted, silent = every[500:502]
    for its, idle in ((hinted, 3), (silent, 30_000)):
        its.meter = Meter(0.0)
        its.meter.read(2000.0, {"bytes_sent": 5, "last_data_sent": idle, "last_data_recv": 30_000})

    assert chosen([], every, 10)[0] == hinted
    assert silent not in chosen([], every, 10)
    hinted.meter.read(2001.0, {"bytes_sent": 9, "last_data_sent": 3, "last_data_recv": 30_000})
    assert hinted not in chosen([], every, 10)

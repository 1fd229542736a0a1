"""What waits to be an object, in played time."""
# SPDX-License-Identifier: BSD-3-Clause

from math import inf

import pytest

from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.settling import Settling
from tests.world import FIRST


def _connection(number: int) -> Connection:
    return Connection(number, number, FIRST, server_side=False, deny_join_id0=False, mapped=False)


ONE, TWO, THREE = map(_connection, (1, 2, 3))


@pytest.fixture
def young() -> Settling:
    young = Settling(0.1)
    for now, connection in enumerate((ONE, TWO, THREE)):
        young.come(connection, now / 100)
    return young


def test_each_is_due_when_it_has_lived_long_enough(young: Settling) -> None:
    assert young.due(0.09) == []
    assert young.next_due == 0.1
    assert young.due(0.115) == [ONE, TWO]
    assert young.waits(ONE.number)  # until it is said to leave
    young.leave(ONE)
    assert not young.waits(ONE.number)
    assert young.next_due == pytest.approx(0.11)
    assert young.due(inf) == [TWO, THREE]


def test_who_has_closed_is_never_due(young: Settling) -> None:
    young.hasten(1)
    young.leave(ONE)

    assert young.due(inf) == [TWO, THREE]


def test_who_is_asked_for_is_due_at_once_and_for_once(young: Settling) -> None:
    assert young.waits(3)
    young.hasten(3)
    assert young.due(0) == [THREE]
    young.leave(THREE)
    assert not young.waits(3)
    assert young.due(0) == []

    young.hasten(4)  # before it comes
    four = _connection(4)
    young.come(four, 0)
    assert young.due(0) == [four]


def test_the_oldest_are_due_when_all_are_asked_for(young: Settling) -> None:
    assert young.hasten_some(2, last=9)
    assert young.due(0) == [ONE, TWO]
    young.leave(ONE)
    assert young.hasten_some(2, last=2)
    assert young.due(0) == [TWO]
    young.leave(TWO)
    assert not young.hasten_some(2, last=2)  # who has come since then is not meant


def test_where_nobody_waits_nothing_will_be_due() -> None:
    assert Settling(0.1).next_due is None

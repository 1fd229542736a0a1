"""addr_adv on a kernel in memory: the order of its commands, and what takes long in earnest."""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import replace

import pytest

from mptcpd_dbus.core import commands, events
from mptcpd_dbus.core.types import AddressEntry
from mptcpd_dbus.policy.loader import load
from mptcpd_dbus.policy.watch import Watch
from mptcpd_dbus.testing import (
    Happening,
    Played,
    World,
    address,
    close,
    connect,
    cut,
    link,
    managed,
    no_address,
    play,
    reload,
    wait,
)
from tests.lab.sandbox import REPOSITORY

ADDR_ADV = load("addr_adv", (REPOSITORY / "plugins/addr_adv.py").read_bytes(), Watch())

WIFI, PHONE = link("wlan0", "10.0.1.1"), link("wwan0", "10.0.2.1")


async def _deleted(world: World) -> None:
    """Let somebody else delete all endpoints, and the daemon see it."""
    await world.kernel.execute(commands.FlushAddrs())
    world.engine.take(world.kernel.endpoints())


def _said(played: Played, *words: str) -> list[str]:
    assert not played.problem
    return [line for line in played.commands if line.startswith(words)]


def _addresses(played: Played) -> list[str]:
    return sorted(endpoint.address for endpoint in played.endpoints)


def test_limits_are_raised_before_they_are_needed() -> None:
    played = play(ADDR_ADV, WIFI, PHONE, link("eth0", "10.0.3.1"))

    assert _said(played, "endpoint", "limits") == [
        "limits subflows None add_addr_accepted None",  # asks
        "limits subflows None add_addr_accepted 1",
        "endpoint add 10.0.1.1 subflow dev wlan0",
        "limits subflows None add_addr_accepted None",
        "limits subflows None add_addr_accepted 2",
        "endpoint add 10.0.2.1 subflow dev wwan0",
        "limits subflows None add_addr_accepted None",
        "limits subflows 3 add_addr_accepted None",
        "limits subflows None add_addr_accepted 3",
        "endpoint add 10.0.3.1 subflow dev eth0",
    ]


def test_a_thousand_things_at_once_are_one_comparison() -> None:
    def storm(world: World) -> None:
        for number in range(1000):
            index = world.names["wlan0"]
            text = f"10.9.{number // 250}.{number % 250 + 1}"
            world.engine.take(events.NewLocalAddress(index, text, 24))

    played = play(ADDR_ADV, WIFI, storm)

    added = _said(played, "endpoint add")
    assert len(played.endpoints) == 8
    assert len(added) <= 8 + 2, "the ninth was refused, and once more after endpoints changed"


async def _deleted_untold(world: World) -> None:
    """Let somebody else delete all endpoints, and what tells of it be lost on the way."""
    await world.kernel.execute(commands.FlushAddrs())
    world.engine.state.apply(world.kernel.endpoints())


def _off_and_on(world: World) -> None:
    settings = world.kernel.settings()
    for enabled in (False, True):
        world.engine.take(replace(settings, enabled=enabled))


@pytest.mark.parametrize(
    ("happenings", "there"),
    [
        ((), []),  # the control: it has heard of nothing
        ((lambda world: world.engine.take(events.EventsLost("mptcp_pm")),), ["10.0.1.1"]),
        ((_off_and_on,), ["10.0.1.1"]),
    ],
    ids=["nothing", "events_lost", "ready"],
)
def test_it_looks_again_when_events_were_lost_and_when_mptcp_is_on_again(
    happenings: tuple[Happening, ...], there: list[str]
) -> None:
    assert _addresses(play(ADDR_ADV, WIFI, _deleted_untold, *happenings)) == there


def test_link_local_addresses_get_none() -> None:
    played = play(ADDR_ADV, link("eth0", "fe80::1", "169.254.1.1", "2001:db8::1", "10.0.3.1"))

    assert _addresses(played) == ["10.0.3.1", "2001:db8::1"]


def test_every_interface_has_its_first_address_before_any_has_its_second() -> None:
    def all_at_once(world: World) -> None:
        many = [f"10.0.1.{number}" for number in range(1, 11)]
        for happening in (link("eth0", *many), WIFI, link("wwan0", "10.0.2.1", "10.0.2.2")):
            happening(world)

    played = play(ADDR_ADV, all_at_once)

    added = [line.split()[2] for line in _said(played, "endpoint add")]
    assert added[:4] == ["10.0.1.1", "10.0.2.1", "10.0.1.2", "10.0.2.2"]


def test_an_address_that_two_interfaces_have_stays_with_the_first_and_moves_when_it_loses_it() -> (
    None
):
    both = (link("eth0", "10.0.3.1"), link("eth1"), address("eth1", "10.0.3.1"))
    assert [e.interface_index for e in play(ADDR_ADV, *both).endpoints] == [2]

    moved = play(ADDR_ADV, *both, no_address("eth0", "10.0.3.1"))

    assert _said(moved, "endpoint") == [
        "endpoint add 10.0.3.1 subflow dev eth0",
        "endpoint delete id 1",
        "endpoint add 10.0.3.1 subflow dev eth1",
    ]


def test_an_address_stays_through_an_outage_while_a_connection_has_no_other_path() -> None:
    held = play(ADDR_ADV, WIFI, PHONE, connect("10.0.1.1"), cut("wlan0"), wait(60))
    freed = play(ADDR_ADV, WIFI, PHONE, connect("10.0.1.1"), cut("wlan0"), close(), wait(60))
    other = play(ADDR_ADV, WIFI, PHONE, connect("10.0.2.1"), cut("wlan0"))

    assert _addresses(held) == ["10.0.1.1", "10.0.2.1"]
    assert _addresses(freed) == _addresses(other) == ["10.0.2.1"]


@pytest.mark.parametrize(("pause", "left"), [(1, []), (29, []), (31, ["10.0.1.1"])])
def test_three_deletions_within_a_minute_are_a_fight_and_over_a_longer_time_are_none(
    pause: float, left: list[str]
) -> None:
    played = play(ADDR_ADV, WIFI, _deleted, wait(pause), _deleted, wait(pause), _deleted)

    assert _addresses(played) == left


@pytest.mark.parametrize(
    "happenings",
    [
        (reload(),),
        (no_address("wlan0", "10.0.1.1"), address("wlan0", "10.0.1.1")),
    ],
    ids=["reload", "address"],
)
def test_a_fight_is_over_when_the_configuration_or_the_address_comes_anew(
    happenings: tuple[Happening, ...],
) -> None:
    fight = (_deleted, _deleted, _deleted)

    assert _addresses(play(ADDR_ADV, WIFI, *fight, *happenings)) == ["10.0.1.1"]
    assert _addresses(play(ADDR_ADV, WIFI, *fight, *happenings, *fight)) == []


def test_somebody_who_was_quicker_keeps_the_address() -> None:
    """The daemon has not seen that endpoint yet."""

    async def other(world: World) -> None:
        await world.kernel.execute(commands.AddAddr(AddressEntry("10.0.1.1", flags=1)))
        WIFI(world)
        PHONE(world)

    played = play(ADDR_ADV, other)

    assert [(e.address, e.flags, e.ours) for e in played.endpoints] == [
        ("10.0.1.1", ("signal",), False),
        ("10.0.2.1", ("subflow",), True),
    ]


async def _set_by_networkmanager(world: World) -> None:
    """Let NetworkManager have an endpoint for wlan0, of which the kernel tells nobody."""
    index = world.names["wlan0"]
    await world.kernel.execute(commands.AddAddr(AddressEntry("10.0.1.1", interface_index=index)))
    managed("wlan0")(world)


@pytest.mark.parametrize(
    ("setting", "there"), [("leave", ["10.0.2.1"]), ("use", ["10.0.1.1", "10.0.2.1"])]
)
@pytest.mark.parametrize("late", [False, True])
def test_interfaces_that_networkmanager_manages_are_left_to_it_if_one_says_so(
    setting: str, there: list[str], *, late: bool
) -> None:
    """Also those that it begins to manage when they have an endpoint already."""
    happens = (WIFI, PHONE, managed("wlan0")) if late else (managed("wlan0"), WIFI, PHONE)

    played = play(ADDR_ADV, *happens, settings={"managed": setting})

    assert _addresses(played) == there
    added = _said(played, "endpoint add 10.0.1.1")
    assert bool(added) == (late or setting == "use")


@pytest.mark.parametrize("again", [(), (reload(),)], ids=["once", "reload"])
def test_endpoints_of_networkmanager_stay_and_that_is_told_once(
    again: tuple[Happening, ...], caplog: pytest.LogCaptureFixture
) -> None:
    first = (link("wlan0"), _set_by_networkmanager, address("wlan0", "10.0.1.1"))

    played = play(ADDR_ADV, *first, PHONE, address("wlan0", "10.0.1.2"), wait(100), *again)

    text = "NetworkManager has endpoints on wlan0, too, and keeps them"
    assert text in played.problem
    assert sum(text in record.getMessage() for record in caplog.records) == 1 + len(again)
    assert [(e.address, e.origin, e.ours) for e in played.endpoints] == [
        ("10.0.1.1", "networkmanager", False),
        ("10.0.2.1", "mptcpd", True),
        ("10.0.1.2", "mptcpd", True),
    ]


def test_endpoints_of_networkmanager_for_other_addresses_are_no_conflict() -> None:
    assert not play(ADDR_ADV, link("wlan0"), _set_by_networkmanager, PHONE).problem


def test_an_endpoint_deleted_while_it_is_removed_is_no_error() -> None:
    async def both(world: World) -> None:
        await world.kernel.execute(commands.FlushAddrs())
        no_address("wlan0", "10.0.1.1")(world)

    played = play(ADDR_ADV, WIFI, PHONE, both)

    assert _addresses(played) == ["10.0.2.1"]

"""What active_backup commands, and when; the kernel is in memory, time is played."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio

import pytest

from mptcpd_dbus.core.readings import DefaultRoutesRead
from mptcpd_dbus.policy.loader import load
from mptcpd_dbus.policy.watch import Watch
from mptcpd_dbus.testing import (
    Answer,
    Happening,
    Played,
    World,
    address,
    announced,
    answers,
    connect,
    cut,
    link,
    managed,
    no_address,
    play,
    restore,
    subflow_lost,
    wait,
)
from tests.lab.sandbox import REPOSITORY

PLUGIN = load("active_backup", (REPOSITORY / "plugins/active_backup.py").read_bytes(), Watch())
ETH, WLAN, WWAN = LINKS = (
    link("eth0", "10.0.1.1"),
    link("wlan0", "10.0.2.1", kind="wlan"),
    link("wwan0", "10.0.3.1", kind="wwan"),
)
THREE = (*LINKS, connect())
STANDBYS = [
    "create 10.0.2.1 id 1 backup dev wlan0 -> 10.0.9.1:443",
    "create 10.0.3.1 id 2 backup dev wwan0 -> 10.0.9.1:443",
]
PASSED_ON = ["remove id 0", "nobackup 10.0.2.1 -> 10.0.9.1:443"]
TAKEN_BACK = [
    "create 10.0.1.1 id 3 dev eth0 -> 10.0.9.1:443",
    "backup 10.0.2.1 -> 10.0.9.1:443",
]


def routes(**metrics: int) -> Happening:
    """Have these IPv4 default routes, and no others."""

    def happen(world: World) -> None:
        found = ((world.names[name], 4, metric) for name, metric in metrics.items())
        world.engine.take(DefaultRoutesRead(frozenset(found)))

    return happen


def _subflows(played: Played) -> dict[str, str]:
    """Give which interface carries and which stand by, in the order of their subflows."""
    assert not played.problem
    (connection,) = played.connections
    return {s.interface: "backup" if s.backup_requested else "" for s in connection.subflows}


def test_the_first_interface_carries_and_the_others_stand_by() -> None:
    assert play(PLUGIN, *THREE).commands == STANDBYS


@pytest.mark.parametrize(
    ("prefer", "metrics", "best"),
    [
        ("", {}, "eth0"),
        ("kind:wwan", {}, "wwan0"),
        ("wlan*", {}, "wlan0"),
        ("kind:wlan, wwan*", {}, "wlan0"),  # in the order of the list
        ("wwan*, kind:wlan", {}, "wwan0"),
        ("", {"eth0": 600, "wlan0": 100, "wwan0": 700}, "wlan0"),
        ("", {"wwan0": 700}, "wwan0"),  # any default route is better than none
        ("w*", {"eth0": 100, "wlan0": 700, "wwan0": 600}, "wwan0"),  # the metric among equals
        ("wlan*", {"eth0": 100, "wlan0": 700, "wwan0": 600}, "wlan0"),
    ],
)
def test_the_best_interface_carries_alone(prefer: str, metrics: dict[str, int], best: str) -> None:
    played = play(PLUGIN, *LINKS, routes(**metrics), connect(), settings={"prefer": prefer})

    others = {"eth0", "wlan0", "wwan0"} - {best}
    assert _subflows(played) == {best: "", **dict.fromkeys(others, "backup")}
    standby = [line for line in played.commands if line.startswith("backup")]
    assert standby == (["backup 10.0.1.1 -> 10.0.9.1:443"] if best != "eth0" else [])


def test_only_routes_of_the_connections_family_count() -> None:
    def routes_of_both(world: World) -> None:
        four, six = ((2, 4, 100), (3, 4, 600)), ((2, 6, 600), (3, 6, 100))
        world.engine.take(DefaultRoutesRead(frozenset((*four, *six))))

    both = (link("eth0", "10.0.1.1", "fd01::1"), link("wlan0", "10.0.2.1", "fd02::1"))

    four = play(PLUGIN, *both, routes_of_both, connect())
    six = play(PLUGIN, *both, routes_of_both, connect("fd01::1", "fd09::1"))

    assert _subflows(four) == {"eth0": "", "wlan0": "backup"}
    assert _subflows(six) == {"eth0": "backup", "wlan0": ""}


def test_a_metric_that_changes_makes_another_interface_the_best() -> None:
    metrics = {"eth0": 100, "wlan0": 600, "wwan0": 700}

    played = play(PLUGIN, *LINKS, routes(**metrics), connect(), routes(**metrics | {"wwan0": 50}))

    assert sorted(played.commands[2:]) == [
        "backup 10.0.1.1 -> 10.0.9.1:443",
        "nobackup 10.0.3.1 -> 10.0.9.1:443",
    ]


def test_only_the_interfaces_of_its_settings_are_used() -> None:
    played = play(PLUGIN, *THREE, settings={"interfaces": "eth*, wwan*"})

    assert played.commands == ["create 10.0.3.1 id 1 backup dev wwan0 -> 10.0.9.1:443"]


def test_on_a_server_it_does_nothing() -> None:
    played = play(PLUGIN, *LINKS, connect(server_side=True), announced(2, "10.0.8.1"), wait(100))

    assert played.commands == []


# What data costs


def _spared(word: str, metered: str, *more: Happening) -> Played:
    eth = managed("eth0", metered=word)
    return play(PLUGIN, *LINKS, eth, connect(), *more, settings={"metered": metered})


@pytest.mark.parametrize("word", ["yes", "guess-yes"])
@pytest.mark.parametrize("prefer", ["", "eth0"])
def test_a_metered_interface_stands_by_even_if_it_is_preferred(word: str, prefer: str) -> None:
    settings = {"metered": "backup", "prefer": prefer}
    eth = managed("eth0", metered=word)

    played = play(PLUGIN, *LINKS, eth, connect(), settings=settings)

    assert _subflows(played) == {"eth0": "backup", "wlan0": "", "wwan0": "backup"}


@pytest.mark.parametrize(
    ("word", "metered"),
    [("no", "backup"), ("guess-no", "backup"), ("unknown", "avoid"), ("yes", "use")],
)
def test_one_that_is_not_metered_or_may_be_used_is_like_any_other(word: str, metered: str) -> None:
    assert _subflows(_spared(word, metered)) == {"eth0": "", "wlan0": "backup", "wwan0": "backup"}


def test_one_that_becomes_metered_makes_room_and_has_it_back() -> None:
    changes = (managed("eth0", metered="yes"), managed("eth0", metered="no"))

    assert _spared("no", "backup", *changes).commands[2:] == [
        "backup 10.0.1.1 -> 10.0.9.1:443",
        "nobackup 10.0.2.1 -> 10.0.9.1:443",
        "nobackup 10.0.1.1 -> 10.0.9.1:443",
        "backup 10.0.2.1 -> 10.0.9.1:443",
    ]


def test_metered_ones_carry_when_no_other_can() -> None:
    wlan = managed("wlan0", metered="yes")

    played = _spared("yes", "backup", wlan, cut("wwan0"))

    assert _subflows(played) == {"eth0": "", "wlan0": "backup"}


def test_one_that_is_avoided_has_no_subflow_before_it_is_needed() -> None:
    wwan = managed("wwan0", metered="yes")
    needed = (ETH, wwan, WWAN, connect(), cut("eth0"))

    idle = play(PLUGIN, *needed[:4], settings={"metered": "avoid"})
    carries = play(PLUGIN, *needed, settings={"metered": "avoid"})
    spared = play(PLUGIN, *needed, restore("eth0"), settings={"metered": "avoid"})

    assert idle.commands == []
    assert _subflows(carries) == {"wwan0": ""}
    assert _subflows(spared) == {"eth0": "", "wwan0": "backup"}


# Links and addresses that come and go


@pytest.mark.parametrize(
    "gone", [cut("eth0"), no_address("eth0", "10.0.1.1")], ids=["link", "address"]
)
def test_when_the_best_goes_it_is_given_up_and_the_best_standby_carries(gone: Happening) -> None:
    played = play(PLUGIN, *THREE, gone)

    assert played.commands == STANDBYS + PASSED_ON
    assert _subflows(played) == {"wlan0": "", "wwan0": "backup"}


@pytest.mark.parametrize(
    ("gone", "back"),
    [
        (cut("eth0"), restore("eth0")),
        (no_address("eth0", "10.0.1.1"), address("eth0", "10.0.1.1")),
    ],
    ids=["link", "address"],
)
def test_when_the_best_is_back_it_takes_over_with_a_fresh_id(
    gone: Happening, back: Happening
) -> None:
    played = play(PLUGIN, *THREE, gone, back)

    assert played.commands == STANDBYS + PASSED_ON + TAKEN_BACK
    assert _subflows(played) == {"wlan0": "backup", "wwan0": "backup", "eth0": ""}


def test_when_a_standby_goes_only_that_is_given_up() -> None:
    assert play(PLUGIN, *THREE, cut("wlan0")).commands == [*STANDBYS, "remove id 1"]


def test_a_lost_link_is_given_up_at_once_while_a_join_hangs() -> None:
    async def cut_meanwhile(world: World) -> None:
        WWAN(world)
        await asyncio.sleep(1)
        cut("eth0")(world)

    played = play(PLUGIN, ETH, WLAN, connect(), answers(Answer.SILENT), cut_meanwhile)

    given_up, timed_out = (
        next(at for at, line in enumerate(played.commands) if line.startswith(words))
        for words in ("remove id 0", "destroy 10.0.3.1")
    )
    assert given_up < timed_out


def test_the_last_link_is_kept_until_there_is_another() -> None:
    played = play(PLUGIN, ETH, WLAN, connect(), cut("wlan0"), cut("eth0"), wait(1))
    assert played.commands == [STANDBYS[0], "remove id 1"]

    rescued = play(PLUGIN, ETH, connect(), cut("eth0"), WLAN)
    assert rescued.commands[-1] == "remove id 0"
    assert _subflows(rescued) == {"wlan0": ""}


def test_a_better_interface_that_comes_takes_over() -> None:
    played = play(PLUGIN, ETH, connect(), WWAN, settings={"prefer": "kind:wwan"})

    assert played.commands == [
        "create 10.0.3.1 id 1 dev wwan0 -> 10.0.9.1:443",
        "backup 10.0.1.1 -> 10.0.9.1:443",
    ]


# Subflows that end, joins that fail


def test_a_lost_subflow_is_given_up_at_once_and_made_again_after_a_second() -> None:
    lost = (*THREE, subflow_lost("10.0.1.1"))

    assert play(PLUGIN, *lost, wait(0.9)).commands == STANDBYS + PASSED_ON
    assert play(PLUGIN, *lost, wait(1.1)).commands == STANDBYS + PASSED_ON + TAKEN_BACK


def test_a_standby_that_the_peer_closed_is_made_again_and_its_address_not_given_up() -> None:
    lost = (*THREE, subflow_lost("10.0.2.1", error=0))

    assert play(PLUGIN, *lost, wait(0.9)).commands == STANDBYS
    assert play(PLUGIN, *lost, wait(1.1)).commands == [*STANDBYS, STANDBYS[0]]


@pytest.mark.parametrize("answer", [Answer.REFUSED, Answer.LIMIT])
def test_refused_joins_are_tried_less_and_less_often_and_nothing_is_given_up(
    answer: Answer,
) -> None:
    """What never was established is not withdrawn from the peer."""
    for seconds, tries in ((0, 1), (0.9, 1), (1.1, 2), (3.1, 3), (7.1, 4), (63.1, 7)):
        played = play(PLUGIN, ETH, WLAN, answers(answer), connect(), wait(seconds))

        assert played.commands == tries * [STANDBYS[0]], f"after {seconds} s"
        assert _subflows(played) == {"eth0": ""}


def test_an_address_that_the_peer_announces_is_tried_at_once_where_the_first_refuses() -> None:
    refused = (ETH, answers(Answer.REFUSED), connect(), announced(2, "10.0.8.1", port=80), WLAN)

    assert play(PLUGIN, *refused).commands == [
        STANDBYS[0],
        "create 10.0.2.1 id 1 backup dev wlan0 -> 10.0.8.1:80",
    ]

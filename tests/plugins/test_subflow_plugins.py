"""What sspi, fullmesh and ndiffports command, and when; the kernel is in memory, time is played."""
# SPDX-License-Identifier: BSD-3-Clause

import logging

import pytest

from mptcpd_dbus.core.events import NewLocalAddress
from mptcpd_dbus.core.network import AddressTrait
from mptcpd_dbus.policy.loader import load
from mptcpd_dbus.policy.watch import Watch
from mptcpd_dbus.testing import (
    Answer,
    Happening,
    World,
    address,
    announced,
    close,
    connect,
    cut,
    link,
    no_address,
    play,
    restore,
    subflow_lost,
    wait,
    withdrawn,
)
from tests.lab.sandbox import REPOSITORY

SSPI, FULLMESH, NDIFFPORTS = (
    load(name, (REPOSITORY / f"plugins/{name}.py").read_bytes(), Watch())
    for name in ("sspi", "fullmesh", "ndiffports")
)
LINKS = (link("eth0", "10.0.1.1"), link("wlan0", "10.0.2.1"), link("wwan0", "10.0.3.1"))
TWO = LINKS[:2]
SECOND = "create 10.0.2.1 id 1 dev wlan0 -> 10.0.9.1:443"

that_use_all_links = pytest.mark.parametrize("plugin", [SSPI, FULLMESH])
every_plugin = pytest.mark.parametrize("plugin", [SSPI, FULLMESH, NDIFFPORTS])


def answer(what: Answer) -> Happening:
    """Have the peer answer joins like this from now on."""

    def happen(world: World) -> None:
        world.kernel.answers[443] = what

    return happen


def deprecated(name: str, text: str) -> Happening:
    """Give an interface an address that is not preferred."""

    def happen(world: World) -> None:
        index = world.names[name]
        world.engine.take(NewLocalAddress(index, text, 24, AddressTrait.DEPRECATED))

    return happen


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Give what plugins say of commands that failed."""
    caplog.set_level(logging.INFO, "mptcpd_dbus.plugin")
    return caplog


@that_use_all_links
def test_addresses_that_lead_nowhere_are_left_alone(
    plugin: type, log: pytest.LogCaptureFixture
) -> None:
    played = play(
        plugin,
        link("eth0", "10.0.1.1", "dead:beef:1::1"),
        link("local", "169.254.3.4", "fe80::1"),
        link("six", "dead:beef:2::1"),
        link("old"),
        deprecated("old", "10.0.4.1"),
        connect(),
        connect("dead:beef:1::1", "dead:beef:9::1"),
    )

    assert played.commands == ["create dead:beef:2::1 id 1 dev six -> dead:beef:9::1:443"]
    assert not log.messages


def test_sspi_takes_one_address_of_an_interface_and_fullmesh_all() -> None:
    host = (link("eth0", "10.0.1.1", "10.0.1.7"), link("wlan0", "10.0.2.1", "10.0.2.7"), connect())

    assert play(SSPI, *host).commands == [SECOND]
    assert play(FULLMESH, *host).commands == [
        "create 10.0.1.7 id 1 dev eth0 -> 10.0.9.1:443",
        "create 10.0.2.1 id 2 dev wlan0 -> 10.0.9.1:443",
        "create 10.0.2.7 id 3 dev wlan0 -> 10.0.9.1:443",
    ]


@that_use_all_links
def test_a_peer_that_denies_joins_to_its_first_address_is_joined_where_it_announced(
    plugin: type, log: pytest.LogCaptureFixture
) -> None:
    denying = (*TWO, connect(deny_join_id0=True))

    assert play(plugin, *denying, wait(100)).commands == []
    joined = play(plugin, *denying, announced(2, "dead:beef::2"), announced(3, "10.0.8.1", port=80))
    ends = [(s.local_address, s.remote_address) for s in joined.connections[0].subflows[1:]]
    first = [] if plugin is SSPI else [("10.0.1.1", "10.0.8.1")]
    assert ends == [*first, ("10.0.2.1", "10.0.8.1")]
    assert not log.messages


def test_ndiffports_does_nothing_where_its_peer_takes_no_joins_there(
    log: pytest.LogCaptureFixture,
) -> None:
    played = play(NDIFFPORTS, *TWO, connect(deny_join_id0=True), wait(100))

    assert played.commands == []
    assert not log.messages


def test_sspi_tries_other_addresses_of_the_peer_at_once() -> None:
    known = (LINKS[0], answer(Answer.REFUSED), connect(), announced(2, "10.0.8.1", port=80))
    played = play(SSPI, *known, LINKS[1], wait(0.5))

    assert played.commands == [SECOND, "create 10.0.2.1 id 1 dev wlan0 -> 10.0.8.1:80"]


@every_plugin
def test_what_is_refused_is_tried_again_less_and_less_often(plugin: type) -> None:
    for seconds, tries in ((0, 1), (0.9, 1), (1.1, 2), (3.1, 3), (7.1, 4), (63.1, 7), (183.1, 9)):
        played = play(plugin, *TWO, answer(Answer.LIMIT), connect(), wait(seconds))
        created = [command for command in played.commands if command.startswith("create")]
        assert len(created) == tries, f"after {seconds} s"
        assert not played.problem


@every_plugin
def test_no_join_is_tried_after_the_connection_has_closed(plugin: type) -> None:
    played = play(plugin, *TWO, answer(Answer.REFUSED), connect(), close(), wait(100))

    assert len(played.commands) == 1
    assert not played.problem


@that_use_all_links
def test_a_link_that_comes_while_a_join_hangs_is_used(plugin: type) -> None:
    played = play(plugin, *TWO, answer(Answer.SILENT), connect(), answer(Answer.ACCEPTED), LINKS[2])

    assert {s.local_address for s in played.connections[0].subflows} >= {"10.0.1.1", "10.0.3.1"}
    assert not played.problem


@that_use_all_links
def test_a_link_that_is_lost_is_given_up_and_taken_again(plugin: type) -> None:
    lost = play(plugin, *TWO, connect(), cut("wlan0"), wait(100))
    assert lost.commands == [SECOND, "remove id 1"]  # whereupon the peer closes

    back = play(plugin, *TWO, connect(), cut("wlan0"), restore("wlan0"))
    assert back.commands[2:] == ["create 10.0.2.1 id 2 dev wlan0 -> 10.0.9.1:443"]


@that_use_all_links
def test_the_last_link_is_not_given_up_until_there_is_another(plugin: type) -> None:
    alone = play(plugin, LINKS[0], connect(), cut("eth0"), wait(100))
    assert alone.commands == []

    rescued = play(plugin, LINKS[0], connect(), cut("eth0"), LINKS[1])
    assert rescued.commands == [SECOND, "remove id 0"]


@that_use_all_links
def test_the_last_address_is_not_given_up_until_its_interface_has_another(plugin: type) -> None:
    gone = (*TWO, connect(), no_address("eth0", "10.0.1.1"), no_address("wlan0", "10.0.2.1"))
    assert play(plugin, *gone, wait(100)).commands == [SECOND, "remove id 0"]

    renumbered = play(plugin, *gone, address("wlan0", "10.0.2.7"))
    assert renumbered.commands[2:] == [
        "create 10.0.2.7 id 2 dev wlan0 -> 10.0.9.1:443",
        "remove id 1",
    ]


@that_use_all_links
def test_an_address_that_the_peer_withdraws_is_tried_no_more(plugin: type) -> None:
    played = play(
        plugin,
        *TWO,
        answer(Answer.REFUSED),
        connect(deny_join_id0=True),
        announced(2, "10.0.8.1"),
        withdrawn(2),
        wait(100),
    )

    assert played.commands
    assert set(played.commands) <= {
        "create 10.0.1.1 id 1 dev eth0 -> 10.0.8.1:443",
        "create 10.0.2.1 id 1 dev wlan0 -> 10.0.8.1:443",
        "create 10.0.2.1 id 2 dev wlan0 -> 10.0.8.1:443",
    }
    assert len(played.commands) <= 2


def test_on_a_server_sspi_announces_one_address_of_each_other_interface() -> None:
    host = (link("eth0", "10.0.1.1", "10.0.1.7"), link("wlan0", "10.0.2.1", "10.0.2.7"))
    served = connect(server_side=True)

    assert play(SSPI, *host, served, LINKS[2]).commands == [
        "announce 10.0.2.1 id 1",
        "announce 10.0.3.1 id 2",
    ]
    assert play(FULLMESH, *host, served).commands == [
        "announce 10.0.1.7 id 1",
        "announce 10.0.2.1 id 2",
        "announce 10.0.2.7 id 3",
    ]
    assert play(NDIFFPORTS, *host, served).commands == []


@that_use_all_links
def test_on_a_server_an_address_without_link_is_withdrawn(plugin: type) -> None:
    played = play(
        plugin, *TWO, connect(server_side=True), cut("wlan0"), restore("wlan0"), wait(100)
    )

    assert played.commands == [
        "announce 10.0.2.1 id 1",
        "remove id 1",
        "announce 10.0.2.1 id 2",
    ]


def test_fullmesh_goes_no_further_than_its_limit_and_fills_up_again() -> None:
    settings = {"max_subflows": 2}
    played = play(FULLMESH, *LINKS, connect(), settings=settings)
    assert played.commands == [SECOND]

    played = play(FULLMESH, *LINKS, connect(), cut("wlan0"), settings=settings)
    assert played.commands[-1] == "create 10.0.3.1 id 2 dev wwan0 -> 10.0.9.1:443"


def test_ndiffports_keeps_their_number() -> None:
    subflow = "create 10.0.1.1 id 1 dev eth0 -> 10.0.9.1:443"
    three = (*TWO, connect(), subflow_lost("10.0.1.1"))

    assert play(NDIFFPORTS, *three, settings={"subflows": 3}).commands == 2 * [subflow]
    assert play(NDIFFPORTS, *three, wait(1.1), settings={"subflows": 3}).commands == 3 * [subflow]

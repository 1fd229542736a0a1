"""That what the settings say reaches policies, at the start and when they are read anew.

What each of them means is tested with its own module; here it is only whether the host goes by it.
"""
# SPDX-License-Identifier: BSD-3-Clause

from typing import Any

import pytest

from mptcpd_dbus.config import Settings
from mptcpd_dbus.config_file import Section
from mptcpd_dbus.core import events
from mptcpd_dbus.core.network import AddressTrait
from mptcpd_dbus.core.readings import DefaultRoutesRead, RoutedAddressesRead
from mptcpd_dbus.plugin import Plugin
from tests.policy.hosted_world import Heard, HostedWorld, in_played_time, recorder
from tests.world import FIRST, TOKEN

ALL = {"eth0": ["10.0.1.1"], "wlan0": ["10.0.2.1", "169.254.2.1"]}
SHOWN = [
    ({}, ALL),
    ({"allow": ("eth*",)}, {"eth0": ["10.0.1.1"]}),
    ({"deny": ("name:eth0",)}, {"wlan0": ["10.0.2.1", "169.254.2.1"]}),
    ({"deny": ("kind:wlan",)}, {"eth0": ["10.0.1.1"]}),
    ({"allow": ("prefix:10.0.2.0/24",)}, {"eth0": [], "wlan0": ["10.0.2.1"]}),
    ({"notify_flags": frozenset({"check_route"})}, {"eth0": [], "wlan0": ["10.0.2.1"]}),
    (
        {"notify_flags": frozenset({"skip_link_local"})},
        {"eth0": ["10.0.1.1"], "wlan0": ["10.0.2.1"]},
    ),
]

Shown = dict[str, list[str]]


class Viewer:
    """Holds what a plugin heard of the network against what it is shown of it."""

    def __init__(self, **settings: Any) -> None:
        self.heard = Heard()
        self._plugin: list[Plugin] = []

        async def start(plugin: Plugin) -> None:
            self._plugin = [plugin]

        self.it = HostedWorld({"a": recorder(self.heard, "a", start=start)}, **settings)

    def link_up(self) -> None:
        """Give the host two interfaces; a default route leads out of one of them."""
        self.it.link(2, "eth0", "10.0.1.1")
        self.it.link(3, "wlan0", "10.0.2.1", kind="wlan")
        narrow = events.NewLocalAddress(3, "169.254.2.1", 16, AddressTrait.LINK_SCOPE)
        self.it.engine.take(narrow)
        self.it.engine.take(RoutedAddressesRead(frozenset({(3, "10.0.2.1")})))

    def shown(self) -> Shown:
        """Give what its views show."""
        (plugin,) = self._plugin
        return {i.name: list(i.addresses) for i in plugin.pm.interfaces}

    def told(self) -> Shown:
        """Give what is there by all that it heard."""
        there: Shown = {}
        for handler, *given in self.heard.by("a"):
            match handler:
                case "new_interface":
                    assert given[0].name not in there
                    there[given[0].name] = []
                case "delete_interface":
                    assert there.pop(given[0].name) == []
                case "new_local_address":
                    there[given[0].name].append(given[1])
                case "delete_local_address":
                    there[given[0].name].remove(given[1])
                case _:
                    pass  # it is not about what is there
        return {name: sorted(addresses) for name, addresses in there.items()}


@pytest.mark.parametrize(("settings", "shown"), SHOWN)
@in_played_time
async def test_policies_see_and_hear_of_what_the_settings_show(
    settings: dict[str, Any], shown: Shown
) -> None:
    viewer = Viewer(**settings)
    await viewer.it.start()
    viewer.link_up()
    await viewer.it.rest()

    assert viewer.shown() == viewer.told() == shown


@pytest.mark.parametrize(("settings", "shown"), SHOWN[1:])
@in_played_time
async def test_other_settings_of_what_is_shown_are_followed_and_the_difference_is_told(
    settings: dict[str, Any], shown: Shown
) -> None:
    viewer = Viewer()
    await viewer.it.start()
    viewer.link_up()
    for now, expected in ((settings, shown), ({}, ALL)):
        await viewer.it.host.follow(Settings(**now))
        await viewer.it.rest()

        assert viewer.shown() == viewer.told() == expected


@pytest.mark.parametrize("flags", [frozenset(), frozenset({"existing"})])
@in_played_time
async def test_who_starts_is_told_of_addresses_that_are_there_only_with_the_flag(
    flags: frozenset[Any],
) -> None:
    """Of interfaces always; later addresses, too."""
    viewer = Viewer(notify_flags=flags)
    it = viewer.it
    viewer.link_up()
    await it.start()
    existing = ALL if flags else {"eth0": [], "wlan0": []}
    assert viewer.told() == existing
    assert viewer.shown() == ALL

    it.engine.take(events.NewLocalAddress(2, "10.0.1.7", 24))
    await it.rest()
    assert viewer.told() == existing | {"eth0": [*existing["eth0"], "10.0.1.7"]}

    other: frozenset[Any] = frozenset({"existing"}) - flags
    await it.host.follow(Settings(notify_flags=other))
    viewer.heard.clear()
    await it.host.reload("a")
    await it.rest()
    everything = ALL | {"eth0": ["10.0.1.1", "10.0.1.7"]}
    assert viewer.told() == (everything if other else {"eth0": [], "wlan0": []})


@in_played_time
async def test_who_is_shown_an_interface_hears_of_its_default_routes() -> None:
    viewer = Viewer(deny=("wlan0",))
    it = await viewer.it.start()
    viewer.link_up()

    async def told(*routes: tuple[int, int, int]) -> list[tuple[str, str, dict[int, int]]]:
        await it.rest()
        viewer.heard.clear()
        it.engine.take(DefaultRoutesRead(frozenset(routes)))
        await it.rest()
        calls = viewer.heard.by("a")
        return [(handler, i.name, dict(i.default_routes)) for handler, i in calls]

    assert await told((2, 4, 100)) == [("update_interface", "eth0", {4: 100})]
    assert await told((2, 4, 100)) == []
    assert await told((2, 4, 100), (3, 4, 50)) == []  # that one is not shown
    assert await told((2, 4, 600), (2, 6, 7)) == [("update_interface", "eth0", {4: 600, 6: 7})]
    assert await told((3, 4, 50)) == [("update_interface", "eth0", {})]


# Who decides


def _section(**values: str) -> dict[str, Any]:
    return {"plugins": {"b": Section("b", {k.replace("_", "-"): v for k, v in values.items()})}}


@pytest.mark.parametrize(
    ("settings", "owner"),
    [
        ({}, "a"),
        ({"path_manager": "b"}, "b"),
        (_section(priority="-1"), "b"),
        (_section(priority="1"), "a"),
        (_section(priority="-1", match_port="443"), "a"),  # the connection's is 80
        (_section(priority="-1", match_port="80"), "b"),
    ],
)
@in_played_time
async def test_the_settings_say_who_decides_and_other_ones_count_from_the_next_connection_on(
    settings: dict[str, Any], owner: str
) -> None:
    plugins = {"a": Plugin, "b": type("B", (Plugin,), {})}
    it = await HostedWorld(plugins, **settings).start()
    it.connect()
    assert it.owner(TOKEN) == owner

    other = await HostedWorld(plugins).start()
    for token, now, decides in ((1, {}, "a"), (2, settings, owner), (3, {}, "a")):
        await other.host.follow(Settings(**now))
        other.connect(token, FIRST._replace(local_port=token))
        assert other.owner(token) == decides
    assert other.owner(1) == "a"  # who has one keeps it


@in_played_time
async def test_who_wants_a_connection_no_more_by_other_settings_passes_it_on() -> None:
    plugins = {"b": type("B", (Plugin,), {}), "a": type("A", (Plugin,), {})}
    it = await HostedWorld(plugins).start()
    it.connect()
    assert it.owner(TOKEN) == "b"

    await it.host.follow(Settings(**_section(match_port="443")))
    await it.rest()

    assert it.owner(TOKEN) == "a"


@in_played_time
async def test_who_goes_with_its_path_manager_is_not_warned_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The control: it is when it stays."""
    kernels = type("Kernels", (Plugin,), {"steers": "kernel"})
    it = await HostedWorld({"a": kernels, "b": Plugin}, load_plugins=("a",)).start()
    it.engine.pm.choice.set("kernel")
    await it.rest()
    caplog.clear()

    for load in (("b",), ("a",)):
        await it.host.follow(Settings(load_plugins=load, kernel_path_manager="userspace"))
        await it.rest()
        warned = [r for r in caplog.records if r.getMessage().startswith("plugin a: it steers")]
        assert [r.levelname for r in warned] == ["WARNING"] * (load == ("a",))

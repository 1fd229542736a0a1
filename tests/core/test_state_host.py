"""What the state knows of the host: interfaces, listeners, endpoints, limits and settings."""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import replace

import pytest

from mptcpd_dbus.core import events, readings
from mptcpd_dbus.core.network import NO_TRAITS, UNKNOWN, AddressTrait, Management
from mptcpd_dbus.core.state import State
from mptcpd_dbus.core.types import AddressEntry, AddressFlag
from tests.core.example import (
    CREATED,
    FIRST,
    JOINED,
    LINK1,
    SECOND,
    TOKEN,
    state_after,
)

ADDRESS = events.NewLocalAddress(2, "10.0.1.1", 24)
LISTENS = events.ListenerCreated("0.0.0.0", 80)  # noqa: S104 - nothing is bound
LISTENS_NO_MORE = events.ListenerClosed("0.0.0.0", 80)  # noqa: S104 - nothing is bound
PLACE = ("0.0.0.0", 80)  # noqa: S104 - nothing is bound


def test_a_flap_of_the_carrier_keeps_the_addresses() -> None:
    state = state_after(
        LINK1,
        ADDRESS,
        events.UpdateInterface(2, "link1", "ether", up=True, running=False),
        events.UpdateInterface(2, "link1", "ether", up=True, running=True),
    )

    assert state.network.interfaces[2].addresses == {"10.0.1.1": 24}
    assert state.network.owner("10.0.1.1") is state.network.interfaces[2]


def test_a_new_interface_that_is_known_is_an_update() -> None:
    state = state_after(LINK1)

    change = state.apply(events.NewInterface(2, "link1", "ether", up=False, running=False))

    assert change is not None
    assert (change.added, change.changed) == ((), (state.network.interfaces[2],))
    assert not state.network.interfaces[2].up


@pytest.mark.parametrize(
    "event",
    [
        events.UpdateInterface(9, "x", "ether", up=True, running=True),
        events.DeleteInterface(9),
        events.NewLocalAddress(9, "10.0.1.1", 24),
        events.DeleteLocalAddress(9, "10.0.1.1"),
        events.DeleteLocalAddress(2, "10.0.7.7"),
        events.UpdateInterface(2, "link1", "ether", up=True, running=True),
        ADDRESS,
    ],
    ids=str,
)
def test_what_is_unknown_or_already_known_of_the_network_teaches_nothing(
    event: events.Event,
) -> None:
    assert state_after(LINK1, ADDRESS).apply(event) is None


def test_an_address_comes_with_another_prefix_length() -> None:
    state = state_after(LINK1, ADDRESS)

    assert state.apply(events.NewLocalAddress(2, "10.0.1.1", 16)) is not None
    assert state.network.interfaces[2].addresses == {"10.0.1.1": 16}


def test_an_address_that_is_deleted_has_no_owner() -> None:
    state = state_after(LINK1, ADDRESS)

    change = state.apply(events.DeleteLocalAddress(2, "10.0.1.1"))

    assert change is not None
    assert change.changed == (state.network.interfaces[2],)
    assert state.network.owner("10.0.1.1") is None


def test_a_deleted_interface_implies_that_its_addresses_are_deleted() -> None:
    state = state_after(LINK1, ADDRESS)

    assert state.implied_by(events.DeleteInterface(2)) == [events.DeleteLocalAddress(2, "10.0.1.1")]
    assert state.implied_by(events.DeleteInterface(9)) == []


def test_default_routes_are_set_by_family_and_told_once() -> None:
    state = state_after(LINK1)
    reading = readings.DefaultRoutesRead(frozenset({(2, 4, 0), (2, 6, 1024), (9, 4, 0)}))

    change = state.apply(reading)

    assert change is not None
    assert change.changed == (state.network.interfaces[2],)
    assert state.network.interfaces[2].default_routes == {4: 0, 6: 1024}
    assert state.apply(reading) is None


def test_routed_addresses_are_told_once_and_only_of_those_that_are_there() -> None:
    state = state_after(LINK1, events.NewInterface(3, "link2", "ether", up=True, running=True))
    state.apply(ADDRESS)
    link1, link2 = state.network.interfaces[2], state.network.interfaces[3]
    reading = readings.RoutedAddressesRead(
        frozenset({(2, "10.0.1.1"), (3, "10.0.1.1"), (2, "10.0.7.7"), (9, "10.0.1.1")})
    )

    change = state.apply(reading)

    assert change is not None
    assert change.changed == (link1,)
    assert link1.routed == {"10.0.1.1"}
    assert link2.routed == set()
    assert state.apply(reading) is None


def test_a_route_that_goes_is_taken_from_its_address() -> None:
    state = state_after(LINK1, ADDRESS)
    state.apply(readings.RoutedAddressesRead(frozenset({(2, "10.0.1.1")})))

    change = state.apply(readings.RoutedAddressesRead(frozenset()))

    assert change is not None
    assert change.changed == (state.network.interfaces[2],)
    assert state.network.interfaces[2].routed == set()


def test_an_address_that_comes_back_is_not_routed_until_it_is_looked_up() -> None:
    state = state_after(LINK1, ADDRESS)
    state.apply(readings.RoutedAddressesRead(frozenset({(2, "10.0.1.1")})))

    state.apply(events.DeleteLocalAddress(2, "10.0.1.1"))
    state.apply(ADDRESS)

    assert state.network.interfaces[2].routed == set()


def test_an_address_that_is_no_longer_preferred_stays_and_is_deprecated() -> None:
    state = state_after(LINK1, ADDRESS)
    link1 = state.network.interfaces[2]
    reading = readings.AddressTraitsRead(2, "10.0.1.1", AddressTrait.DEPRECATED)

    change = state.apply(reading)

    assert change is not None
    assert change.changed == (link1,)
    assert link1.addresses == {"10.0.1.1": 24}
    assert link1.deprecated == {"10.0.1.1"}
    assert state.apply(reading) is None


@pytest.mark.parametrize(("index", "address"), [(2, "10.0.7.7"), (9, "10.0.1.1")])
def test_traits_of_what_is_not_there_teach_nothing(index: int, address: str) -> None:
    state = state_after(LINK1, ADDRESS)

    for traits in (AddressTrait.DEPRECATED, NO_TRAITS):
        assert state.apply(readings.AddressTraitsRead(index, address, traits)) is None


def test_listeners_on_one_port_are_counted() -> None:
    state = state_after(LISTENS, LISTENS)

    state.apply(LISTENS_NO_MORE)
    assert state.listeners == {PLACE: 1}

    state.apply(LISTENS_NO_MORE)
    assert PLACE not in state.listeners


def test_the_end_of_a_listener_that_was_never_heard_of_teaches_nothing() -> None:
    assert State().apply(LISTENS_NO_MORE) is None


def test_endpoints_that_were_read_replace_the_known_ones() -> None:
    state = State()
    first, second = AddressEntry("10.0.1.1", 1), AddressEntry("10.0.2.1", 2)
    state.apply(readings.EndpointsRead((first, second)))
    known = dict(state.endpoints)
    third = AddressEntry("10.0.3.1", 3)
    backup = AddressEntry("10.0.2.1", 2, flags=AddressFlag.BACKUP)

    change = state.apply(readings.EndpointsRead((backup, third)))

    assert change is not None
    assert change.added == (state.endpoints[3],)
    assert change.changed == (known[2],)
    assert change.removed == (known[1],)
    assert known[2].entry == backup


def test_limits_and_settings_belong_to_the_host() -> None:
    state = State()
    limits = readings.LimitsRead(subflows=4, add_addr_accepted=2)
    settings = readings.SettingsRead(
        enabled=True,
        path_manager="userspace",
        available_path_managers=("kernel", "userspace"),
        scheduler="default",
    )

    for reading in (limits, settings):
        change = state.apply(reading)
        assert change is not None
        assert change.changed == (state,)

    assert (state.limits, state.settings) == (limits, settings)


def test_a_subflow_has_the_interface_of_its_address_however_late_the_address_comes() -> None:
    state = state_after(CREATED, LINK1)
    subflow, link = state.connections[TOKEN].subflows[FIRST], state.network.interfaces[2]
    seen = [subflow.interface]

    for event in (ADDRESS, events.DeleteLocalAddress(2, "10.0.1.1")):
        change = state.apply(event)
        assert change is not None
        assert change.changed == (link, subflow)
        seen.append(subflow.interface)

    assert seen == [None, link, None]


def test_a_bound_subflow_has_its_interface_however_late_the_interface_comes() -> None:
    state = state_after(CREATED, replace(JOINED, interface_index=2))
    subflow = state.connections[TOKEN].subflows[SECOND]
    seen = [subflow.interface]

    for event in (LINK1, events.DeleteInterface(2)):
        change = state.apply(event)
        assert change is not None
        assert change.changed == (subflow,)
        seen.append(subflow.interface)

    assert [interface and interface.name for interface in seen] == [None, "link1", None]


@pytest.mark.parametrize("other", [AddressEntry("10.0.2.1", 1), AddressEntry("10.0.1.1", 1, 80)])
def test_another_address_under_an_endpoints_id_is_another_endpoint(other: AddressEntry) -> None:
    state = State()
    first = AddressEntry("10.0.1.1", 1)
    state.apply(readings.EndpointsRead((first,)))
    old = state.endpoints[1]

    change = state.apply(readings.EndpointsRead((other,)))

    assert change is not None
    assert state.endpoints[1] is not old
    assert (change.added, change.removed) == ((state.endpoints[1],), (old,))
    assert (old.entry, state.endpoints[1].entry) == (first, other)


# What NetworkManager says

METERED = Management(managed=True, metered="yes")
SAID = readings.ManagementRead({"link1": METERED})


def test_what_networkmanager_says_belongs_to_the_interface_of_that_name_whoever_came_first() -> (
    None
):
    before, after = state_after(SAID, LINK1), state_after(LINK1, SAID)
    renamed = state_after(SAID, LINK1, replace(LINK1, name="wan0"))
    back = state_after(SAID, LINK1, replace(LINK1, name="wan0"), LINK1)

    said = [state.network.interfaces[2].management for state in (before, after, renamed, back)]
    assert said == [METERED, METERED, UNKNOWN, METERED]


def test_only_what_it_says_anew_is_a_change() -> None:
    state = state_after(LINK1, replace(LINK1, index=3, name="link2"), SAID)

    assert state.apply(SAID) is None
    change = state.apply(readings.ManagementRead({}))
    assert change is not None
    assert change.changed == (state.network.interfaces[2],)
    assert state.network.interfaces[2].management == UNKNOWN


@pytest.mark.parametrize(
    ("entry", "origin"),
    [
        (AddressEntry("10.0.1.1", 1, interface_index=2), "networkmanager"),
        (AddressEntry("10.0.1.1", 1), "other"),
        (AddressEntry("10.0.1.1", 1, port=80, interface_index=2), "other"),
        (AddressEntry("10.0.1.1", 1, interface_index=9), "other"),
        (AddressEntry("10.0.1.1", 1, flags=AddressFlag.IMPLICIT, interface_index=2), "other"),
        (AddressEntry("10.0.1.1", 7, interface_index=2), "mptcpd"),
    ],
)
def test_endpoints_without_port_on_what_it_manages_are_its_own_unless_they_are_ours(
    entry: AddressEntry, origin: str
) -> None:
    ours = readings.OwnEndpointsRead(frozenset({(7, "10.0.1.1", 0)}))
    state = state_after(LINK1, SAID, ours, readings.EndpointsRead((entry,)))
    (endpoint,) = state.endpoints.values()
    assert endpoint.origin == origin

    change = state.apply(readings.ManagementRead({}))
    assert change is not None
    assert endpoint.origin == ("other" if origin == "networkmanager" else origin)
    assert (endpoint in change.changed) == (origin == "networkmanager")

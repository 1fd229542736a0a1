"""What the state knows of policies, and whose each connection and each endpoint is."""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import replace

import pytest

from mptcpd_dbus.core.policies import PolicyState
from mptcpd_dbus.core.readings import (
    EndpointsRead,
    OwnEndpointsRead,
    OwnerRead,
    PolicyGone,
    PolicyRead,
)
from mptcpd_dbus.core.state import State
from mptcpd_dbus.core.types import AddressEntry, AddressFlag
from tests.core.example import CLOSED, CREATED, JOINED, LINK1, TOKEN, state_after

SSPI = PolicyRead("sspi", "One per link.", "1", 0, "userspace", PolicyState.RUNNING, "", 0)
ADV = replace(SSPI, name="addr_adv")
OWNED = OwnerRead(TOKEN, "sspi")
ENDPOINT = AddressEntry("10.0.1.1", 1)
OURS = OwnEndpointsRead(frozenset({(1, "10.0.1.1", 0)}))


def _state(*more: PolicyRead | PolicyGone | OwnerRead) -> State:
    state = state_after(CREATED)
    for reading in more:
        state.apply(reading)
    return state


def test_a_policy_is_added_then_changed_and_told_once() -> None:
    state = State()

    first = state.apply(SSPI)
    again = state.apply(SSPI)
    policy = state.policies["sspi"]
    failed = state.apply(replace(SSPI, state=PolicyState.FAILED, problem="Oh.", errors=5))

    assert first is not None
    assert first.added == (policy,)
    assert again is None
    assert failed is not None
    assert (failed.added, failed.changed) == ((), (policy,))
    assert (policy.state, policy.problem, policy.errors) == (PolicyState.FAILED, "Oh.", 5)
    assert policy.steers == "userspace"


def test_an_owner_is_told_once() -> None:
    state = _state(SSPI)
    connection = state.connections[TOKEN]

    change = state.apply(OWNED)

    assert change is not None
    assert (change.connection, change.changed) == (connection, (connection,))
    assert connection.owner == "sspi"
    assert state.apply(OWNED) is None


def test_connections_are_counted_with_their_owner() -> None:
    state = _state(SSPI, ADV)
    counts = []

    for what in (OWNED, replace(OWNED, owner="addr_adv"), replace(OWNED, owner=""), OWNED, CLOSED):
        state.apply(what)
        counts.append([policy.connections for policy in state.policies.values()])

    assert counts == [[1, 0], [0, 1], [0, 0], [1, 0], [0, 0]]


def test_a_policy_that_comes_after_its_connections_has_them() -> None:
    state = _state(OWNED, ADV, SSPI)

    assert state.connections[TOKEN].owner == "sspi"
    assert {name: p.connections for name, p in state.policies.items()} == {"addr_adv": 0, "sspi": 1}


def test_a_policy_that_is_told_anew_keeps_its_connections() -> None:
    state = _state(SSPI, OWNED, replace(SSPI, version="2"))

    assert (state.policies["sspi"].version, state.policies["sspi"].connections) == ("2", 1)


def test_the_connections_of_a_policy_that_is_gone_are_nobodys() -> None:
    state = _state(SSPI, OWNED)
    policy, connection = state.policies["sspi"], state.connections[TOKEN]

    change = state.apply(PolicyGone("sspi"))

    assert change is not None
    assert (change.changed, change.removed) == ((connection,), (policy,))
    assert connection.owner == ""
    assert state.policies == {}
    assert state.apply(PolicyGone("sspi")) is None


def test_an_owner_for_a_connection_that_is_gone_teaches_nothing() -> None:
    state = _state(SSPI)
    state.apply(CLOSED)

    assert state.apply(OWNED) is None
    assert state.policies["sspi"].connections == 0


def test_policies_come_before_their_connections() -> None:
    state = state_after(LINK1, CREATED, JOINED)
    state.apply(SSPI)
    everything = list(state.everything())

    assert everything.index(state.policies["sspi"]) < everything.index(state.connections[TOKEN])
    assert len(everything) == 1 + 1 + 1 + 1 + 2


def test_an_endpoint_is_ours_whichever_reading_comes_first() -> None:
    before, after = State(), State()
    for reading in (OURS, EndpointsRead((ENDPOINT,))):
        before.apply(reading)
    after.apply(EndpointsRead((ENDPOINT,)))

    change = after.apply(OURS)

    assert change is not None
    assert change.changed == (after.endpoints[1],)
    assert before.endpoints[1].ours
    assert after.endpoints[1].ours
    assert after.apply(OURS) is None


def test_an_endpoint_that_we_forget_is_not_ours_any_more() -> None:
    state = State()
    for reading in (OURS, EndpointsRead((ENDPOINT,)), OwnEndpointsRead(frozenset())):
        state.apply(reading)

    assert not state.endpoints[1].ours


@pytest.mark.parametrize(
    "entry",
    [
        replace(ENDPOINT, id=2),
        replace(ENDPOINT, address="10.0.2.1"),
        replace(ENDPOINT, port=80),
        replace(ENDPOINT, flags=AddressFlag.IMPLICIT),
    ],
    ids=["id", "address", "port", "implicit"],
)
def test_an_endpoint_that_only_resembles_one_of_ours_is_not_ours(entry: AddressEntry) -> None:
    state = State()

    for reading in (OURS, EndpointsRead((ENDPOINT,)), EndpointsRead((entry,))):
        state.apply(reading)

    assert [endpoint.ours for endpoint in state.endpoints.values()] == [False]

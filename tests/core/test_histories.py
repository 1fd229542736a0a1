"""Any history of events, any of them lost, ends in the truth once the difference is applied."""
# SPDX-License-Identifier: BSD-3-Clause

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, get_args, get_type_hints

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from mptcpd_dbus.core import events, readings
from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.diff import difference
from mptcpd_dbus.core.policies import PolicyState
from mptcpd_dbus.core.readings import ConnectionRead, SubflowRead
from mptcpd_dbus.core.state import State
from mptcpd_dbus.core.types import AddressEntry, AddressFlag, ConnectionState, FourTuple
from tests.core.example import INITIAL_ROW, JOINED_ROW, ROW

TOKENS = (1, 2)
ADDRESSES = st.sampled_from(["10.0.1.1", "10.0.2.1", "fd00::1"])
IDS = st.integers(0, 3)
FLAGS = st.sampled_from([0, AddressFlag.IMPLICIT])
ENTRIES = st.builds(AddressEntry, ADDRESSES, IDS, IDS, FLAGS)
NAMES = st.sampled_from(["a", "b"])


@dataclass
class Truth:
    """A connection in the kernel of this model."""

    row: ConnectionRead
    subflows: dict[FourTuple, SubflowRead] = field(default_factory=dict)


class LossyHistory(RuleBasedStateMachine):
    """A kernel whose events are heard or lost, and a state that must catch up."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel: dict[int, Truth] = {}
        self.state = State()
        self.port = 4000

    def _tell(self, event: events.Event, heard: bool) -> None:
        if heard:
            for implied in self.state.implied_by(event):
                self.state.apply(implied)
            self.state.apply(event)

    @rule(
        token=st.sampled_from(TOKENS),
        server=st.booleans(),
        confirmed=st.booleans(),
        heard=st.booleans(),
    )
    def open(self, token: int, server: bool, confirmed: bool, heard: bool) -> None:
        """Use a token, possibly again: then the old connection was aborted."""
        self.port += 1
        t = FourTuple("10.0.1.1", self.port, "10.0.9.1", 80)
        row = replace(
            INITIAL_ROW,
            token=token,
            four_tuple=t,
            opened_here=not server,
            fully_established=server or confirmed,
        )
        self.kernel[token] = Truth(replace(ROW, token=token, four_tuple=t), {t: row})
        self._tell(events.NewConnection(token, t, server_side=server), heard)
        if row.fully_established:
            self._tell(events.ConnectionEstablished(token, t, server_side=server), heard)

    @precondition(lambda self: self.kernel)
    @rule(data=st.data(), heard=st.booleans(), address=ADDRESSES, local_id=IDS)
    def join(self, data: st.DataObject, heard: bool, address: str, local_id: int) -> None:
        """Add a subflow; that takes an established connection."""
        truth = self._some(data)
        first = truth.subflows.get(truth.row.four_tuple)
        if first and not first.fully_established:
            return
        self.port += 1
        t = FourTuple(address, self.port, "10.0.9.1", 80)
        truth.subflows[t] = replace(
            JOINED_ROW, token=truth.row.token, four_tuple=t, local_id=local_id
        )
        self._tell(events.NewSubflow(truth.row.token, t, local_id), heard)

    @precondition(lambda self: self.kernel)
    @rule(data=st.data(), heard=st.booleans(), error=st.sampled_from([0, 104, 110]))
    def lose_a_subflow(self, data: st.DataObject, heard: bool, error: int) -> None:
        """End a subflow, be it the initial one or the last."""
        truth = self._some(data)
        if truth.subflows:
            t = data.draw(st.sampled_from(list(truth.subflows)))
            del truth.subflows[t]
            self._tell(events.SubflowClosed(truth.row.token, t, error=error), heard)

    @precondition(lambda self: self.kernel)
    @rule(data=st.data(), heard=st.booleans(), backup=st.booleans(), requested=st.booleans())
    def change_priority(
        self, data: st.DataObject, heard: bool, backup: bool, requested: bool
    ) -> None:
        """Let both ends ask for backup; only the peer's wish has an event."""
        truth = self._some(data)
        if truth.subflows:
            t = data.draw(st.sampled_from(list(truth.subflows)))
            truth.subflows[t] = replace(
                truth.subflows[t], backup=backup, backup_requested=requested
            )
            self._tell(events.SubflowPriority(truth.row.token, t, backup=backup), heard)

    @precondition(lambda self: self.kernel)
    @rule(data=st.data())
    def half_close(self, data: st.DataObject) -> None:
        """Let the peer shut down: no event tells."""
        truth = self._some(data)
        truth.row = replace(truth.row, state=8)

    @precondition(lambda self: self.kernel)
    @rule(data=st.data(), heard=st.booleans())
    def close(self, data: st.DataObject, heard: bool) -> None:
        """Close, or abort where nothing is heard."""
        token = self._some(data).row.token
        del self.kernel[token]
        self._tell(events.ConnectionClosed(token), heard)

    @rule()
    def compare(self) -> None:
        """Apply the difference: now the state is the truth, and differs no more."""
        for token in TOKENS:
            for what in self._difference(token):
                self.state.apply(what)
            assert self._difference(token) == []

        assert {t: _seen(c) for t, c in self.state.connections.items()} == {
            t: _shown(truth) for t, truth in self.kernel.items()
        }
        for token, truth in self.kernel.items():
            if any(row.fully_established for row in truth.subflows.values()):
                assert self.state.connections[token].state is not ConnectionState.CREATED

    def teardown(self) -> None:
        """Compare once more at the end."""
        self.compare()

    def _some(self, data: st.DataObject) -> Truth:
        return self.kernel[data.draw(st.sampled_from(sorted(self.kernel)))]

    def _difference(self, token: int) -> list[Any]:
        truth = self.kernel.get(token)
        return difference(
            self.state.connections.get(token),
            truth.row if truth else None,
            list(truth.subflows.values()) if truth else (),
        )


def _seen(connection: Connection) -> tuple[Any, ...]:
    return (
        connection.four_tuple,
        connection.uid,
        connection.cgroup,
        connection.state.value == "closing",
        {
            t: (s.local_id, s.remote_id, s.backup, s.backup_requested, s.initial)
            for t, s in connection.subflows.items()
        },
    )


def _shown(truth: Truth) -> tuple[Any, ...]:
    return (
        truth.row.four_tuple,
        truth.row.uid,
        truth.row.cgroup,
        truth.row.state != 1,
        {
            t: (s.local_id, s.remote_id, s.backup, s.backup_requested, s.initial)
            for t, s in truth.subflows.items()
        },
    )


LossyHistory.TestCase.settings = settings(
    max_examples=150, stateful_step_count=25, deadline=None, database=None
)


def test_a_lossy_history_becomes_the_truth_once_the_difference_is_applied() -> None:
    LossyHistory.TestCase().runTest()


def _few(kind: type) -> st.SearchStrategy[Any]:
    """Give *kind* with values so few that the things of a history meet each other."""
    few: dict[Any, st.SearchStrategy[Any]] = {
        int: IDS,
        FourTuple: st.builds(FourTuple, ADDRESSES, IDS, ADDRESSES, IDS),
        str: ADDRESSES,
        frozenset[tuple[int, str, int]]: st.frozensets(st.tuples(IDS, ADDRESSES, IDS)),
        tuple[AddressEntry, ...]: st.lists(ENTRIES, max_size=3).map(tuple),
    }
    names = {name: few[hint] for name, hint in get_type_hints(kind).items() if hint in few}
    if kind in (readings.PolicyRead, readings.PolicyGone):
        names["name"] = NAMES
    elif kind is readings.OwnerRead:
        names["owner"] = NAMES | st.just("")
    return st.builds(kind, **names)


@given(
    st.lists(
        st.one_of([_few(kind) for kind in get_args(events.Event) + get_args(readings.Reading)]),
        max_size=60,
    )
)
@settings(max_examples=200, deadline=None, database=None)
def test_no_sequence_of_events_and_readings_makes_apply_fail(
    history: list[events.Event | readings.Reading],
) -> None:
    state = State()

    for what in history:
        state.apply(what)

    for connection in state.connections.values():
        assert all(s.connection is connection for s in connection.subflows.values())


OWNERSHIP: list[events.Event | readings.Reading] = []
for _token in TOKENS:
    OWNERSHIP += [
        events.NewConnection(_token, FourTuple("10.0.1.1", 4000 + _token, "10.0.9.1", 80)),
        events.ConnectionClosed(_token),
        *(readings.OwnerRead(_token, owner) for owner in ("", "a", "b")),
    ]
for _name in ("a", "b"):
    OWNERSHIP += [
        readings.PolicyRead(_name, "", "", 0, "both", PolicyState.RUNNING, "", 0),
        readings.PolicyGone(_name),
    ]


@given(st.lists(st.sampled_from(OWNERSHIP), min_size=10, max_size=40))
@settings(max_examples=200, deadline=None, database=None)
def test_every_policy_knows_how_many_connections_have_it_as_their_owner(
    history: list[events.Event | readings.Reading],
) -> None:
    state = State()

    for what in history:
        state.apply(what)

        owners = Counter(connection.owner for connection in state.connections.values())
        assert {name: policy.connections for name, policy in state.policies.items()} == {
            name: owners[name] for name in state.policies
        }

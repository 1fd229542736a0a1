"""Each bound of `bus/names.py` is reached by a test; here are those that no other test reaches."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import re
import time
from collections.abc import AsyncIterator

import pytest

from mptcpd_dbus.bus.budget import Budget
from mptcpd_dbus.bus.error_names import ACCESS_DENIED, BusError
from mptcpd_dbus.bus.interface import Call
from mptcpd_dbus.bus.message import CALL, NO_REPLY, Head, Incoming
from mptcpd_dbus.bus.names import (
    BACKLOG,
    CHECK_SECONDS,
    DIALOGUE_SECONDS,
    LARGE_BURST,
    LARGE_RATE,
    MANAGE_ENDPOINTS,
    MUTED_SECONDS,
    NAME_BACKLOG,
    NAME_BURST,
    NAME_LATE,
    NAME_RATE,
    POLICIES,
    TRUSTED_NAME_BURST,
    TRUSTED_NAME_RATE,
    TRUSTED_UID_BURST,
    TRUSTED_UID_RATE,
    UID_BURST,
    UID_LATE,
    UID_POLICIES,
    UID_RATE,
)
from mptcpd_dbus.bus.peers import Peer, Peers
from mptcpd_dbus.bus.polkit import Polkit
from mptcpd_dbus.bus.programs import Programs
from mptcpd_dbus.bus.transport import Transport
from mptcpd_dbus.core.errors import LimitReached
from tests.bus.conftest import until
from tests.bus.fake_policies import FakePolicies
from tests.contract import REPOSITORY

USER = 1000


class Door:
    """A doorkeeper to whom calls come by hand, and what it let in."""

    def __init__(self, transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
        self.peers = Peers(transport)
        self.peers.on_call = self._on_call
        self.transport = transport
        self.let_in: list[Peer] = []
        self.uid: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        monkeypatch.setattr(transport, "call", self._ask)

    def _on_call(self, _: Incoming, peer: Peer) -> None:
        self.let_in.append(peer)

    async def _ask(self, *_: object, **__: object) -> list[int]:
        return await asyncio.shield(self.uid)

    def come(self, name: str, count: int) -> None:
        """Have calls come of a name, which wants no answer."""
        for serial in range(count):
            call = Incoming(Head(CALL, NO_REPLY, serial + 1, "<", 16, 16, 16))
            call.sender = name
            self.peers.receive(call)

    async def known(self, uid: int = USER) -> None:
        """Have the bus tell whose all names are."""
        self.uid.set_result([uid])
        await until(lambda: not self.peers._lookups)  # noqa: SLF001  nothing tells of it

    def all(self) -> list[Peer]:
        """Give what is remembered of callers."""
        return list(self.peers._peers.values())  # noqa: SLF001  it is what is bounded


@pytest.fixture
async def door(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    door = Door(transport, monkeypatch)
    yield door
    door.peers.stop()


async def test_calls_of_whom_the_bus_has_not_told_yet_wait_in_bounds(door: Door) -> None:
    names = [f":1.{number}" for number in range(2 * BACKLOG // NAME_BACKLOG)]
    for name in names:
        door.come(name, 2 * NAME_BACKLOG)

    waiting = [len(peer.waiting) for peer in door.all()]
    assert (max(waiting), sum(waiting)) == (NAME_BACKLOG, BACKLOG)
    assert door.peers.refused == 2 * NAME_BACKLOG * len(names) - BACKLOG
    await door.known()
    assert len(door.let_in) == BACKLOG


async def test_calls_above_the_rate_wait_in_bounds(door: Door) -> None:
    names = [f":1.{number}" for number in range(2 * UID_LATE // NAME_LATE)]
    for name in names:
        door.come(name, 1)
    await door.known()

    for name in names:
        door.come(name, NAME_BURST)

    late = [len(peer.late) for peer in door.all()]
    assert (max(late), sum(late)) == (NAME_LATE, UID_LATE)
    assert UID_BURST <= len(door.let_in) < 1.2 * UID_BURST


@pytest.mark.parametrize(
    ("uid", "rates", "bursts"),
    [
        (USER, (NAME_RATE, UID_RATE), (NAME_BURST, UID_BURST)),
        (0, (TRUSTED_NAME_RATE, TRUSTED_UID_RATE), (TRUSTED_NAME_BURST, TRUSTED_UID_BURST)),
    ],
)
async def test_root_has_wider_bounds_and_has_bounds(
    door: Door, uid: int, rates: tuple[int, int], bursts: tuple[int, int]
) -> None:
    names = [f":1.{number}" for number in range(bursts[1] // bursts[0] + 1)]
    for name in names:
        door.come(name, 1)
    await door.known(uid)

    began = time.monotonic()
    for name in names:
        door.come(name, 2 * bursts[0])
    most = [b + r * (time.monotonic() - began) + 2 for b, r in zip(bursts, rates, strict=True)]
    each = [door.let_in.count(peer) for peer in door.all()]

    assert bursts[0] <= max(each) <= most[0]
    assert bursts[1] <= sum(each) <= most[1]


async def test_who_was_refused_is_refused_unseen_for_a_moment(door: Door) -> None:
    door.come(":1.1", NAME_BACKLOG + 1)
    assert list(door.transport.muted) == [b":1.1"]
    began = time.monotonic()
    await until(lambda: not door.transport.muted)
    assert time.monotonic() - began > MUTED_SECONDS / 2


async def test_large_answers_have_a_budget_of_bytes_for_each_user(door: Door) -> None:
    """Another name of the same user has the same one; root has what it wants."""
    door.come(":1.1", 1)
    door.come(":1.2", 1)
    await door.known()
    one, other = door.let_in

    assert [door.peers.affords(one, LARGE_BURST // 4) for _ in range(5)] == [True] * 4 + [False]
    assert not door.peers.affords(other, LARGE_BURST // 4)
    assert one.user is not None
    assert one.user is other.user
    one.user.large.stamp -= 2  # seconds later
    assert door.peers.affords(other, LARGE_RATE)
    assert not door.peers.affords(one, 2 * LARGE_RATE)

    door.uid = asyncio.get_running_loop().create_future()
    door.come(":1.3", 1)
    await door.known(0)
    assert all(door.peers.affords(door.let_in[-1], LARGE_BURST) for _ in range(9))


async def test_a_dialogue_has_an_end(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bound is its own: who is asked may think, but not for ever."""
    allowed = []

    async def never(*words: object, **options: object) -> list[object]:
        if "CheckAuthorization" in words:
            allowed.append(options["timeout"])
            raise TimeoutError
        return [True]

    polkit = Polkit(transport, Peers(transport))
    monkeypatch.setattr(transport, "call", never)
    for interactive in (False, True):
        with pytest.raises(BusError, match=ACCESS_DENIED):
            await polkit.check(Call(":1.1", USER, interactive, "Do"), MANAGE_ENDPOINTS, {})
    assert allowed == [CHECK_SECONDS, DIALOGUE_SECONDS]


async def test_so_many_policies_are_on_the_bus_and_no_more(transport: Transport) -> None:
    """Of so many users that none of them has too many."""
    programs = Programs(transport, Peers(transport), FakePolicies(), lambda _: 0, lambda _: None)

    async def register(number: int) -> None:
        uid = USER + number // UID_POLICIES
        call = Call(transport.unique_name, uid, interactive=False, member="RegisterPolicy")
        await programs.register(call, "/x", f"p{number}", {})

    for number in range(POLICIES):
        await register(number)
    with pytest.raises(LimitReached, match=f"registered {POLICIES} policies already"):
        await register(POLICIES)
    programs.stop()


async def test_the_bus_gets_so_many_signals_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then none, until a second was calm: nobody learns from a part of them."""
    monkeypatch.setattr("mptcpd_dbus.bus.budget._SECOND", 0.1)
    told: list[None] = []
    budget = Budget(10, lambda: told.append(None))

    assert [budget.covers(1) for _ in range(1000)] == [True] * 10 + [False] * 990
    await until(lambda: len(told) == 2)  # of the second that had too many, and of the next
    assert budget.covers(1)
    assert all(Budget(0, lambda: None).covers(1) for _ in range(1000))  # the control


BY_EFFECT = {
    "CALL_DESCRIPTORS": "test_ten_thousand_passed_sockets_leave_none_behind",
    "SLICE_SECONDS": "test_a_large_answer_is_built_without_holding_the_loop",
    "SMALL_BYTES": "test_no_question_brings_more_bytes_than_a_user_may_have",
}


def test_every_bound_is_reached_by_a_test() -> None:
    """By its name, or by what it does."""
    text = (REPOSITORY / "mptcpd_dbus/bus/names.py").read_text()
    lines = re.findall(r"^([A-Z_]+(?:, [A-Z_]+)*) = \d", text, re.MULTILINE)
    bounds = {name for line in lines for name in line.split(", ")}
    tests = "".join(file.read_text() for file in (REPOSITORY / "tests").rglob("test_*.py"))

    assert len(bounds) > 50
    assert {name for name in bounds if not re.search(rf"\b{name}\b", tests)} == set()
    assert all(f"def {test}(" in tests for test in BY_EFFECT.values())

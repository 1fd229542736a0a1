"""The doorkeeper: who is let in, how often, and what is remembered of whom."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import AsyncIterator

import pytest

from mptcpd_dbus.bus import message
from mptcpd_dbus.bus import peers as peers_module
from mptcpd_dbus.bus.error_names import LIMITS_EXCEEDED, BusError
from mptcpd_dbus.bus.message import NO_REPLY, Incoming
from mptcpd_dbus.bus.names import (
    BYTES_PER_TOKEN,
    NAME_BURST,
    NAME_CALLS,
    NAME_LATE,
    NAME_RATE,
    SECONDS_PER_TOKEN,
    TRUSTED_CALLS,
    UID_BURST,
    UID_CALLS,
)
from mptcpd_dbus.bus.peers import Peer, Peers
from mptcpd_dbus.bus.transport import Transport
from mptcpd_dbus.bus.wire import encode
from tests.bus.conftest import until

NOBODY = 65534


class Door:
    """Peers, what they let in, and what the bus says of uids."""

    def __init__(self, transport: Transport) -> None:
        self.peers = Peers(transport)
        self.peers.on_call = self._on_call
        self.transport = transport
        self.let_in: list[tuple[Incoming, Peer]] = []

    def _on_call(self, call: Incoming, peer: Peer) -> None:
        self.let_in.append((call, peer))
        self.transport.reply(call, "", b"")


@pytest.fixture
async def door(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    """Take every caller for nobody: these tests run as root, which has wider bounds."""
    door = Door(transport)
    as_it_is = transport.call

    async def call(*words: object, **options: object) -> list[object]:
        answer = await as_it_is(*words, **options)  # type: ignore[arg-type]  # passed on
        return [NOBODY] if "GetConnectionUnixUser" in words else answer

    monkeypatch.setattr(transport, "call", call)
    yield door
    door.peers.stop()


@pytest.fixture
async def caller(bus_address: str) -> AsyncIterator[Transport]:
    caller = Transport(bus_address)
    await caller.connect()
    yield caller
    caller.disconnect()


async def ping(caller: Transport, door: Door) -> str:
    """Call once, and return the name of the error, if any."""
    try:
        await caller.call(door.transport.unique_name, "/", "org.example.Test", "Ping")
    except BusError as error:
        return error.name
    return ""


async def test_calls_are_let_in_in_their_order_once_the_uid_is_known(
    door: Door, caller: Transport
) -> None:
    answers = await asyncio.gather(*(ping(caller, door) for _ in range(20)))

    serials = [call.serial for call, _ in door.let_in]
    assert answers == [""] * 20
    assert serials == sorted(serials)
    assert {peer.uid for _, peer in door.let_in} == {NOBODY}


async def test_who_calls_too_often_is_refused_and_then_let_in_again(
    door: Door, caller: Transport
) -> None:
    await ping(caller, door)
    for _ in range(NAME_BURST * 2):
        await caller.call(
            door.transport.unique_name, "/", "org.example.Test", "Ping", flags=NO_REPLY
        )

    answers = await asyncio.gather(*(ping(caller, door) for _ in range(NAME_LATE * 4)))

    assert LIMITS_EXCEEDED in answers
    assert NAME_BURST <= len(door.let_in) < NAME_BURST * 1.5
    assert door.peers.refused > NAME_BURST / 2
    async with asyncio.timeout(1):  # what came late goes first
        while await ping(caller, door):
            pass


async def test_who_calls_one_after_the_other_is_only_slowed_down(
    door: Door, caller: Transport
) -> None:
    """A tree of thousands of objects is read by thousands of calls, each after the last."""
    await ping(caller, door)
    loop = asyncio.get_running_loop()
    began = loop.time()

    answers = [await ping(caller, door) for _ in range(NAME_BURST + NAME_RATE // 4)]

    assert set(answers) == {""}
    assert loop.time() - began > 0.2


async def test_who_goes_on_after_many_refusals_is_not_answered_any_more(
    door: Door, caller: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers to refused calls would feed a flood; a pause brings them back."""
    monkeypatch.setattr(peers_module, "REFUSAL_BURST", 10)
    monkeypatch.setattr(peers_module, "REFUSAL_RATE", 1)
    await ping(caller, door)
    door.peers.charge(door.let_in[0][1], BYTES_PER_TOKEN * NAME_BURST * 10)

    late = [asyncio.ensure_future(ping(caller, door)) for _ in range(NAME_LATE)]
    await until(lambda: len(door.let_in[0][1].late) == NAME_LATE)
    answers = [await ping(caller, door) for _ in range(10)]
    silent = asyncio.ensure_future(ping(caller, door))
    await until(lambda: door.peers.refused == 11)

    assert answers == [LIMITS_EXCEEDED] * 10
    before = door.transport.ignored
    await caller.call(door.transport.unique_name, "/", "org.example.Test", "Ping", flags=NO_REPLY)
    await until(lambda: door.transport.ignored == before + 1)
    for unanswered in (silent, *late):
        assert not unanswered.done()
        unanswered.cancel()
    await until(lambda: not door.transport.muted)


@pytest.mark.parametrize(
    "cost", [(BYTES_PER_TOKEN, 0.0), (0, SECONDS_PER_TOKEN)], ids=["large", "long"]
)
async def test_a_dear_answer_costs_what_many_small_ones_cost(
    door: Door, caller: Transport, cost: tuple[int, float]
) -> None:
    """Who has used up more than there was waits for the next call; the control has not."""
    await ping(caller, door)
    peer = door.let_in[0][1]
    loop = asyncio.get_running_loop()
    waits = []
    for tokens in (0.9, NAME_BURST + NAME_RATE * 0.4):
        size, seconds = cost
        door.peers.charge(peer, int(size * tokens), seconds * tokens)
        began = loop.time()
        assert await ping(caller, door) == ""
        waits.append(loop.time() - began)

    assert waits[0] < 0.2 < waits[1]


async def test_calls_at_work_are_bounded_per_name_and_per_user(
    door: Door, bus_address: str
) -> None:
    callers = [Transport(bus_address) for _ in range(UID_CALLS // NAME_CALLS + 1)]
    for caller in callers:
        await caller.connect()
        assert await ping(caller, door) == ""
    peers = [peer for _, peer in door.let_in]

    begun = [sum(door.peers.begin(peer) for _ in range(NAME_CALLS + 1)) for peer in peers]

    assert begun == [NAME_CALLS] * (UID_CALLS // NAME_CALLS) + [0]
    door.peers.end(peers[0])
    assert door.peers.begin(peers[-1])
    assert not any(door.peers.begin(peer) for peer in peers)
    for caller in callers:
        caller.disconnect()


async def test_what_is_remembered_is_bounded_but_no_call_at_work_is_forgotten(
    door: Door, bus_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "PEERS", 3)
    callers = [Transport(bus_address) for _ in range(8)]
    for caller in callers:
        await caller.connect()
    assert await ping(callers[0], door) == ""
    busy = door.let_in[0][1]
    assert door.peers.begin(busy)

    for caller in callers[1:]:
        assert await ping(caller, door) == ""
    assert await ping(callers[0], door) == ""

    assert door.let_in[-1][1] is busy
    assert len(door.peers._peers) == 3  # noqa: SLF001  the table is what is bounded
    for caller in callers:
        caller.disconnect()


async def test_a_watch_tells_of_who_leaves_and_of_who_has_left(
    door: Door, caller: Transport
) -> None:
    told: list[str] = []

    def first() -> None:
        told.append("first")

    def second() -> None:
        told.append("second")

    await door.peers.watch(caller.unique_name, first)
    await door.peers.watch(caller.unique_name, second)
    await door.peers.unwatch(caller.unique_name, first)
    assert not told
    caller.disconnect()
    await until(lambda: bool(told))
    await door.peers.watch(caller.unique_name, first)

    assert told == ["second", "first"]
    await door.peers.unwatch(caller.unique_name, first)
    await door.peers.unwatch(caller.unique_name, second)


async def test_a_signal_that_says_somebody_left_is_believed_only_of_the_bus(
    door: Door, caller: Transport, transport: Transport, bus_address: str
) -> None:
    told: list[str] = []
    await door.peers.watch(caller.unique_name, lambda: told.append("gone"))
    forged = Transport(bus_address)
    await forged.connect()

    forged.send(_owner_changed(forged, transport.unique_name, caller))
    assert await ping(forged, door) == ""  # so it has arrived

    assert not told
    forged.disconnect()


def _owner_changed(forged: Transport, to: str, caller: Transport) -> bytearray:
    data = message.header(
        message.SIGNAL,
        [
            (message.PATH, "/org/freedesktop/DBus"),
            (message.INTERFACE, "org.freedesktop.DBus"),
            (message.MEMBER, "NameOwnerChanged"),
            (message.DESTINATION, to),
            (message.SIGNATURE, "sss"),
        ],
    )
    body_at = len(data)
    encode("sss")(data, (caller.unique_name, caller.unique_name, ""))
    return message.finish(data, body_at, forged.next_serial())


async def test_who_is_trusted_has_wide_bounds_and_no_longer_than_that(
    door: Door, caller: Transport, bus_address: str
) -> None:
    """So has its user, as long as one of its programs is trusted."""
    other = Transport(bus_address)
    await other.connect()
    for each in (caller, other):
        await ping(each, door)
    peer = door.let_in[0][1]
    user = peer.user
    assert user is not None

    def at_work() -> int:
        count = 0
        while door.peers.begin(peer):
            count += 1
        for _ in range(count):
            door.peers.end(peer)
        return count

    assert at_work() == NAME_CALLS
    for each in (caller, other):
        door.peers.trust(each.unique_name)
    assert at_work() == TRUSTED_CALLS
    door.peers.distrust(caller.unique_name)
    assert (at_work(), user.calls) == (NAME_CALLS, TRUSTED_CALLS)
    door.peers.distrust(other.unique_name)
    assert (user.calls, user.bucket.burst) == (UID_CALLS, UID_BURST)
    other.disconnect()

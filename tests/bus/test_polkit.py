"""What is asked of polkit, and what is made of its answers; a stand-in answers, and can be slow."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import AsyncIterator

import pytest
from dbus_next import Message, MessageType, NameFlag
from dbus_next.aio import MessageBus

from mptcpd_dbus.bus import polkit as polkit_module
from mptcpd_dbus.bus.error_names import (
    ACCESS_DENIED,
    INTERACTIVE_AUTHORIZATION_REQUIRED,
    LIMITS_EXCEEDED,
    BusError,
)
from mptcpd_dbus.bus.interface import Call
from mptcpd_dbus.bus.names import (
    CHECKS,
    CONTROL_OWN_CONNECTIONS,
    DIALOGUES,
    MANAGE_ENDPOINTS,
    UID_CHECKS,
    UID_DIALOGUES,
)
from mptcpd_dbus.bus.peers import Peers
from mptcpd_dbus.bus.polkit import Polkit
from mptcpd_dbus.bus.transport import Transport
from tests.bus.conftest import until

AUTHORITY = "org.freedesktop.PolicyKit1"
YES, NO, CHALLENGE = [True, False, {}], [False, False, {}], [False, True, {}]


class Authority:
    """A stand-in for polkitd: answers as told, or keeps silent."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self.answer: list[object] | None = YES
        self.error = ""
        self.asked: list[list[object]] = []
        self.cancelled: list[object] = []
        bus.add_message_handler(self._handle)

    async def start(self) -> None:
        """Be polkit on this bus."""
        await self._bus.request_name(AUTHORITY, NameFlag.DO_NOT_QUEUE)

    def _handle(self, sent: Message) -> Message | bool | None:
        if sent.message_type is not MessageType.METHOD_CALL or sent.interface is None:
            return None
        if sent.member == "CancelCheckAuthorization":
            self.cancelled += sent.body
            return True
        self.asked.append(sent.body)
        if self.error:
            return Message.new_error(sent, self.error, "said the stand-in")
        if self.answer is None:
            return True
        return Message.new_method_return(sent, "(bba{ss})", [self.answer])


@pytest.fixture
async def authority(client: MessageBus) -> Authority:
    authority = Authority(client)
    await authority.start()
    return authority


@pytest.fixture
def polkit(transport: Transport) -> Polkit:
    return Polkit(transport, Peers(transport))


@pytest.fixture
async def caller(bus_address: str) -> AsyncIterator[Transport]:
    caller = Transport(bus_address)
    await caller.connect()
    yield caller
    caller.disconnect()


def call_of(caller: Transport, uid: int = 1000, *, interactive: bool = False) -> Call:
    return Call(caller.unique_name, uid, interactive, "AddEndpoint")


async def verdict(polkit: Polkit, call: Call) -> str:
    """Return the name of the error, or "yes"."""
    try:
        await polkit.check(call, MANAGE_ENDPOINTS, {"address": "192.0.2.1"})
    except BusError as error:
        return error.name
    return "yes"


async def test_polkit_is_asked_about_the_name_and_never_a_process(
    polkit: Polkit, authority: Authority, caller: Transport
) -> None:
    assert await verdict(polkit, call_of(caller)) == "yes"
    assert await verdict(polkit, call_of(caller, interactive=True)) == "yes"

    for asked, flags in zip(authority.asked, (0, 1), strict=True):
        subject, action, details, asked_flags, cancellation = asked
        assert isinstance(subject, list)
        assert subject[0] == "system-bus-name"
        assert {key: value.value for key, value in subject[1].items()} == {
            "name": caller.unique_name
        }
        assert (action, details) == (MANAGE_ENDPOINTS, {"address": "192.0.2.1"})
        assert asked_flags == flags
        assert cancellation
    assert authority.asked[0][4] != authority.asked[1][4]


async def test_what_may_go_without_polkit_goes_only_where_there_is_none(
    polkit: Polkit, client: MessageBus, caller: Transport
) -> None:
    """One that fails is there, whatever it calls its error."""
    call = call_of(caller)
    await polkit.check(call, CONTROL_OWN_CONNECTIONS, {}, without=True)
    assert await verdict(polkit, call) == ACCESS_DENIED

    authority = Authority(client)
    await authority.start()
    authority.error = "org.freedesktop.DBus.Error.ServiceUnknown"
    with pytest.raises(BusError, match="polkit cannot be asked"):
        await polkit.check(call, CONTROL_OWN_CONNECTIONS, {}, without=True)
    authority.error, authority.answer = "", NO
    with pytest.raises(BusError, match="not authorised"):
        await polkit.check(call, CONTROL_OWN_CONNECTIONS, {}, without=True)


async def test_uid_0_and_our_own_uid_need_no_polkit(
    polkit: Polkit, authority: Authority, caller: Transport
) -> None:
    authority.answer = NO

    assert await verdict(polkit, call_of(caller, 0)) == "yes"
    assert await verdict(polkit, call_of(caller, 1000)) == ACCESS_DENIED
    assert len(authority.asked) == 1


@pytest.mark.parametrize(
    ("answer", "interactive", "expected"),
    [
        (YES, False, "yes"),
        (NO, False, ACCESS_DENIED),
        (NO, True, ACCESS_DENIED),
        (CHALLENGE, False, INTERACTIVE_AUTHORIZATION_REQUIRED),
        (CHALLENGE, True, ACCESS_DENIED),
    ],
)
async def test_every_answer_but_yes_is_no(
    polkit: Polkit,
    authority: Authority,
    caller: Transport,
    *,
    answer: list[object],
    interactive: bool,
    expected: str,
) -> None:
    authority.answer = answer

    assert await verdict(polkit, call_of(caller, interactive=interactive)) == expected


async def test_without_polkit_nobody_may_and_it_is_said_once(
    polkit: Polkit, caller: Transport, client: MessageBus, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert await verdict(polkit, call_of(caller)) == ACCESS_DENIED
    assert len([r for r in caplog.records if "polkit cannot be asked" in r.message]) == 1

    authority = Authority(client)
    await authority.start()
    assert await verdict(polkit, call_of(caller)) == "yes"
    authority.error = "org.freedesktop.PolicyKit1.Error.Failed"
    assert await verdict(polkit, call_of(caller)) == ACCESS_DENIED
    assert len([r for r in caplog.records if "polkit cannot be asked" in r.message]) == 2


async def test_an_answer_of_another_form_is_no(
    polkit: Polkit, client: MessageBus, caller: Transport
) -> None:
    client.add_message_handler(
        lambda sent: (
            Message.new_method_return(sent, "s", ["yes"])
            if sent.member == "CheckAuthorization"
            else None
        )
    )
    await client.request_name(AUTHORITY)

    assert await verdict(polkit, call_of(caller)) == ACCESS_DENIED


async def test_a_question_is_taken_back_when_the_caller_leaves(
    polkit: Polkit, authority: Authority, caller: Transport
) -> None:
    authority.answer = None
    asking = asyncio.ensure_future(verdict(polkit, call_of(caller, interactive=True)))
    await until(lambda: bool(authority.asked))
    assert not authority.cancelled

    caller.disconnect()

    assert await asyncio.wait_for(asking, 5) == ACCESS_DENIED
    await until(lambda: bool(authority.cancelled))
    assert authority.cancelled == [authority.asked[0][4]]


async def test_polkit_is_not_asked_for_a_caller_that_has_left(
    polkit: Polkit, authority: Authority, caller: Transport, bus_address: str
) -> None:
    watcher = Transport(bus_address)
    await watcher.connect()
    gone: list[str] = []
    peers = Peers(watcher)
    await peers.watch(caller.unique_name, lambda: gone.append(caller.unique_name))
    assert not gone
    caller.disconnect()
    await until(lambda: bool(gone))

    assert await verdict(polkit, call_of(caller)) == ACCESS_DENIED
    assert not authority.asked
    watcher.disconnect()


async def test_a_question_is_taken_back_when_it_takes_too_long_or_we_stop(
    polkit: Polkit, authority: Authority, caller: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.answer = None
    monkeypatch.setattr(polkit_module, "CHECK_SECONDS", 0.05)

    assert await verdict(polkit, call_of(caller)) == ACCESS_DENIED
    await until(lambda: len(authority.cancelled) == 1)
    asking = asyncio.ensure_future(verdict(polkit, call_of(caller, interactive=True)))
    await until(lambda: len(authority.asked) == 2)
    asking.cancel()
    await until(lambda: len(authority.cancelled) == 2)

    with pytest.raises(asyncio.CancelledError):
        await asking
    assert authority.cancelled == [asked[4] for asked in authority.asked]


@pytest.mark.parametrize(
    ("interactive", "per_uid", "in_all"),
    [(True, UID_DIALOGUES, DIALOGUES), (False, UID_CHECKS, CHECKS)],
)
async def test_parked_questions_are_bounded_per_user_and_in_all(
    polkit: Polkit,
    authority: Authority,
    caller: Transport,
    transport: Transport,
    *,
    interactive: bool,
    per_uid: int,
    in_all: int,
) -> None:
    authority.answer = None
    users = in_all // per_uid
    parked = [
        asyncio.ensure_future(verdict(polkit, call_of(caller, uid, interactive=interactive)))
        for uid in range(1000, 1000 + users)
        for _ in range(per_uid)
    ]
    await until(lambda: len(authority.asked) == in_all)

    same_user = await verdict(polkit, call_of(caller, 1000, interactive=interactive))
    another = await verdict(polkit, call_of(caller, 5000, interactive=interactive))
    caller.disconnect()
    ended = await asyncio.wait_for(asyncio.gather(*parked), 10)

    assert (same_user, another) == (LIMITS_EXCEEDED, LIMITS_EXCEEDED)
    authority.answer = YES
    again = await verdict(polkit, call_of(transport, 1000, interactive=interactive))

    assert set(ended) == {ACCESS_DENIED}
    assert again == "yes"
    assert len(authority.asked) == in_all + 1


async def test_dialogues_leave_room_for_other_checks(
    polkit: Polkit, authority: Authority, caller: Transport, bus_address: str
) -> None:
    authority.answer = None
    parked = [
        asyncio.ensure_future(verdict(polkit, call_of(caller, uid, interactive=True)))
        for uid in range(1000, 1000 + DIALOGUES // UID_DIALOGUES)
        for _ in range(UID_DIALOGUES)
    ]
    await until(lambda: len(authority.asked) == DIALOGUES)
    authority.answer = YES
    other = Transport(bus_address)
    await other.connect()

    assert await verdict(polkit, call_of(other)) == "yes"

    other.disconnect()
    caller.disconnect()
    await asyncio.wait_for(asyncio.gather(*parked), 10)

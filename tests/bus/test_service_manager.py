"""Whether we come back, with a stand-in for systemd that may answer anything, or nothing."""
# SPDX-License-Identifier: BSD-3-Clause

import pytest
from dbus_next import Message, MessageType, Variant
from dbus_next.aio import MessageBus

from mptcpd_dbus.bus import service_manager
from mptcpd_dbus.bus.service_manager import comes_back
from mptcpd_dbus.bus.transport import Transport

Answers = dict[str, tuple[str, object] | None]
UNIT, NO_JOB, JOB = ("o", "/unit"), ("(uo)", [0, "/"]), ("(uo)", [7, "/job"])


async def _answer(client: MessageBus, answers: Answers) -> None:
    def handle(message: Message) -> Message | bool | None:
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        member = message.body[1] if message.member == "Get" else message.member
        answer = answers.get(member)
        if answer is None:
            return True
        signature, value = answer
        if message.member == "Get":
            signature, value = "v", Variant(signature, value)
        return Message.new_method_return(message, signature, [value])

    client.add_message_handler(handle)
    await client.request_name("org.freedesktop.systemd1")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"GetUnitByPID": UNIT, "Job": JOB, "JobType": ("s", "restart")}, True),
        ({"GetUnitByPID": UNIT, "Job": JOB, "JobType": ("s", "stop")}, False),
        ({"GetUnitByPID": UNIT, "Job": JOB, "JobType": ("u", 1)}, False),
        ({"GetUnitByPID": UNIT, "Job": NO_JOB, "JobType": ("s", "restart")}, False),
        ({"GetUnitByPID": UNIT, "Job": ("s", "restart")}, False),
        ({"GetUnitByPID": UNIT, "Job": ("(us)", [7, "no path"])}, False),
        ({"GetUnitByPID": ("u", 1)}, False),
        ({"GetUnitByPID": UNIT}, False),
        ({}, False),
    ],
    ids=str,
)
async def test_only_the_job_of_a_restart_says_that_we_come_back(
    transport: Transport,
    client: MessageBus,
    monkeypatch: pytest.MonkeyPatch,
    answers: Answers,
    expected: bool,
) -> None:
    monkeypatch.setattr(service_manager, "ANSWER_SECONDS", 2.0 if expected else 0.2)
    await _answer(client, answers)

    assert await comes_back(transport) is expected


async def test_without_one_we_do_not(transport: Transport) -> None:
    assert not await comes_back(transport)
    transport.disconnect()
    assert not await comes_back(transport)

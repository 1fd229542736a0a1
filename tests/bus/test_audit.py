"""Lines about commands: nobody fills the log with them, and what is missing is counted."""
# SPDX-License-Identifier: BSD-3-Clause

import logging

import pytest

from mptcpd_dbus.bus.audit import Audit
from mptcpd_dbus.bus.interface import Call, Interface, Method, args
from mptcpd_dbus.bus.names import AUDIT_LINES, AUDIT_USERS, MANAGE_ENDPOINTS, MANAGER, ROOT
from mptcpd_dbus.bus.published import Published
from tests.lab.wait import eventually


async def _nothing(*_: object) -> None:
    raise AssertionError


_METHOD = Method("Do", args("s it"), (), _nothing, "Does it.", MANAGE_ENDPOINTS)
_THING = Published(ROOT, object(), [Interface(MANAGER, "Does.", methods=(_METHOD,))])


def _note(audit: Audit, uid: int, argument: str = "", *, own: bool = False) -> None:
    call = Call(":1.7", uid, interactive=False, member="Do", arguments=(argument,))
    audit.note(call, _THING, _THING.interfaces[0].methods["Do"], "ok", own=own)


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


async def test_a_flood_of_one_user_ends_in_a_count_and_hides_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    audit = Audit()

    for _ in range(1000):
        _note(audit, 1000)
    _note(audit, 1001)
    _note(audit, 0)
    audit.stop()

    said = caplog.messages
    assert len([line for line in said if line.startswith("user 1000 (:1.7): ")]) == AUDIT_LINES
    assert len([line for line in said if line.startswith(("user 1001 (", "user 0 ("))]) == 2
    assert said[-1] == f"user 1000: {1000 - AUDIT_LINES} more commands are not in the log"
    assert len(said) == AUDIT_LINES + 3


async def test_who_was_counted_is_heard_again_after_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mptcpd_dbus.bus.audit.AUDIT_SECONDS", 0.1)
    audit = Audit()
    for _ in range(AUDIT_LINES + 1):
        _note(audit, 1000)

    await eventually(lambda: "user 1000: 1 more commands are not in the log" in caplog.messages)
    caplog.clear()
    _note(audit, 1000)

    assert len(caplog.messages) == 1


async def test_one_person_with_many_uids_has_a_bound_too(caplog: pytest.LogCaptureFixture) -> None:
    audit = Audit()
    uids = range(100_000, 102_000)

    for uid in uids:
        _note(audit, uid)
    _note(audit, 0)
    audit.stop()

    written = AUDIT_USERS + AUDIT_LINES
    *lines, root, count = caplog.messages
    assert len(lines) == written
    assert root.startswith("user 0 (")
    assert count == f"other users: {len(uids) - written} more commands are not in the log"


async def test_daily_work_is_told_when_debugging_and_not_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    audit = Audit()
    for _ in range(1000):
        _note(audit, 1000, own=True)
    assert caplog.messages == []

    caplog.set_level(logging.DEBUG)
    _note(audit, 1000, own=True)
    _note(audit, 1000)

    assert [record.levelname for record in caplog.records] == ["DEBUG", "INFO"]


async def test_foreign_text_stays_on_its_line_and_is_shortened(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _note(Audit(), 1000, "\n\x1b[31mERROR: " + "x" * 60_000)

    (line,) = caplog.messages
    assert line.isprintable()
    assert r"org.mptcpd1.Manager.Do('\n\x1b[31mERROR: xxx" in line
    assert len(line) < 300

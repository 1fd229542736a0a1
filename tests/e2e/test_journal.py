"""What the journal gets: a line for each command with who, what and how it went, and not much else.

The lab's bus stands where the journal listens; see `tests/lab/bus.py`.
"""
# SPDX-License-Identifier: BSD-3-Clause

import pwd

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import CONNECTION, MANAGER
from tests.lab.bus import PrivateBus
from tests.lab.client import BUS, NAME, ROOT, BusClient, BusError
from tests.lab.wait import eventually

ERROR = f"{BUS}.Error."
JOURNAL = ("--log", "journal")


def _lines(bus: PrivateBus, **fields: str) -> list[dict[str, str]]:
    """Give the daemon's entries that have these fields, `MPTCP_` and what is named."""
    wanted = {"SYSLOG_IDENTIFIER": "mptcpd-dbus"}
    wanted |= {f"MPTCP_{name.upper()}": value for name, value in fields.items()}
    return [entry for entry in list(bus.entries) if wanted.items() <= entry.items()]


async def _audited(bus: PrivateBus, **fields: str) -> dict[str, str]:
    """Give the one line about a command that has these fields."""

    def told() -> list[dict[str, str]]:
        return [line for line in _lines(bus, **fields) if "MPTCP_RESULT" in line]

    await eventually(told)
    (line,) = told()
    return line


async def test_a_command_is_a_line_with_who_what_and_how_it_went(
    stage: MakeStage, bus: PrivateBus
) -> None:
    play = await stage(*JOURNAL)
    pair, path = await play.connection(await play.listener())

    await play.create_subflow(path, LocalAddress="10.0.2.1")

    line = await _audited(bus, token=f"{pair.token:08x}")
    method = f"{CONNECTION}.CreateSubflow"
    text = f"{method}('', 0, {{'LocalAddress': '10.0.2.1'}}) on {path} ({pair.token:08x}): ok"
    assert line["MESSAGE"] == f"user 0 ({play.viewer.name}): {text}"
    assert line["PRIORITY"] == "6"
    assert {name: value for name, value in line.items() if name.startswith("MPTCP_")} == {
        "MPTCP_TOKEN": f"{pair.token:08x}",
        "MPTCP_OBJECT": path,
        "MPTCP_SENDER": play.viewer.name,
        "MPTCP_UID": "0",
        "MPTCP_METHOD": method,
        "MPTCP_RESULT": "ok",
    }
    assert line["CODE_FILE"].endswith("/audit.py")


async def test_what_the_kernel_refuses_is_a_line_with_the_error(
    stage: MakeStage, bus: PrivateBus
) -> None:
    play = await stage(*JOURNAL)
    _, path = await play.connection(await play.listener())

    with pytest.raises(BusError, match="NoSuchAddress"):
        await play.command(path, CONNECTION, "RemoveAddress", "ya{sv}", 77, {})

    line = await _audited(bus, method=f"{CONNECTION}.RemoveAddress")
    assert line["MPTCP_RESULT"] == f"{NAME}.Error.NoSuchAddress"
    assert f": {NAME}.Error.NoSuchAddress 'the kernel refused REMOVE: EINVAL " in line["MESSAGE"]


@pytest.mark.usefixtures("people")
async def test_what_polkit_refuses_is_a_line_with_the_user_and_what_is_read_is_none(
    stage: MakeStage, bus: PrivateBus
) -> None:
    """Foreign text stays in its field; the same by one who may is the control."""
    await stage(*JOURNAL)
    forged = "10.0.2.1\nMPTCP_UID=0\n"
    uids = {name: str(pwd.getpwnam(name).pw_uid) for name in ("alice", "carol")}

    async with await BusClient.connect("alice") as alice, await BusClient.connect("carol") as carol:
        await alice.call(ROOT, MANAGER, "ListConnections", "a{sv}uu", {}, 0, 0)
        for client in (alice, carol):
            with pytest.raises(BusError):
                await client.call(ROOT, MANAGER, "AddEndpoint", "sasa{sv}", forged, [], {})

    refused = await _audited(bus, uid=uids["alice"])
    assert refused["MPTCP_RESULT"] == f"{ERROR}InteractiveAuthorizationRequired"
    assert refused["MESSAGE"].startswith(f"user {uids['alice']} (:")
    assert r"AddEndpoint('10.0.2.1\nMPTCP_UID=0\n', [], {}) on /org/mptcpd1: " in refused["MESSAGE"]
    wrong = await _audited(bus, uid=uids["carol"])
    assert wrong["MPTCP_RESULT"] == f"{ERROR}InvalidArgs"
    assert _lines(bus, uid="0") == []

"""What the journal gets: a line for each command with who, what and how it went, and not much else.

The lab's bus stands where the journal listens; see `tests/lab/bus.py`.
"""
# SPDX-License-Identifier: BSD-3-Clause

import pwd
from collections.abc import Callable

import pytest
from dbus_next import Variant

from mptcpd_dbus.bus.names import AUDIT_LINES
from tests.e2e.conftest import MakeStage
from tests.e2e.stage import CONNECTION, MANAGER
from tests.lab.bus import JOURNAL as JOURNAL_SOCKET
from tests.lab.bus import PrivateBus
from tests.lab.client import BUS, NAME, ROOT, BusClient, BusError
from tests.lab.daemon import Daemon
from tests.lab.hosts import SERVER
from tests.lab.plugin_files import PluginFiles, shipped_plugins, write_configuration
from tests.lab.sandbox import REPOSITORY
from tests.lab.wait import eventually
from tests.system.product import SYSTEMS, UNIT
from tests.system.service import Service

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


async def test_a_client_that_floods_gets_some_lines_and_a_count(
    stage: MakeStage, bus: PrivateBus
) -> None:
    play = await stage(*JOURNAL)

    for _ in range(AUDIT_LINES + 40):
        with pytest.raises(BusError, match="InvalidArgs"):
            await play.command(ROOT, MANAGER, "SetPathManager", "sa{sv}", "neither", {})
    await play.daemon.stop()

    about_root = _lines(bus, uid="0")
    (count,) = [line for line in about_root if "MPTCP_METHOD" not in line]
    assert count["MESSAGE"] == "user 0: 40 more commands are not in the log"
    assert count["PRIORITY"] == "4"
    assert len(about_root) == AUDIT_LINES + 1


@pytest.mark.parametrize("more", [(), ("--debug",)])
async def test_what_a_policy_does_with_its_own_is_no_line_but_when_debugging(
    stage: MakeStage, bus: PrivateBus, more: tuple[str, ...]
) -> None:
    """The same by somebody else is one."""
    play = await stage(*JOURNAL, *more)
    method = f"{CONNECTION}.CreateSubflow"
    async with await BusClient.connect() as policy:
        policy.serve(lambda *_: None)
        await policy.call(ROOT, MANAGER, "RegisterPolicy", "osa{sv}", "/policy", "lab", {})
        _, path = await play.connection(await play.listener())
        assert await play.viewer.get(path, CONNECTION, "Owner") == "lab"

        join = {"LocalAddress": Variant("s", "10.0.2.1")}
        await policy.call(path, CONNECTION, "CreateSubflow", "sqa{sv}", "", 0, join)
        await play.create_subflow(path, LocalAddress="10.0.3.1")

    assert (await _audited(bus, sender=play.viewer.name))["MPTCP_METHOD"] == method
    registered, *own = (line for line in _lines(bus, sender=policy.name) if "MPTCP_RESULT" in line)
    assert registered["MPTCP_METHOD"] == f"{MANAGER}.RegisterPolicy"
    assert [(line["MPTCP_METHOD"], line["PRIORITY"]) for line in own] == [(method, "7")] * len(more)


TALKER = """
    from mptcpd_dbus.plugin import Plugin

    class Talker(Plugin):
        async def new_connection(self, connection):
            self.log.warning("hello\\nMPTCP_UID=0")

        async def connection_established(self, connection):
            raise ValueError(connection.remote_address)

        async def update_interface(self, interface):
            self.log.info("news of it")
"""


async def test_what_plugins_say_is_found_by_plugin_connection_and_handler(
    stage: MakeStage, bus: PrivateBus
) -> None:
    files = PluginFiles()
    files.write("talker", TALKER)
    play = await stage(*JOURNAL, "--plugin-dir", str(files.path))

    pair, _ = await play.connection(await play.listener())
    play.lab.cut(2)
    about = {"plugin": "talker", "token": f"{pair.token:08x}"}

    def told(**fields: str) -> dict[str, str]:
        lines = _lines(bus, **fields)
        assert lines, fields
        return lines[0]

    hello = await eventually(lambda: told(event="new_connection", **about))
    assert (hello["MESSAGE"], hello["PRIORITY"]) == ("plugin talker: hello\nMPTCP_UID=0", "4")
    failed = await eventually(lambda: told(event="connection_established", **about))
    assert failed["MESSAGE"].endswith(f"\nValueError: {SERVER[4]}")
    assert failed["PRIORITY"] == "3"
    link = await eventually(lambda: told(event="update_interface", interface="link2"))
    assert link["MESSAGE"] == "plugin talker: news of it"
    assert _lines(bus, uid="0") == []


async def test_when_debugging_each_event_is_found_by_its_connection(
    stage: MakeStage, bus: PrivateBus
) -> None:
    play = await stage(*JOURNAL, "--debug")
    listener = await play.listener()
    pair, _ = await play.connection(listener)
    other, path = await play.connection(listener)
    await play.create_subflow(path, LocalAddress="10.0.2.1")
    play.lab.cut(2)

    await eventually(lambda: _lines(bus, event="UpdateInterface", interface="link2"))

    def events(token: int | None) -> list[str]:
        lines = _lines(bus, token=f"{token:08x}")
        return [line["MPTCP_EVENT"] for line in lines if "MPTCP_EVENT" in line]

    assert events(pair.token) == ["NewConnection", "ConnectionEstablished"]
    assert events(other.token) == ["NewConnection", "ConnectionEstablished", "NewSubflow"]


@pytest.mark.parametrize("more", [(), ("--debug",)])
@pytest.mark.parametrize(
    ("path_manager", "plugin"), [("kernel", "addr_adv"), ("userspace", "fullmesh")]
)
async def test_a_day_with_a_hundred_connections_is_a_handful_of_lines(
    stage: MakeStage, bus: PrivateBus, path_manager: str, plugin: str, more: tuple[str, ...]
) -> None:
    """With the configuration that is installed, and with a busy plugin; --debug is the control."""
    shipped = (REPOSITORY / "systemd/mptcpd-dbus.conf").read_text()
    file = write_configuration(shipped.replace("load-plugins=addr_adv", f"load-plugins={plugin}"))
    arguments = ("--config", str(file), "--plugin-dir", str(shipped_plugins()))
    play = await stage(*JOURNAL, *arguments, *more, path_manager=path_manager)

    await play.many(await play.listener(), 100)
    for app in (play.client, play.server):
        await app.call("close_all")

    async def none_left() -> bool:
        return not await play.tokens_shown()

    await eventually(none_left, within=20)
    counters = await play.viewer.call(ROOT, MANAGER, "GetStatistics")
    assert counters["connections_seen"] == 100
    assert await play.daemon.stop() == 0

    # An ordinary user's sandbox may not ask for the large buffer, which is a line.
    lines = [line for line in _lines(bus) if "receive buffer" not in line["MESSAGE"]]
    if more:
        assert len(lines) > 300
        assert len({line.get("MPTCP_TOKEN") for line in lines}) > 100
        return
    messages = [line["MESSAGE"] for line in lines]
    assert messages[0] == f"plugin {plugin} runs"
    assert messages[-1].startswith("stopped (SIGTERM); ")
    assert len(messages) <= 4, messages
    assert {line["PRIORITY"] for line in lines} == {"6"}


async def test_stderr_that_is_the_journal_gets_fields_and_any_other_gets_text(
    daemon: Callable[..., Daemon], bus: PrivateBus
) -> None:
    it = daemon()
    stream = it.log.stat()

    for inode, to_journal in ((stream.st_ino, True), (stream.st_ino + 1, False)):
        bus.entries.clear()
        await it.start(environment={"JOURNAL_STREAM": f"{stream.st_dev}:{inode}"})
        assert await it.stop() == 0
        text = it.log.read_text()
        assert bool(_lines(bus)) == to_journal == ("INFO: mptcpd-dbus" not in text)


async def test_stderr_is_enough_where_the_journal_cannot_be_reached(
    daemon: Callable[..., Daemon], bus: PrivateBus
) -> None:
    it = daemon()
    stream = it.log.stat()
    JOURNAL_SOCKET.unlink()

    await it.start(environment={"JOURNAL_STREAM": f"{stream.st_dev}:{stream.st_ino}"})
    assert await it.stop() == 0

    assert "INFO: mptcpd-dbus" in it.log.read_text()
    assert _lines(bus) == []


@pytest.mark.booted
@pytest.mark.parametrize("booted", SYSTEMS, indirect=True, ids=lambda system: str(system[0]))
async def test_the_installed_service_is_found_by_its_unit_and_its_fields(stage: MakeStage) -> None:
    """What ends it at once, too, by the journal's own means."""
    play = await stage()
    it = play.daemon
    assert isinstance(it, Service)
    pair, path = await play.connection(await play.listener())
    await play.create_subflow(path, LocalAddress="10.0.2.1")

    def told(*match: str) -> list[str]:
        return it.machine.journal("-u", UNIT, "--output=cat", *match).splitlines()

    lines = await eventually(lambda: told(f"MPTCP_TOKEN={pair.token:08x}", "MPTCP_UID=0"))
    assert len(lines) == 1
    assert lines[0].endswith(
        f"CreateSubflow('', 0, {{'LocalAddress': '10.0.2.1'}}) on {path} ({pair.token:08x}): ok"
    )
    assert await it.stop() == 0
    with pytest.raises(RuntimeError):
        await it.start("--plugin-dir=/nowhere")
    await eventually(lambda: any("/nowhere" in line for line in told("PRIORITY=3")))

"""Every method of every kind of object, called with hostile arguments by who may not and who may.

One answer each, an error that `docs/dbus-api.md` knows, in words of our own; an unprivileged caller
changes nothing in the kernel, and nobody brings the daemon out of step with it.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Iterator
from typing import Any

import pytest
from dbus_next import Message, MessageType

from tests import documents, figures
from tests.e2e.conftest import MakeStage
from tests.e2e.hostile_arguments import BUS, Caller, Row, descriptors, rows
from tests.e2e.stage import CONNECTION, MANAGER, Stage
from tests.lab.bus import PrivateBus
from tests.lab.client import NAME, ROOT, BusClient
from tests.lab.hosts import address
from tests.lab.plugin_files import PluginFiles

pytestmark = pytest.mark.usefixtures("people")

QUIET = "from mptcpd_dbus.plugin import Plugin\nclass Quiet(Plugin):\n    '''Does nothing'''\n"


def _documented() -> set[str]:
    """Give the full names of the errors that the document lists; the first group is ours."""
    listed = [
        words.replace("`", "").split(", ")
        for words, _ in documents.rows(documents.API, "## Errors")
    ]
    first = next(number for number, names in enumerate(listed) if "InvalidArgs" in names)
    return {f"{NAME}.Error.{name}" for names in listed[:first] for name in names} | {
        f"{BUS}.Error.{name}" for names in listed[first:] for name in names
    }


async def _one_of_each(stage: MakeStage) -> tuple[Stage, list[str]]:
    """Have an object of every kind; give their paths."""
    files = PluginFiles()
    files.write("quiet", QUIET)
    play = await stage("--plugin-dir", str(files.path))
    _, path = await play.connection(await play.listener())
    await play.command(path, CONNECTION, "AnnounceAddress", "sa{sv}", address("client", 3), {})
    play.lab.ip("server", "mptcp", "endpoint", "add", address("server", 3), "id", 7, "signal")
    await play.heard("NewAddress")
    await play.command(ROOT, MANAGER, "AddEndpoint", "sasa{sv}", "10.0.2.1", ["subflow"], {})
    objects = await play.viewer.managed_objects()
    kinds: dict[tuple[str, ...], str] = {}
    for where, interfaces in objects.items():
        kinds.setdefault(tuple(interfaces), where)
    assert len(kinds) == 6, kinds  # connection, subflow, address, endpoint, interface, plugin
    return play, [ROOT, f"{ROOT}/connection", *kinds.values()]


def _kernel(play: Stage) -> tuple[Any, ...]:
    """Give everything of the kernel's that a command could change."""
    return (
        play.lab.ip("client", "mptcp", "endpoint", "show"),
        play.lab.ip("client", "mptcp", "limits", "show"),
        play.lab.run("client", ["sysctl", "-a", "-r", r"^net\.mptcp"]),
        play.lab.ss("client", "-ltnHO"),
        play.sockets(),
    )


async def _calls(client: BusClient, paths: list[str]) -> list[Row]:
    found: list[Row] = []
    for path in paths:
        xml = await client.call(path, f"{BUS}.Introspectable", "Introspect")
        found += rows(path, xml)
    # Those that may succeed come last: the object may be gone then.
    return sorted(found, key=lambda row: row.may_work)


def _passing() -> Iterator[Row]:
    for what, passed in descriptors():
        call = Message(
            *(NAME, ROOT, MANAGER, "GetConnectionBySocket"),
            signature="h",
            body=[0],
            unix_fds=passed,
        )
        yield Row(f"a socket that is {what}", call)


@pytest.mark.parametrize("user", ["alice", "carol"])
async def test_hostile_arguments_are_refused_in_plain_words_and_harm_nobody(
    stage: MakeStage, user: str
) -> None:
    """Alice may nothing; carol may all, so that her arguments come as far as they can."""
    play, paths = await _one_of_each(stage)
    before = _kernel(play)
    play.viewer.signals.clear()

    async with await BusClient.connect(user) as client:
        calls = await _calls(client, paths)
        caller = Caller(client)
        faults = await caller.faults([*calls], _documented())
        faults += await caller.faults(_passing(), _documented(), window=1)

    figures.tell(f"hostile calls by {user}: {len(calls)}, answers {dict(caller.errors)}")
    assert faults == []
    assert len(calls) > 2000
    assert caller.errors[f"{BUS}.Error.InvalidArgs"] > 500
    if user == "alice":
        assert _kernel(play) == before
        assert play.viewer.signals == []  # nobody else has heard of it
    log = play.daemon.log.read_text()
    assert "ERROR" not in log
    assert "Traceback" not in log
    await play.agreed()
    await _endpoints_agree(play)


async def _endpoints_agree(play: Stage) -> None:
    objects = await play.viewer.managed_objects()
    shown = {p[f"{NAME}.Endpoint"]["Address"] for p in objects.values() if f"{NAME}.Endpoint" in p}
    text = play.lab.ip("client", "mptcp", "endpoint", "show")
    assert shown == {line.split()[0] for line in text.splitlines()}


# The control


_FAILED = f"{BUS}.Error.Failed"
CARELESS: dict[str, tuple[str, str] | None] = {
    "Raises": (_FAILED, repr(KeyError("address"))),
    "Echoes": (_FAILED, f"cannot parse {object()!r}"),
    "Traces": (_FAILED, 'Traceback (most recent call last):\n  File "/usr/lib/x.py"'),
    "Opens": (_FAILED, "cannot open /run/mptcpd-dbus/notes"),
    "Invents": ("org.example.Oops", "no"),
    "Repeats": (_FAILED, "no such name: \x1b[31m"),
    "Hides": (_FAILED, "internal error"),
    "Keeps": None,
}
CAREFUL = {"Refuses": (f"{BUS}.Error.AccessDenied", "not authorised")}


async def test_the_control_a_careless_service_is_found_out(bus: PrivateBus) -> None:
    """The same table, played to methods that answer as they should not; the last one is silent."""
    del bus  # it must only be there
    methods = CAREFUL | CARELESS
    served = "".join(f"<method name='{name}'/>" for name in methods)
    xml = f"<node><interface name='{MANAGER}'>{served}</interface></node>"
    async with await BusClient.connect() as service, await BusClient.connect("alice") as client:

        def answer(call: Message) -> None:
            if call.message_type is not MessageType.METHOD_CALL:
                return
            error = methods.get(call.member, CAREFUL["Refuses"])
            if call.member == "Ping":
                service.send(Message.new_method_return(call))
            elif error is not None:
                service.send(Message.new_error(call, *error))

        await service.bus_call("RequestName", "su", NAME, 0)
        service.watch(answer)
        faults = await Caller(client, patience=1).faults(rows(ROOT, xml), _documented())

    found = {name for name in methods if any(f".{name} " in fault for fault in faults)}
    assert found == set(CARELESS)

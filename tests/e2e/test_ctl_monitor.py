"""mptcpctl monitor prints a line for every event, and goes on when the daemon comes back."""
# SPDX-License-Identifier: BSD-3-Clause

import json
import re
from collections.abc import Callable
from pathlib import Path

from mptcpd_dbus.ctl.events import SIGNALS
from mptcpd_dbus.ctl.failure import INTERRUPTED, UNAVAILABLE
from tests.contract import interfaces
from tests.e2e.conftest import MakeStage
from tests.e2e.ctl import Ctl, OnTerminal, name_on_bus
from tests.e2e.stage import MANAGER
from tests.e2e.test_ctl import validate
from tests.lab.bus import ADDRESS, PrivateBus
from tests.lab.client import ROOT
from tests.lab.daemon import Daemon
from tests.lab.hosts import Lab
from tests.lab.wait import eventually


def test_every_signal_has_the_arguments_of_the_contract() -> None:
    (manager,) = (its for its in interfaces() if its.name == MANAGER)

    assert {s.name: tuple(a.name for a in s.arguments) for s in manager.signals} == SIGNALS


async def test_each_event_has_a_line(stage: MakeStage) -> None:
    """From a connection's beginning to its end, with what people look at; Ctrl-C ends it."""
    play = await stage()
    listener = await play.listener()

    with OnTerminal(Ctl(play.lab).argv("monitor"), columns=200) as terminal:
        await terminal.shows("DaemonRunning")
        pair, path = await play.connection(listener)
        await play.create_subflow(path, Interface="link2")
        play.lab.ip("client", "link", "set", "link3", "down")
        await terminal.shows("UpdateInterface")
        await play.client.call("close", number=pair.client)
        await play.server.call("close", number=pair.server)
        await terminal.shows("ConnectionClosed")
        terminal.type("\3")
        assert await terminal.ended() == INTERRUPTED

    token = f"{pair.token:08x}"
    lines = terminal.shown.replace("^C", "").splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3} [A-Z]\w+", line) for line in filter(None, lines))
    told = {line.split()[1]: line.split()[2:] for line in lines if line}
    assert told["NewConnection"][0] == token
    assert re.fullmatch(r"10\.0\.1\.1:\d+ - 10\.0\.9\.1:4242", " ".join(told["NewConnection"][1:4]))
    assert told["NewSubflow"][0] == token
    assert "interface=link2" in told["NewSubflow"]
    assert told["ConnectionClosed"] == [token]
    assert "name=link3" in told["UpdateInterface"]


async def test_it_survives_the_daemon_and_its_json_is_what_the_schema_promises(
    stage: MakeStage, tmp_path: Path
) -> None:
    """A stranger's signals meanwhile are none; when the bus goes, it ends."""
    play = await stage()
    listener = await play.listener()
    heard = tmp_path / "heard"
    with heard.open("wb") as out:
        process = play.lab.popen("client", Ctl(play.lab).argv("monitor", "--json"), stdout=out)

    def events() -> list[dict[str, object]]:
        return [json.loads(line) for line in heard.read_text().splitlines()]

    def names() -> list[object]:
        return [event["event"] for event in events()]

    await eventually(lambda: names() == ["DaemonRunning"], within=15)
    await play.daemon.stop()
    await eventually(lambda: names()[-1] == "DaemonStopped")
    await play.daemon.start()
    await eventually(lambda: names()[-1] == "DaemonStarted")
    send = ["dbus-send", f"--bus={ADDRESS}", "--type=signal"]  # to it alone: no rule keeps it away
    name = await name_on_bus(process.pid)
    lost = [f"--dest={name}", ROOT, f"{MANAGER}.EventsLost", "string:nowhere"]
    play.lab.run("client", [*send, *lost])
    pair, _ = await play.connection(listener)
    await eventually(lambda: "ConnectionEstablished" in names())

    assert "EventsLost" not in names()
    for event in events():
        validate("monitor", event)
    assert {event["token"] for event in events() if "token" in event} == {f"{pair.token:08x}"}
    assert process.poll() is None


async def test_when_the_bus_goes_it_ends_and_says_so(
    lab: Lab, bus: PrivateBus, daemon: Callable[..., Daemon]
) -> None:
    await daemon().start()

    with OnTerminal(Ctl(lab).argv("monitor")) as terminal:
        await terminal.shows("DaemonRunning")
        bus.stop("bus")
        assert await terminal.ended() == UNAVAILABLE

    assert "mptcpctl: the bus has gone" in terminal.shown

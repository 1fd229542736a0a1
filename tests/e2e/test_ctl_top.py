"""mptcpctl top shows on a terminal what the kernel's counters say, and gives the terminal back.

The kernel is asked by ss(8), and moved by traffic over the links of the lab.
"""
# SPDX-License-Identifier: BSD-3-Clause

import json
import re
import signal
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from mptcpd_dbus.ctl.failure import INTERRUPTED, OK, UNAVAILABLE
from tests.e2e.conftest import MakeStage
from tests.e2e.ctl import Ctl, OnTerminal, name_on_bus
from tests.e2e.stage import PORT, SUBFLOW, Stage
from tests.e2e.test_ctl import validate
from tests.lab.app import Pair
from tests.lab.bus import ADDRESS, PrivateBus
from tests.lab.daemon import Daemon
from tests.lab.hosts import Lab
from tests.lab.wait import eventually

MESSAGE, EVERY = 25_000, 0.01
RATE = range(2_000_000, 3_000_001)
"""Of what is sent so, in bytes per second: a busy machine sends late, and then more."""
IDLE = {"-", "0B/s"}
ENTERED, LEFT = "\033[?1049h", "\033[?25h\033[?1049l"

Row = dict[str, str]


def _top(
    lab: Lab, *words: str, interval: str = "0.3", lines: int = 24, **environment: str
) -> OnTerminal:
    """Run it on a wide terminal, in black and white."""
    argv = Ctl(lab).argv("top", "-d", interval, *words, **{"NO_COLOR": "1"} | environment)
    return OnTerminal(argv, 160, lines)


def _rows(terminal: OnTerminal) -> dict[str, Row]:
    """Give the table on the screen, by the first column; every cell has something in it."""
    _, titles, *lines = [line.split() for line in terminal.screen() or ["", ""]]
    return {
        line[0]: dict(zip(titles, line, strict=True)) for line in lines if line and line[0] != "and"
    }


def _bytes(rate: str) -> float:
    units = {"B/s": 1, "kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9}
    found = re.fullmatch(r"([\d.]+)(\w+/s)", rate)
    assert found, rate
    return float(found[1]) * units[found[2]]


async def _send(play: Stage, pair: Pair) -> None:
    await play.server.call("drain", talk=pair.server)
    await play.client.call("push", talk=pair.client, size=MESSAGE, every=EVERY)


async def test_traffic_shows_on_the_path_that_carries_it(stage: MakeStage) -> None:
    """And on no other, also when it moves; a connection that is idle shows none all the time."""
    play = await stage()
    listener = await play.listener()
    idle, _ = await play.connection(listener)
    pair, path = await play.connection(listener)
    second = await play.create_subflow(path, Interface="link2", Backup=True)
    token, other = f"{pair.token:08x}", f"{idle.token:08x}"
    await _send(play, pair)

    def carries(number: int, spare: int) -> bool:
        rows = _rows(terminal)
        busy, backup = rows[f"{token}/{number}"], rows[f"{token}/{spare}"]
        assert RATE[0] <= _bytes(busy["UP"]) <= RATE[-1], busy
        assert RATE[0] <= _bytes(rows[token]["UP"]) <= RATE[-1]
        assert (busy["DEV"], busy["BACKUP"]) == (f"link{number}", "no")
        assert (backup["DEV"], backup["BACKUP"]) == (f"link{spare}", "here")
        assert (backup["UP"], backup["DOWN"], busy["DOWN"]) == ("0B/s", "0B/s", "0B/s")
        assert [*rows] == [token, f"{token}/1", f"{token}/2", other, f"{other}/1"]
        return True

    def shown() -> list[list[str]]:
        """Give the rows of the idle one, in all frames."""
        assert terminal.screen()
        return [line.split() for line in terminal.shown.splitlines() if line.startswith(other)]

    with _top(play.lab) as terminal:
        await eventually(lambda: bool(_rows(terminal)) and carries(1, 2), within=15)
        for name, backup in ((f"{path}/subflow/1", True), (second, False)):
            await play.command(name, SUBFLOW, "SetBackup", "ba{sv}", backup, {})
        await eventually(lambda: carries(2, 1), within=15)
        await eventually(lambda: len(shown()) > 6, within=15)
        terminal.type("q")
        assert await terminal.ended() == OK
    assert {cell for line in shown() for cell in line[4:6]} == IDLE


async def test_retransmits_and_round_trips_are_those_of_ss(stage: MakeStage) -> None:
    """Where a link loses all for a while."""
    play = await stage()
    pair, _ = await play.connection(await play.listener())
    name = f"{pair.token:08x}/1"
    await _send(play, pair)

    def said_by_ss(pattern: str) -> str:
        text = play.lab.ss("client", "-tinHO", "state", "established", "dport", f"= :{PORT}")
        found = re.search(pattern, text)
        return found[1] if found else "0"

    with _top(play.lab) as terminal:
        await eventually(lambda: "UP" in _rows(terminal).get(name, {}), within=15)
        play.lab.drop(1)
        await eventually(lambda: _rows(terminal)[name]["NEW"] not in ("0", "-"), within=15)
        play.lab.restore(1)
        await eventually(lambda: _bytes(_rows(terminal)[name]["UP"]) > RATE[0], within=15)
        await play.client.call("silent", talk=pair.client)

        def agreed() -> bool:
            row = _rows(terminal)[name]
            assert row["RETRANS"] == said_by_ss(r" retrans:\d+/(\d+)")
            assert float(row["RTT"][:-2]) == pytest.approx(
                float(said_by_ss(r" rtt:([\d.]+)/")), abs=0.06
            )
            return row["NEW"] == "0" and row["UP"] == "0B/s"

        await eventually(agreed, within=15)
        assert _rows(terminal)[name]["RETRANS"] != "0"


async def test_it_follows_who_comes_and_goes_and_the_daemon(stage: MakeStage) -> None:
    play = await stage()
    listener = await play.listener()

    with _top(play.lab) as terminal:
        await terminal.shows("No connections.")
        pair, path = await play.connection(listener)
        first, second = f"{pair.token:08x}/1", f"{pair.token:08x}/2"
        await eventually(lambda: first in _rows(terminal))
        its = await play.create_subflow(path, Interface="link2")
        await eventually(lambda: second in _rows(terminal))
        await play.command(its, SUBFLOW, "Destroy", "a{sv}", {})
        await eventually(lambda: second not in _rows(terminal))
        assert first in _rows(terminal)

        send = ["dbus-send", f"--bus={ADDRESS}", "--type=signal"]  # no rule keeps it away
        gone = ["org.freedesktop.DBus.ObjectManager.InterfacesRemoved", f"objpath:{path}"]
        stranger = [f"--dest={await name_on_bus(terminal.pid)}", "/org/mptcpd1", *gone]
        play.lab.run("client", [*send, *stranger, "array:string:"])
        its = await play.create_subflow(path, Interface="link2")
        await eventually(lambda: second.replace("/2", "/3") in _rows(terminal))
        assert first in _rows(terminal)

        await play.daemon.stop()
        await eventually(lambda: "is not running: waiting" in terminal.screen()[0])
        assert not any(terminal.screen()[1:])
        await play.daemon.start()
        await eventually(lambda: first in _rows(terminal))

        await play.client.call("close", number=pair.client)
        await play.server.call("close", number=pair.server)
        await eventually(lambda: terminal.screen()[1] == "No connections.")


@pytest.mark.parametrize("how", ["q", "\3", "SIGTERM", "SIGHUP", "the bus"])
async def test_however_it_ends_the_terminal_is_as_it_was(
    lab: Lab, bus: PrivateBus, daemon: Callable[..., Daemon], how: str
) -> None:
    await daemon().start()

    with _top(lab) as terminal:
        before = terminal.settings
        await terminal.shows("No connections.")
        assert not terminal.settings[3] & (termios.ICANON | termios.ECHO)
        assert LEFT not in terminal.shown
        match how:
            case "SIGTERM" | "SIGHUP":
                terminal.process.send_signal(signal.Signals[how])
            case "the bus":
                bus.stop("bus")
            case _:
                terminal.type(how)
        status = await terminal.ended()
        assert terminal.settings == before

    expected = {"q": OK, "\3": INTERRUPTED, "SIGTERM": -15, "SIGHUP": -1, "the bus": UNAVAILABLE}
    assert status == expected[how]
    assert terminal.shown.count(ENTERED) == terminal.shown.count(LEFT) == 1
    said = terminal.shown.partition(LEFT)[2]
    assert said.startswith("mptcpctl: the bus has gone" if how == "the bus" else "")
    assert (said == "") == (how != "the bus")


async def test_it_stops_and_goes_on_like_any_program(
    lab: Lab, daemon: Callable[..., Daemon]
) -> None:
    """By Ctrl-Z; the terminal is the shell's meanwhile."""
    await daemon().start()

    with _top(lab) as terminal:
        before = terminal.settings
        await terminal.shows("No connections.")
        terminal.type("\x1a")
        status = Path(f"/proc/{terminal.pid}/stat")
        await eventually(lambda: status.read_text().rpartition(")")[2].split()[0] == "T")
        assert terminal.settings == before
        assert (await terminal.shows(LEFT)).count(ENTERED) == 1
        terminal.process.send_signal(signal.SIGCONT)
        await eventually(lambda: bool(terminal.screen()) and terminal.shown.count(ENTERED) == 2)
        assert terminal.settings != before
        terminal.type("q")
        assert await terminal.ended() == OK
        assert terminal.settings == before


async def test_what_the_screen_has_no_room_for_is_counted(stage: MakeStage) -> None:
    """Also when its size changes."""
    play = await stage()
    await play.many(await play.listener(), 12)
    await play.agreed()

    with _top(play.lab, interval="60", lines=10) as terminal:
        await terminal.shows("and 8 connections, 9 subflows more")
        assert len(_rows(terminal)) == 7
        terminal.resize(60, 40)
        await eventually(lambda: len(_rows(terminal)) == 24)
        assert not any("more" in line for line in terminal.screen())
        assert all(len(line) <= 60 for line in terminal.screen())


async def test_no_more_is_asked_of_the_daemon_than_a_user_may_ask(
    stage: MakeStage, tmp_path: Path
) -> None:
    """A hundred calls a second, of whatever number of connections; each once a time."""
    play = await stage()
    await play.many(await play.listener(), 300)
    await play.agreed()
    ctl, heard = Ctl(play.lab), tmp_path / "heard"
    with heard.open("wb") as out:
        rule = "type='method_call',member='GetStatistics'"
        play.lab.popen(
            "client", ["dbus-monitor", "--address", ADDRESS, "--profile", rule], stdout=out
        )

    def asked() -> list[str]:
        return re.findall(r"/org/mptcpd1/connection/\S+/subflow/\d+", heard.read_text())

    def shown() -> bool:
        ctl.said("show", "connection/1")
        return len(asked()) > 0

    await eventually(shown, within=15)  # the control: calls are heard
    before = len(asked())
    frames = [json.loads(f) for f in ctl.said("--json", "top", "-d", "0.5", "-n", "3").splitlines()]

    def all_heard() -> bool:
        return len(asked()) - before == 4 * 50  # the first time is not shown

    await eventually(all_heard)
    assert [len(f["connections"]) + f["left_out"] for f in frames] == [300] * 3
    assert len({*asked()[before : before + 50]}) == 50


async def test_through_a_pipe_frames_are_text_or_json(stage: MakeStage) -> None:
    """As on a terminal for those who want that; rates are there from the first one on."""
    play = await stage()
    pair, _ = await play.connection(await play.listener())
    ctl = Ctl(play.lab)
    words = ("top", "--interval", "0.2", "--count", "2")

    text = ctl.said(*words)
    assert len(re.findall(r"(?m)^\d\d:\d\d:\d\d  1 connection, 1 subflow$", text)) == 2
    rows = [line.split() for line in text.splitlines() if line.startswith(f"{pair.token:08x}/1")]
    assert [row[4:6] for row in rows] == [["0B/s", "0B/s"]] * 2
    for line in ctl.said("--json", *words).splitlines():
        validate("top", json.loads(line))
    with OnTerminal(ctl.argv("top", "--batch", "-n", "1")) as terminal:
        assert await terminal.ended() == OK
    assert ENTERED not in terminal.shown
    assert "1 connection, 1 subflow" in terminal.shown


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
async def test_no_name_of_a_stranger_steers_the_terminal(stage: MakeStage, locale: str) -> None:
    """An interface may be called so."""
    play = await stage()
    name = "\033[31mrød"
    play.lab.ip("client", "link", "set", "link1", "down")
    play.lab.ip("client", "link", "set", "link1", "name", name)
    play.lab.ip("client", "link", "set", name, "up")
    play.lab.ip("client", "route", "add", "10.0.9.1", "via", "10.0.1.2", "dev", name)
    await play.connection(await play.listener())

    with _top(play.lab, LC_ALL=locale) as terminal:
        await terminal.shows("\\x1b[31mrød")
        terminal.type("q")
        assert await terminal.ended() == OK

    assert "\033[31m" not in terminal.shown


async def test_colour_is_for_those_who_want_it(lab: Lab, daemon: Callable[..., Daemon]) -> None:
    """A terminal that can do nothing gets plain text."""
    await daemon().start()

    for unwanted in ("", "1"):
        with _top(lab, NO_COLOR=unwanted) as terminal:
            await terminal.shows("No connections.")
            terminal.type("q")
            assert await terminal.ended() == OK
        assert ("\033[1m" in terminal.shown) == (not unwanted)
    with _top(lab, "-n", "1", TERM="dumb") as terminal:
        assert await terminal.ended() == OK
    assert "\033" not in terminal.shown

"""When mptcpctl fails, a line says what to do, and the exit status says whose turn it is."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import os
import subprocess
from collections.abc import Callable

import pytest

from mptcpd_dbus.ctl.failure import (
    BROKEN_PIPE,
    FAILED,
    INTERRUPTED,
    NOT_AUTHORISED,
    OK,
    UNAVAILABLE,
    USAGE,
)
from tests.e2e.conftest import MakeStage
from tests.e2e.ctl import Ctl, OnTerminal, argv, name_on_bus
from tests.lab.bus import Agent, Kind, PrivateBus, installed_kinds
from tests.lab.daemon import Daemon
from tests.lab.hosts import SERVER, Lab


@pytest.mark.parametrize("kind", installed_kinds())
def test_without_a_daemon_it_says_how_to_start_it(lab: Lab, kind: Kind) -> None:
    """On either bus."""
    ctl = Ctl(lab)
    words = "mptcpd-dbus is not running; start it: systemctl start mptcpd-dbus"

    with PrivateBus(kind=kind):
        for line in ("status", "list", "monitor", "top", "reload", "--json list"):
            assert ctl.refused(*line.split()) == (UNAVAILABLE, words)


def test_without_a_bus_it_names_the_bus(lab: Lab) -> None:
    status, words = Ctl(lab).refused("list", bus="unix:path=/nowhere")

    assert status == UNAVAILABLE
    assert words.startswith("cannot reach the bus 'unix:path=/nowhere': ")
    assert words.endswith("; is dbus running?")


async def test_a_daemon_that_does_not_answer_is_not_waited_for_without_end(
    stage: MakeStage,
) -> None:
    play = await stage()
    play.daemon.pause()

    with OnTerminal(Ctl(play.lab).argv("list")) as terminal:
        await name_on_bus(terminal.pid)
        terminal.type("\3")
        assert await terminal.ended() == INTERRUPTED
        assert terminal.shown.strip() == "^C"
    status, words = Ctl(play.lab).refused("list")

    play.daemon.resume()
    assert status == UNAVAILABLE
    assert words == "mptcpd-dbus does not answer: see its log, or restart it"


async def test_the_daemons_refusal_is_told_with_what_to_do(stage: MakeStage) -> None:
    play = await stage(path_manager="kernel")
    pair, _ = await play.connection(await play.listener())
    ctl = Ctl(play.lab)

    status, words = ctl.refused("subflow", "add", f"{pair.token:08x}", "dev", "link2")
    assert status == FAILED
    assert words.endswith("; choose `mptcpctl path-manager userspace`, then connect anew")
    assert ctl.refused("subflow", "delete", "connection/1/7")[0] == FAILED
    status, words = ctl.refused("endpoint", "delete", "10.0.2.1")
    assert (status, words) == (
        FAILED,
        "there is no endpoint with address 10.0.2.1; see `mptcpctl endpoint`",
    )
    status, words = ctl.refused("limits", "set", "subflows", "9")
    assert (status, "limit greater than maximum (8)" in words) == (FAILED, True)
    assert ctl.refused("plugin", "enable", "nobody") == (
        FAILED,
        "there is no object /org/mptcpd1/plugin/nobody",
    )
    assert ctl.refused("limits", "set")[0] == USAGE

    ctl.said("path-manager", "userspace")  # the control: what was said to do helps
    pair, _ = await play.connection(await play.listener(port=4243), port=4243)
    assert SERVER[4] in ctl.said("subflow", "add", f"{pair.token:08x}", "dev", "link2")


@pytest.mark.usefixtures("people")
async def test_who_may_not_is_told_and_changes_nothing(stage: MakeStage) -> None:
    """Alice is anybody, carol is allowed by a rule."""
    play = await stage(path_manager="kernel")
    alice, carol = Ctl(play.lab, user="alice"), Ctl(play.lab, user="carol")

    status, words = alice.refused("endpoint", "add", "10.0.2.1")

    assert status == NOT_AUTHORISED
    assert words.startswith("not authorised for org.mptcpd1.manage-endpoints: run it as root, or")
    status, words = alice.refused("--no-ask-password", "endpoint", "add", "10.0.2.1")
    assert (status, "let it ask for a password, or run it as root" in words) == (4, True)
    assert not play.lab.ip("client", "mptcp", "endpoint", "show")
    assert alice.said("endpoint") == "No endpoints.\n"
    carol.said("endpoint", "add", "10.0.2.1")
    assert play.lab.ip("client", "mptcp", "endpoint", "show").startswith("10.0.2.1 id 1")


@pytest.mark.parametrize("options", [[], ["--no-ask-password"]])
@pytest.mark.usefixtures("people")
async def test_somebody_is_asked_for_a_password_if_wanted(
    stage: MakeStage, options: list[str]
) -> None:
    """An agent of the lab approves; it needs the process before that calls."""
    play = await stage(path_manager="kernel")
    words = Ctl(play.lab, user="alice").argv(*options, "endpoint", "add", "10.0.2.1")
    waiting = ["sh", "-c", 'echo; read go; exec "$@"', "sh", *words]

    with OnTerminal(waiting) as terminal:
        await terminal.shows("\n")
        async with Agent("approve", "alice", terminal.pid):
            terminal.type("go\n")
            status = await terminal.ended()

    endpoints = play.lab.ip("client", "mptcp", "endpoint", "show")
    assert (status, bool(endpoints)) == ((NOT_AUTHORISED, False) if options else (OK, True))


async def test_who_stops_reading_ends_it_without_a_complaint(
    lab: Lab, daemon: Callable[..., Daemon]
) -> None:
    """What it writes to is closed before it writes; monitor writes more than once."""
    await daemon().start()
    for line in ("list", "monitor", "--help", "--json status"):
        reader, writer = os.pipe()
        words = argv(*line.split())
        process = lab.popen("client", words, stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        os.close(reader)
        _, complaint = await asyncio.to_thread(process.communicate, timeout=20)
        assert (process.returncode, complaint) == (BROKEN_PIPE, b"")

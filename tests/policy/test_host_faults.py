"""What plugins and programs do wrong: each is named, and within bounds.

On the kernel in memory, in played time.  Behaviour that mptcpd has too is that of its own tests.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import errno
import logging
import os
from typing import Any

import pytest

from mptcpd_dbus.core import events
from mptcpd_dbus.core.errors import NoSuchConnection, NotReady
from mptcpd_dbus.core.policies import PolicyState
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.plugin import Connection, Match, Plugin, Rule
from mptcpd_dbus.policy.host import START_SECONDS, STOP_SECONDS
from mptcpd_dbus.policy.mailbox import HANDLER_SECONDS, QUEUE
from mptcpd_dbus.policy.watch import Watch
from mptcpd_dbus.policy_protocol import Registration
from tests.policy.hosted_world import Given, Heard, HostedWorld, in_played_time, recorder
from tests.world import TOKEN

HIGH, LOW = -20, 19
RUNNING, FAILED = PolicyState.RUNNING, PolicyState.FAILED


def _tuple(number: int) -> FourTuple:
    return FourTuple("10.0.1.1", 30000 + number, "10.0.9.1", 443)


# Bad plugins

HEAD = "from mptcpd_dbus.plugin import *\nclass It(Plugin):\n    "


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("class (", "line 1: invalid syntax"),
        ("", "one class derived from Plugin is wanted, found none"),
        (HEAD + "pass\nclass Two(Plugin): pass", "found It, Two"),
        ("import nowhere_to_be_found", "ModuleNotFoundError"),
        ("raise SystemExit(1)", "line 1: SystemExit: 1"),
        (HEAD + "requires_api = 9", "it wants version 9 of the plugin API"),
        (HEAD + "async def new_conection(self, connection): pass", "do you mean new_connection?"),
        (HEAD + "async def start(self): 1 / 0", "it did not start: ZeroDivisionError"),
        (HEAD + "async def start(self): raise SystemExit(2)", "it did not start: SystemExit: 2"),
        (HEAD + "def __init__(self, *_): raise KeyboardInterrupt", "not start: KeyboardInterrupt"),
        (HEAD + "settings: int", "no PluginSettings"),
        (HEAD + "version = '\\udcff'\n    __doc__ = 5\n    async def start(self): 1 / 0", "start"),
    ],
)
@in_played_time
async def test_a_bad_plugin_is_named_and_takes_nobody_with_it(bad: str, words: str) -> None:
    heard = Heard()
    it = await HostedWorld({"bad": bad, "good": recorder(heard, "good", priority=LOW)}).start()
    it.connect()
    await it.rest()

    assert it.policy("bad").state is FAILED
    assert words in it.policy("bad").problem
    assert it.policy("good").state is RUNNING
    assert heard.handlers("good", TOKEN) == ["new_connection", "connection_established"]
    with pytest.raises(NotReady, match="bad"):
        await it.host.enable("bad")
    with pytest.raises(NotReady, match="bad"):
        await it.host.reload("bad")
    it.plugins["bad"] = recorder(heard, "bad")
    await it.host.enable("bad")
    assert (it.policy("bad").state, it.policy("bad").problem) == (RUNNING, "")


async def _forever(*_: object) -> None:
    await asyncio.Event().wait()


@in_played_time
async def test_one_that_hangs_in_start_or_stop_keeps_nobody_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock = asyncio.get_running_loop().time
    heard = Heard()
    late = recorder(heard, "late", stop=_forever, start=lambda _: asyncio.sleep(START_SECONDS + 9))
    it = HostedWorld(
        {
            "slow": recorder(heard, "slow", priority=HIGH, start=_forever),
            "late": late,
            "good": recorder(heard, "good"),
        }
    )
    began = clock()
    await it.host.start()
    assert clock() - began <= START_SECONDS + 0.1
    it.connect()
    await asyncio.sleep(1)
    assert it.owner(TOKEN) == "good"

    await asyncio.sleep(HANDLER_SECONDS)
    assert it.policy("slow").problem == "it did not start: took longer than 30 s"
    assert it.policy("late").state is RUNNING
    assert it.owner(TOKEN) == "good"  # who has one keeps it

    began = clock()
    heard.clear()
    await it.host.stop()
    assert clock() - began <= STOP_SECONDS + 0.1
    assert heard.handlers("good") == ["stop"]
    assert "did not stop within 5 s: late" in caplog.text


@in_played_time
async def test_a_daemon_that_is_stopped_while_plugins_start_leaves_none_at_work() -> None:
    heard = Heard()
    it = HostedWorld(
        {"slow": recorder(heard, "slow", start=_forever), "good": recorder(heard, "good")}
    )
    starting = asyncio.ensure_future(it.host.start())
    await asyncio.sleep(1)
    starting.cancel()
    await it.host.stop()
    await asyncio.sleep(0.1)

    assert heard.handlers("good")[-1] == "stop"
    assert len(asyncio.all_tasks()) == 1


@in_played_time
async def test_a_connection_that_comes_while_plugins_start_waits_for_the_first_in_line() -> None:
    heard = Heard()
    slow = recorder(heard, "slow", start=lambda _: asyncio.sleep(1))
    it = HostedWorld({"slow": slow, "quick": recorder(heard, "quick")})
    starting = asyncio.ensure_future(it.host.start())
    await asyncio.sleep(0.5)
    it.connect()
    await starting
    await it.rest()

    assert it.owner(TOKEN) == "slow"
    assert heard.handlers("slow", TOKEN) == ["new_connection", "connection_established"]
    assert heard.handlers("quick", TOKEN) == []


# Suspects


class _Accusing(Watch):
    """Read the note of a daemon that was killed."""

    def __init__(self, plugin: str, handler: str) -> None:
        super().__init__()
        self.suspect = plugin, handler


@pytest.mark.parametrize("handler", ["import", "start", "new_connection"])
@in_played_time
async def test_what_got_the_daemon_killed_is_not_started_again_by_itself(handler: str) -> None:
    heard = Heard()
    it = await HostedWorld(
        {"a": recorder(heard, "a"), "b": recorder(heard, "b")}, _Accusing("a", handler)
    ).start()
    it.connect()
    await it.rest()

    assert it.policy("a").state is FAILED
    assert it.policy("a").problem == (
        f"the daemon was killed while {handler} held it up; enable it to try again"
    )
    assert it.owner(TOKEN) == "b"
    assert heard.by("a") == []
    assert ("a" in it.source.loaded) == (handler != "import")
    await it.host.enable("a")
    assert (it.policy("a").state, it.policy("a").problem) == (RUNNING, "")


class Ruling(Plugin):
    """Has others decide."""

    claims = False

    async def start(self) -> None:
        """Set rules."""
        await self.pm.set_rules([Rule("web", "strategy", Match(port=(443,)), {})])


@in_played_time
async def test_a_policy_of_a_rule_that_got_the_daemon_killed_can_be_enabled_again() -> None:
    heard = Heard()
    plugins: dict[str, Given] = {"ruling": Ruling, "strategy": recorder(heard, "strategy")}
    it = await HostedWorld(plugins, _Accusing("ruling_web", "new_connection")).start()
    it.connect(1, _tuple(1))
    assert it.policy("ruling_web").state is FAILED
    assert "the daemon was killed while new_connection" in it.policy("ruling_web").problem
    assert it.owner(1) == "strategy"

    await it.host.enable("ruling_web")
    it.connect(2, _tuple(2))
    assert (it.policy("ruling_web").state, it.owner(2)) == (RUNNING, "ruling_web")


class _OnBus:
    """A program on the bus that hears nothing."""

    name = ":1.7"

    def call(self, handler: str, arguments: tuple[Any, ...]) -> None:
        """Do nothing."""

    async def room(self) -> None:
        """Have room."""

    def release(self, why: str) -> None:
        """Do nothing."""


@in_played_time
async def test_a_program_that_takes_the_name_of_a_rules_policy_is_not_made_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It can register while the policy of the rule before starts."""
    heard = Heard()
    go_on = asyncio.Event()

    async def start(_: Plugin) -> None:
        await go_on.wait()

    async def set_rules(self: Plugin, _: Any) -> None:
        rules = [("one", "slow"), ("web", "strategy")]
        await self.pm.set_rules([Rule(name, s, Match(port=(443,)), {}) for name, s in rules])

    plugins: dict[str, Given] = {
        "ruling": recorder(heard, "ruling", claims=False, listener_created=set_rules),
        "slow": recorder(heard, "slow", start=start),
        "strategy": recorder(heard, "strategy"),
    }
    it = await HostedWorld(plugins, load_plugins=("ruling",)).start()
    it.engine.take(events.ListenerCreated("10.0.1.1", 1))
    await asyncio.sleep(1)
    await it.host.register(Registration("ruling_web", match={"port": [7]}), _OnBus())
    go_on.set()
    await it.rest()

    assert sorted(it.state.policies) == ["ruling", "ruling_one", "ruling_web"]
    assert (it.policy("ruling_web").on_bus, it.policy("ruling_one").state) == (":1.7", RUNNING)
    assert "ruling_web does not run: a program on the bus has its name" in caplog.text
    it.connect(1, _tuple(1))
    assert it.owner(1) != "ruling_web"


# Bounds


@in_played_time
async def test_a_plugin_that_eats_events_holds_a_bounded_number_and_its_connection_passes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard = Heard()
    it = await HostedWorld(
        {"eats": recorder(heard, "eats", new_address=_forever), "good": recorder(heard, "good")}
    ).start()
    it.connect(1, _tuple(1))
    it.connect(2, _tuple(2))
    await it.rest()
    for number in range(100_000):
        it.engine.take(events.NewAddress(1, number % 2 + 1, f"10.1.{number % 251}.1", 80))
        if it.owner(1) == "good" and number % 100 == 0:
            await asyncio.sleep(0)  # the good one keeps up
    assert it.owner(1) == "good"
    assert f"{QUEUE} events waited" in it.policy("eats").problem
    (said,) = caplog.messages
    assert said == (
        f"plugin eats: {QUEUE} events waited for one handler and were dropped;"
        " it does not decide for that connection any more"
    )
    assert it.policy("eats").state is RUNNING
    assert it.owner(2) == "eats"
    await it.rest()

    assert heard.handlers("eats", 1)[-1] == "connection_released"
    assert heard.handlers("good", 1)[:2] == ["new_connection", "connection_established"]
    assert heard.handlers("good", 1).count("new_address") > 90_000


@in_played_time
async def test_host_events_that_nobody_takes_are_dropped_and_said_to_be_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard = Heard()
    gate = asyncio.Event()
    it = await HostedWorld(
        {
            "eats": recorder(heard, "eats", listener_created=lambda *_: gate.wait()),
            "good": recorder(heard, "good"),
        }
    ).start()
    for number in range(100_000):
        it.engine.take(events.ListenerCreated("10.0.1.1", number % 60000))
        if number % 100 == 0:
            await asyncio.sleep(0)
    gate.set()
    await it.rest()

    assert heard.by("eats", "events_lost") == [("events_lost", "queue")]
    assert f"{QUEUE} events waited" in it.policy("eats").problem
    said = f"plugin eats: {QUEUE} events waited for one handler and were dropped"
    assert set(caplog.messages) == {said}
    assert heard.handlers("good").count("listener_created") == 100_000
    assert "events_lost" not in heard.handlers("good")
    assert it.policy("eats").errors == 100_000 // QUEUE


@in_played_time
async def test_ten_thousand_connections_leave_no_queue_behind() -> None:
    heard = Heard()

    async def later(self: Plugin, connection: Connection) -> None:
        self.after(60, _noted, connection=connection)

    async def _noted() -> None:
        heard.append(("a", "timer", ()))

    it = await HostedWorld({"a": recorder(heard, "a", new_connection=later)}).start()
    for number in range(10_000):
        it.connect(number, FourTuple("10.0.1.1", number, "10.0.9.1", 443))
        if number % 100 == 99:
            await it.rest()
    mailbox = it.host._all["a"].mailbox  # noqa: SLF001 # what no property shows
    assert len(mailbox._queues) == 10_000  # noqa: SLF001 # likewise; the control
    for number in range(10_000):
        it.kernel.close(number)
    await it.rest()
    await asyncio.sleep(100)

    assert len(mailbox._queues) == 0  # noqa: SLF001 # likewise
    assert it.host._owners._guessed == set()  # noqa: SLF001 # likewise
    assert heard.handlers("a").count("connection_closed") == 10_000
    assert "timer" not in heard.handlers("a")


@in_played_time
async def test_a_connection_that_has_closed_gets_no_owner() -> None:
    """Its token may be another's by now."""
    heard = Heard()
    it = await HostedWorld({n: recorder(heard, n) for n in ("a", "b")}).start()
    dead = it.connect()
    it.kernel.close(TOKEN)
    it.connect()
    await it.rest()
    heard.clear()

    with pytest.raises(NoSuchConnection):
        await it.host.set_owner(dead, "b")

    assert (it.owner(TOKEN), heard) == ("a", [])


@in_played_time
async def test_owners_that_change_in_a_row_all_know_that_they_are_none() -> None:
    heard = Heard()
    it = await HostedWorld({n: recorder(heard, n) for n in ("a", "b")}).start()
    connection = it.connect()
    await it.rest()

    for name in ("b", "a", "b"):
        await it.host.set_owner(connection, name)
    await it.rest()

    assert heard.handlers("a", TOKEN)[-1] == "connection_released"
    assert it.owner(TOKEN) == "b"


@in_played_time
async def test_a_change_is_made_to_its_end_though_nobody_waits_for_it() -> None:
    """As when the bus goes while it answers a call."""
    heard = Heard()
    gate = asyncio.Event()
    it = await HostedWorld({"a": recorder(heard, "a", stop=lambda _: gate.wait())}).start()
    asked = asyncio.ensure_future(it.host.reload("a"))
    await asyncio.sleep(1)
    asked.cancel()
    await asyncio.sleep(1)
    gate.set()
    await it.rest()
    it.connect()
    await it.rest()

    assert heard.handlers("a", TOKEN) == ["new_connection", "connection_established"]


@in_played_time
async def test_a_user_that_cannot_be_read_costs_no_other_event() -> None:
    heard = Heard()
    match = Match(uid=(1000,))
    it = await HostedWorld({"a": recorder(heard, "a", match=match)}).start()
    row = it.kernel.connection

    def refused(_: int) -> None:
        it.kernel.connection = row  # type: ignore[method-assign] # only once
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    it.kernel.on_event = lambda _: None
    for token in (1, 2):
        it.kernel.connect(token, _tuple(token))
    it.kernel.connection = refused  # type: ignore[assignment,method-assign] # a fault
    it.engine.batch([events.NewConnection(token, _tuple(token)) for token in (1, 2)])
    await it.rest()

    assert set(it.state.connections) == {1, 2}
    assert it.owner(2) == "a"

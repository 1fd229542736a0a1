"""Which policies run, who decides for which connection, and what each of them hears.

On the kernel in memory, in played time.  Behaviour that mptcpd has too is that of its own tests.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import errno
import logging
import os
from dataclasses import replace
from typing import Any

import pytest

from mptcpd_dbus.config_file import Section
from mptcpd_dbus.core import events
from mptcpd_dbus.core.errors import ConfigurationError, InvalidArgument, NoSuchConnection, NotReady
from mptcpd_dbus.core.network import NO_TRAITS, AddressTrait
from mptcpd_dbus.core.policies import PolicyState
from mptcpd_dbus.core.readings import (
    AddressTraitsRead,
    ConnectionRead,
    LocalAddressesRead,
    SettingsRead,
)
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.plugin import Connection, Match, Plugin, Rule
from mptcpd_dbus.policy.host import START_SECONDS, STOP_SECONDS
from mptcpd_dbus.policy.mailbox import HANDLER_SECONDS, QUEUE
from mptcpd_dbus.policy.watch import Watch
from mptcpd_dbus.policy_protocol import Registration
from tests.policy.hosted_world import Given, Heard, HostedWorld, in_played_time, recorder
from tests.world import FIRST, TOKEN

HIGH, LOW = -20, 19
RUNNING, FAILED, DISABLED = PolicyState.RUNNING, PolicyState.FAILED, PolicyState.DISABLED


def _tuple(number: int) -> FourTuple:
    return FourTuple("10.0.1.1", 30000 + number, "10.0.9.1", 443)


def _row(token: int, four_tuple: FourTuple = FIRST) -> ConnectionRead:
    return ConnectionRead(token, four_tuple, False, 1, 1000, 1, 1, False)  # fields


# Lists, priorities, the default


@pytest.mark.parametrize(
    ("priorities", "listed", "default", "owner", "started"),
    [
        ({"a": 0, "b": 0}, None, "", "a", "ab"),
        ({"a": 0, "b": 0}, ("b", "a"), "", "b", "ba"),  # the list's order within one priority
        ({"a": LOW, "b": HIGH}, None, "", "b", "ba"),
        ({"a": LOW, "b": HIGH}, ("a", "b"), "", "b", "ba"),  # priority first
        ({"a": 0, "b": LOW}, None, "b", "b", "ab"),  # the default before priority
        ({"a": 0, "b": 0, "c": HIGH}, ("b",), "", "b", "b"),  # nobody else is loaded
        ({"a": 0, "b": 0}, ("b", "a", "b"), "", "b", "ba"),  # a name said twice
    ],
)
@in_played_time
async def test_one_policy_gets_the_connection_and_all_hear_of_the_network(
    priorities: dict[str, int],
    listed: tuple[str, ...] | None,
    default: str,
    owner: str,
    started: str,
) -> None:
    heard = Heard()
    plugins = {name: recorder(heard, name, priority=p) for name, p in priorities.items()}
    it = await HostedWorld(plugins, load_plugins=listed, path_manager=default).start()

    assert "".join(who for who, handler, _ in heard if handler == "start") == started
    assert sorted(it.state.policies) == sorted(started)
    heard.clear()
    it.connect()
    it.link(2, "eth0", "10.0.1.1")
    await it.rest()
    it.kernel.on_event(events.ListenerCreated("10.0.1.1", 80))
    it.kernel.close(TOKEN)
    await it.rest()

    network = ["new_interface", "new_local_address", "listener_created"]
    for name in started:
        connection = ["new_connection", "connection_established", "connection_closed"]
        expected = [*network, *connection] if name == owner else network
        assert sorted(heard.handlers(name)) == sorted(expected)
    await it.host.stop()
    stopped = "".join(who for who, handler, _ in heard if handler == "stop")
    assert stopped == "".join(reversed(started))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"load_plugins": ("a", "c")},
            "--load-plugins: there is no c.py in /plugins; there are a",
        ),
        ({"path_manager": "c"}, "path-manager: there is no plugin 'c' among those to load: a"),
        ({"plugins": {"c": Section("c")}}, "[plugin c]: there is no c.py in /plugins; there are a"),
        (
            {"plugins": {"a": Section("a", {"paths": "1"}, {"paths": "/x.conf:7"})}},
            "/x.conf:7: paths: unknown key; known: none",
        ),
    ],
)
@in_played_time
async def test_what_the_settings_cannot_mean_ends_the_start(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await HostedWorld({"a": Plugin}, **settings).start()
    assert words in str(caught.value)


@in_played_time
async def test_without_a_plugin_nobody_decides_and_everything_else_goes_on() -> None:
    it = await HostedWorld({}).start()
    it.connect()
    it.link(2, "eth0", "10.0.1.1")
    await it.rest()

    assert it.owner(TOKEN) == ""
    await it.host.stop()


# What is heard


@in_played_time
async def test_each_handler_gets_exactly_what_happened() -> None:
    """Both values of every flag, all IDs, the error and the reset reason."""
    heard = Heard()
    it = await HostedWorld({"a": recorder(heard, "a"), "b": recorder(heard, "b")}).start()
    first, second = FIRST, FourTuple("10.0.2.1", 4100, "10.0.9.2", 81)
    take = it.engine.take
    it.link(2, "eth0", "10.0.2.1")
    await it.rest()
    heard.clear()
    take(events.NewConnection(TOKEN, first, server_side=True, deny_join_id0=False))
    take(events.ConnectionEstablished(TOKEN, first, server_side=True, deny_join_id0=True))
    take(events.NewAddress(TOKEN, 7, "10.0.9.7", 443))
    take(events.AddressRemoved(TOKEN, 7))
    take(events.AddressRemoved(TOKEN, 8))  # never announced
    take(events.NewSubflow(TOKEN, second, 3, 4, backup=True, interface_index=2))
    take(events.SubflowPriority(TOKEN, second, 3, 4, backup=False))
    take(events.SubflowClosed(TOKEN, second, 3, 4, error=110, reset_reason=6))
    take(events.NewSubflow(TOKEN, second, 3, 4, backup=False))
    take(events.SubflowClosed(TOKEN, second, 3, 4))
    take(events.ConnectionClosed(TOKEN))
    take(events.NewConnection(TOKEN + 1, first, server_side=False, deny_join_id0=True))
    await it.rest()

    calls = heard.by("a")
    seen = [(c.server_side, c.deny_join_id0, c.state) for _, c, *_ in calls]
    assert seen[:2] == [(True, False, "created"), (True, True, "established")]
    assert seen[-1] == (False, True, "created")
    assert all((c.token, c.number) == (TOKEN, 1) for _, c, *_ in calls[:-1])
    assert {c[1].owner for c in calls} == {"a"}
    assert [(name, *map(_facts, more)) for name, _, *more in calls] == [
        ("new_connection",),
        ("connection_established",),
        ("new_address", (7, "10.0.9.7", 443, True)),
        ("address_removed", (7, "10.0.9.7", 443, True)),
        ("address_removed", (8, "", 0, True)),
        ("new_subflow", (*second, 3, 4, True, "eth0", 2, False, 0, None)),
        ("subflow_priority", (*second, 3, 4, False, "eth0", 2, False, 0, None)),
        ("subflow_closed", (*second, 3, 4, False, "eth0", 0, False, 110, 6)),
        ("new_subflow", (*second, 3, 4, False, "eth0", 0, False, 0, None)),
        ("subflow_closed", (*second, 3, 4, False, "eth0", 0, False, 0, None)),
        ("connection_closed",),
        ("new_connection",),
    ]
    assert heard.by("b") == []


def _facts(picture: Any) -> tuple[Any, ...]:
    if hasattr(picture, "four_tuple"):
        p = picture
        ids = (p.local_id, p.remote_id, p.backup, p.interface, p.interface_index, p.initial)
        return (*p.four_tuple, *ids, p.error, p.reset_reason)
    return (picture.id, picture.address, picture.port, picture.remote)


@in_played_time
async def test_network_events_reach_all_with_their_counts() -> None:
    """As mptcpd's own test has them: 1 new, 2 updates, 1 deletion; 3 addresses, 1 deletion."""
    heard = Heard()
    it = await HostedWorld({"a": recorder(heard, "a"), "b": recorder(heard, "b")}).start()
    heard.clear()
    it.link(2, "eth0", "10.0.1.1", "10.0.1.2", "fe80::1")
    take = it.engine.take
    take(events.UpdateInterface(2, "eth0", "ether", up=True, running=False))
    take(events.UpdateInterface(2, "wan0", "ether", up=True, running=True))
    take(events.DeleteLocalAddress(2, "10.0.1.2"))
    await it.rest()
    take(events.ListenerCreated("10.0.1.1", 80))
    take(events.ListenerClosed("10.0.1.1", 80))
    take(events.EventsLost("rtnetlink"))
    take(SettingsRead(False, "userspace", ("userspace",), "default"))  # MPTCP off
    take(SettingsRead(True, "userspace", ("userspace",), "default"))  # and on
    await it.rest()

    expected = [
        ("new_interface", "eth0", True, []),
        ("new_local_address", "eth0", "10.0.1.1"),
        ("new_local_address", "eth0", "10.0.1.2"),
        ("new_local_address", "eth0", "fe80::1"),
        ("update_interface", "eth0", False, ["10.0.1.1", "10.0.1.2", "fe80::1"]),
        ("update_interface", "wan0", True, ["10.0.1.1", "10.0.1.2", "fe80::1"]),
        ("delete_local_address", "wan0", "10.0.1.2"),
        ("listener_created", "10.0.1.1", 80),
        ("listener_closed", "10.0.1.1", 80),
        ("events_lost", "rtnetlink"),
        ("not_ready",),
        ("ready",),
    ]
    for name in ("a", "b"):
        assert [_said(call) for call in heard.by(name)] == expected
    heard.clear()
    take(events.DeleteInterface(2))
    await it.rest()
    for name in ("a", "b"):
        assert [call[0] for call in heard.by(name)] == [
            "delete_local_address",
            "delete_local_address",
            "delete_interface",
        ]


def _said(call: tuple[Any, ...]) -> tuple[Any, ...]:
    name, *more = call
    if name in ("new_interface", "update_interface"):
        return name, more[0].name, more[0].running, list(more[0].addresses)
    if name.endswith("local_address"):
        return name, more[0].name, more[1]
    if name.startswith("listener"):
        return name, more[0].address, more[0].port
    return call


SECOND = FourTuple("10.0.2.1", 4100, "10.0.9.2", 81)
EVENTS: list[events.ConnectionEvent] = [
    events.ConnectionEstablished(99, FIRST),
    events.NewAddress(99, 1, "10.0.9.2", 80),
    events.AddressRemoved(99, 1),
    events.NewSubflow(99, SECOND),
    events.SubflowPriority(99, SECOND, backup=True),
    events.SubflowClosed(99, SECOND),
    events.ConnectionClosed(99),
]
TOLD = [
    "connection_established",
    "new_address",
    "address_removed",
    "new_subflow",
    "subflow_priority",
    "subflow_closed",
    "connection_closed",
]


@in_played_time
async def test_events_of_an_unknown_token_reach_nobody() -> None:
    heard = Heard()
    it = await HostedWorld({"a": recorder(heard, "a")}).start()
    heard.clear()
    for event in EVENTS:
        it.engine.take(event)
    await it.rest()
    assert heard == []

    it.engine.take(events.NewConnection(99, FIRST))  # the control
    for event in EVENTS:
        it.engine.take(event)
    await it.rest()
    told = [call[0] for call in heard.by("a")]
    assert told == ["new_connection", *TOLD]


@in_played_time
async def test_an_address_that_changes_its_scope_is_told_to_those_who_skip_it() -> None:
    heard = Heard()
    flags = frozenset({"skip_link_local"})
    it = await HostedWorld({"a": recorder(heard, "a")}, notify_flags=flags).start()
    it.link(2, "eth0")
    it.engine.take(events.NewLocalAddress(2, "10.0.1.1", 24, AddressTrait.LINK_SCOPE))
    await it.rest()
    assert heard.by("a", "new_local_address") == []

    it.engine.take(AddressTraitsRead(2, "10.0.1.1", NO_TRAITS))
    await it.rest()
    assert [call[2] for call in heard.by("a", "new_local_address")] == ["10.0.1.1"]


@in_played_time
async def test_a_plugin_without_handlers_is_harmless_whatever_happens() -> None:
    class Null(Plugin):
        """Has none."""

    it = await HostedWorld({"null": Null}).start()
    it.connect()
    it.link(2, "eth0", "10.0.1.1")
    for event in (
        *(replace(event, token=TOKEN) for event in EVENTS),
        events.ListenerCreated("::", 1),
        events.ListenerClosed("::", 1),
        events.UpdateInterface(2, "eth0", "ether", up=True, running=False),
        events.DeleteLocalAddress(2, "10.0.1.1"),
        events.DeleteInterface(2),
        events.EventsLost("mptcp_pm"),
    ):
        it.engine.take(event)
    await it.host.reload("null")
    await it.host.disable("null")
    await it.host.enable("null")
    await it.rest()

    null = it.policy("null")
    assert (null.state, null.problem, null.errors) == (RUNNING, "", 0)
    await it.host.stop()


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


# Ownership


@in_played_time
async def test_what_it_steers_and_what_it_wants_decide_before_its_place() -> None:
    heard = Heard()
    it = await HostedWorld(
        {
            "kernel": recorder(heard, "kernel", steers="kernel", priority=HIGH),
            "watcher": recorder(heard, "watcher", claims=False, priority=HIGH),
            "web": recorder(heard, "web", match=Match(port=(443,))),
            "any": recorder(heard, "any", steers="both", priority=LOW),
        },
        path_manager="web",
    ).start()
    it.connect(1, _tuple(1))
    it.connect(2, FIRST)
    it.connect(3, _tuple(3), userspace=False)
    await it.rest()

    assert [it.owner(token) for token in (1, 2, 3)] == ["web", "any", "kernel"]
    assert heard.handlers("watcher", 1) == []


@in_played_time
async def test_a_wrong_guess_of_the_path_manager_is_corrected_when_it_has_been_read() -> None:
    """As it comes from the event socket: in a batch, after which the connection is read."""
    heard = Heard()
    it = await HostedWorld(
        {name: recorder(heard, name, steers=name) for name in ("userspace", "kernel")}
    ).start()
    it.kernel.on_event = lambda _: None
    it.kernel.connect(TOKEN, FIRST, userspace=False)
    it.engine.batch([events.NewConnection(TOKEN, FIRST)])
    assert it.owner(TOKEN) == "userspace"
    await it.rest()

    assert it.owner(TOKEN) == "kernel"
    assert heard.handlers("kernel", TOKEN) == ["new_connection"]
    assert heard.handlers("userspace", TOKEN) == ["new_connection", "connection_released"]


@in_played_time
async def test_a_connection_of_one_batch_is_heard_of_and_forgotten() -> None:
    heard = Heard()
    it = await HostedWorld({"a": recorder(heard, "a")}).start()
    it.engine.batch([events.NewConnection(TOKEN, FIRST), events.ConnectionClosed(TOKEN)])
    await it.rest()

    assert heard.handlers("a", TOKEN) == ["new_connection", "connection_closed"]
    assert it.host._owners._guessed == set()  # noqa: SLF001 # what no property shows


@in_played_time
async def test_an_owner_that_was_set_stays_whatever_is_read() -> None:
    heard = Heard()
    it = await HostedWorld({n: recorder(heard, n) for n in ("a", "b")}).start()
    connection = it.connect()
    await it.rest()
    for name in ("b", ""):
        before = it.flushes
        await it.host.set_owner(connection, name)
        await it.rest()
        assert it.flushes > before  # whoever looks now sees it
        it.engine.take(LocalAddressesRead(TOKEN, ()))
        it.engine.take(_row(TOKEN))
        await it.rest()
        assert it.owner(TOKEN) == name
    assert heard.handlers("a", TOKEN)[-1] == "connection_released"
    assert heard.handlers("b", TOKEN) == [
        "new_connection",
        "connection_established",
        "connection_released",
    ]
    it.kernel.close(TOKEN)
    await it.rest()
    assert "connection_closed" not in heard.handlers("a") + heard.handlers("b")


@in_played_time
async def test_who_cannot_decide_is_not_made_the_owner() -> None:
    it = await HostedWorld(
        {
            "a": Plugin,
            "k": type("K", (Plugin,), {"steers": "kernel"}),
            "w": type("W", (Plugin,), {"claims": False}),
            "off": type("Off", (Plugin,), {}),
        }
    ).start()
    await it.host.disable("off")
    connection = it.connect()

    for name, words in (
        ("k", "k steers the kernel path manager"),
        ("w", "no policy 'w' decides here; known: a, k"),
        ("off", "no policy 'off' decides here"),
        ("x" * 999, "no policy 'x"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            await it.host.set_owner(connection, name)
    assert it.owner(TOKEN) == "a"


@in_played_time
async def test_connections_pass_on_in_order_and_come_not_back_by_themselves() -> None:
    heard = Heard()
    it = await HostedWorld(
        {"a": recorder(heard, "a"), "b": recorder(heard, "b", match=Match(port=(443,)))}
    ).start()
    for number in range(1, 101):
        it.connect(1000 - number, _tuple(number))  # tokens run the other way
    it.connect(5, FIRST)  # b does not want it
    await it.rest()
    heard.clear()
    await it.host.disable("a")
    await it.rest()

    taken = [c.number for name, c in heard.by("b") if name == "new_connection"]
    assert taken == list(range(1, 101))
    assert heard.handlers("b", 999) == ["new_connection", "connection_established"]
    assert heard.handlers("a") == ["stop"]
    assert it.owner(5) == ""
    assert (it.policy("a").connections, it.policy("b").connections) == (0, 100)

    await it.host.enable("a")
    await it.rest()
    assert it.owner(5) == "a"
    assert it.policy("b").connections == 100
    it.connect(6, _tuple(6))
    assert it.owner(6) == "a"


@pytest.mark.parametrize(("failures", "state"), [("FFFFF", FAILED), ("FFFFGF", RUNNING)])
@in_played_time
async def test_five_failures_in_a_row_pass_its_connections_on(
    failures: str, state: PolicyState, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()
    sequence = iter(failures)

    async def failing(_: Plugin, connection: Connection, address: object) -> None:
        del connection, address
        if next(sequence) == "F":
            raise ValueError("as asked")

    it = await HostedWorld(
        {"a": recorder(heard, "a", new_address=failing), "b": recorder(heard, "b")}
    ).start()
    it.connect()
    await it.rest()
    for number in range(len(failures)):
        it.engine.take(events.NewAddress(TOKEN, number + 1, "10.0.9.9", 80))
    await it.rest()
    for _ in range(8):
        await asyncio.sleep(0)

    assert it.policy("a").state is state
    assert it.policy("a").errors == 5
    assert "new_address: ValueError: as asked" in it.policy("a").problem
    named = f"plugin a, new_address of connection {TOKEN:08x}: ValueError: as asked"
    traces = [bool(r.exc_info) for r in caplog.records if r.getMessage().startswith(named)]
    assert traces == [True, False, False, False, False]  # once in full
    assert it.owner(TOKEN) == ("b" if state is FAILED else "a")
    if state is FAILED:
        assert it.policy("a").problem.startswith("5 handlers failed in a row, the last: ")
        assert heard.handlers("b", TOKEN) == ["new_connection", "connection_established"]


# Reload


@in_played_time
async def test_a_reload_keeps_connections_and_introduces_them_to_the_new_one_only() -> None:
    """What happens while it is between two instances is in the pictures that it gets."""
    heard = Heard()
    gate = asyncio.Event()
    it = await HostedWorld(
        {
            "a": recorder(heard, "old", stop=lambda _: gate.wait()),
            "b": recorder(heard, "b"),
        }
    ).start()
    it.connect(1, _tuple(1))
    it.connect(2, _tuple(2))
    await it.rest()
    again = asyncio.Event()
    it.plugins["a"] = recorder(heard, "new", start=lambda _: again.wait())
    reloading = asyncio.ensure_future(it.host.reload("a"))
    await asyncio.sleep(0.1)
    for turn in (gate, again):
        heard.clear()
        base = 10 if turn is gate else 20
        it.connect(base + 1, _tuple(base + 1))
        it.engine.take(events.NewAddress(2, base, "10.0.9.9", 80))
        if turn is again:
            it.kernel.close(1)
        await asyncio.sleep(1)
        assert [call for call in heard if call[1] not in ("stop", "start")] == []
        turn.set()
        await asyncio.sleep(0.1)
    await reloading
    await it.rest()

    assert [c.token for _, c in heard.by("new", "new_connection")] == [2, 11, 21]
    assert [a.id for a in heard.by("new", "new_connection")[0][1].remote_addresses] == [10, 20]
    assert heard.by("old") == heard.by("b") == []
    assert [it.owner(token) for token in (2, 11, 21)] == ["a", "a", "a"]


@in_played_time
async def test_a_bad_file_changes_nothing_and_one_that_does_not_start_passes_on() -> None:
    heard = Heard()
    it = await HostedWorld({"a": recorder(heard, "a"), "b": recorder(heard, "b")}).start()
    it.connect()
    await it.rest()
    it.plugins["a"] = "class ("
    with pytest.raises(NotReady, match="stays as it was: line 1"):
        await it.host.reload("a")
    it.engine.take(events.NewAddress(TOKEN, 1, "10.0.9.9", 80))
    await it.rest()
    assert heard.handlers("a", TOKEN)[-1] == "new_address"
    assert (it.policy("a").state, it.owner(TOKEN)) == (RUNNING, "a")

    it.plugins["a"] = recorder(heard, "a", start=lambda _: _raise())
    with pytest.raises(NotReady, match="it did not start"):
        await it.host.reload("a")
    await it.rest()
    assert (it.policy("a").state, it.owner(TOKEN)) == (FAILED, "b")
    assert heard.handlers("b", TOKEN) == ["new_connection", "connection_established"]


async def _raise() -> None:
    raise ValueError("as asked")


@pytest.mark.parametrize("end", ["disable", "reload", "fail"])
@in_played_time
async def test_what_it_listened_on_ends_with_the_instance(end: str) -> None:
    class Listens(Plugin):
        """Forgets to close."""

        async def start(self) -> None:
            self.pm.listen("10.0.1.1", 8080)
            if failing:
                raise ValueError

    failing = False
    it = await HostedWorld({"a": Listens}).start()
    assert list(it.kernel.own_listeners) == [("10.0.1.1", 8080)]
    if end == "disable":
        await it.host.disable("a")
    elif end == "reload":
        await it.host.reload("a")
    else:
        failing = True
        with pytest.raises(NotReady):
            await it.host.reload("a")
    counts = [sum(users.values()) for users in it.kernel.own_listeners.values()]
    assert counts == ([1] if end == "reload" else [])


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

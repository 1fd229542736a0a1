"""Which policies run, and who decides for which connection.

On the kernel in memory, in played time.  Behaviour that mptcpd has too is that of its own tests.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from typing import Any

import pytest

from mptcpd_dbus.config_file import Section
from mptcpd_dbus.core import events
from mptcpd_dbus.core.errors import ConfigurationError, InvalidArgument
from mptcpd_dbus.core.policies import PolicyState
from mptcpd_dbus.core.readings import ConnectionRead, LocalAddressesRead
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.plugin import Connection, Match, Plugin
from tests.policy.hosted_world import Heard, HostedWorld, in_played_time, recorder
from tests.world import FIRST, TOKEN

HIGH, LOW = -20, 19
RUNNING, FAILED = PolicyState.RUNNING, PolicyState.FAILED


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

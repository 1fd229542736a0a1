"""What each policy hears of what happens, and that its views show the same.

On the kernel in memory, in played time.  Behaviour that mptcpd has too is that of its own tests.
"""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import replace
from typing import Any

from mptcpd_dbus.core import events
from mptcpd_dbus.core.network import NO_TRAITS, AddressTrait
from mptcpd_dbus.core.policies import PolicyState
from mptcpd_dbus.core.readings import AddressTraitsRead, SettingsRead
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.plugin import Plugin
from tests.policy.hosted_world import Heard, HostedWorld, in_played_time, recorder
from tests.world import FIRST, TOKEN

RUNNING = PolicyState.RUNNING


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

"""Policies that are disabled, enabled and loaded anew while connections live.

On the kernel in memory, in played time.  Behaviour that mptcpd has too is that of its own tests.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio

import pytest

from mptcpd_dbus.core import events
from mptcpd_dbus.core.errors import NotReady
from mptcpd_dbus.core.policies import PolicyState
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.plugin import Plugin
from tests.policy.hosted_world import Heard, HostedWorld, in_played_time, recorder
from tests.world import TOKEN

RUNNING, FAILED = PolicyState.RUNNING, PolicyState.FAILED


def _tuple(number: int) -> FourTuple:
    return FourTuple("10.0.1.1", 30000 + number, "10.0.9.1", 443)


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

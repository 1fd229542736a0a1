"""Ten thousand live connections: the state and the bus stay right, and so does a burst of ends.

What an event costs then is a benchmark's business: `make bench`.
"""
# SPDX-License-Identifier: BSD-3-Clause

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import MANAGER, SUBFLOW
from tests.lab.client import ROOT, busctl
from tests.lab.wait import eventually

pytestmark = pytest.mark.also_booted

COUNT = 10_000


async def test_ten_thousand_connections_are_shown_as_they_are(stage: MakeStage) -> None:
    """Objects equal ss(8), and all of them end at once without an event being lost."""
    play = await stage("--signal-budget", "0")
    listener = await play.listener()
    for _ in range(COUNT // 1000):
        await play.many(listener, 1000)
    await eventually(lambda: _shows(COUNT), within=30)

    assert await play.tokens_shown() == play.tokens()
    objects = busctl(
        *("call", "org.mptcpd1", ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
    )[0]
    shown = {
        (o[SUBFLOW]["LocalPort"]["data"], o[SUBFLOW]["RemotePort"]["data"])
        for o in objects.values()
        if SUBFLOW in o
    }
    assert shown == {(row[1][1], row[2][1]) for row in play.sockets()}
    assert len(shown) == COUNT

    play.viewer.signals.clear()
    play.client.kill()

    await eventually(lambda: _shows(0), within=30)
    assert not await play.tokens_shown()
    closed = [s.body[1] for s in play.viewer.signals if s.member == "ConnectionClosed"]
    assert len(set(closed)) == len(closed) == COUNT
    assert await play.viewer.get(ROOT, MANAGER, "EventsLost") == 0


def _shows(count: int) -> bool:
    return bool(busctl("get-property", "org.mptcpd1", ROOT, MANAGER, "ConnectionCount") == count)

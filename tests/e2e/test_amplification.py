"""What an unprivileged user does is told to all who listen, but it costs them no more than that.

Counted at a subscriber; the figures are told at the end of the run.  What a question brings to who
asks it is in `test_hostile.py`, and that a refused command tells nobody anything in
`test_hostile_arguments.py`.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections import Counter

import pytest

from tests import figures
from tests.e2e.conftest import MakeStage
from tests.e2e.stage import MANAGER, PORT
from tests.lab.app import App
from tests.lab.client import ROOT, BusClient, Signal
from tests.lab.hosts import SERVER
from tests.lab.wait import eventually

pytestmark = pytest.mark.usefixtures("people")

MANY, FEW, CHURN = 1000, 50, 500
SIGNALS = 10


def _size(signals: list[Signal]) -> int:
    """Give what they say, in characters: that is less than half of what they weigh."""
    return sum(len(str(signal.body)) for signal in signals)


async def _open_and_close(app: App, client: BusClient, count: int) -> list[Signal]:
    """Listen and stop listening so often; give the signals that came of it."""
    client.signals.clear()
    for _ in range(count):
        number, _ = await app.call("listen", address="127.0.0.1")
        await app.call("close", number=number)

    def told() -> bool:
        return sum(s.member == "ListenerClosed" for s in client.signals) == count

    await eventually(told)
    await client.get(ROOT, MANAGER, "Version")  # so nothing of it is still on its way
    return list(client.signals)


async def test_a_listener_that_comes_costs_a_subscriber_no_more_when_there_are_many(
    stage: MakeStage,
) -> None:
    """Everybody may have thousands; all of them are there for who asks, and cost each time."""
    play = await stage()
    app = play.lab.app("client", "alice")

    alone = await _open_and_close(app, play.viewer, FEW)
    for _ in range(MANY):
        await app.call("listen", address="127.0.0.1")

    async def all_known() -> bool:
        return len(await play.viewer.get(ROOT, MANAGER, "Listeners")) >= MANY

    await eventually(all_known)
    among_many = await _open_and_close(app, play.viewer, FEW)

    figures.tell(
        f"signals of {FEW} listeners that come and go: {_size(alone)} characters when alone,"
        f" {_size(among_many)} among {MANY}"
    )
    assert Counter(s.member for s in among_many) == Counter(s.member for s in alone)
    assert _size(among_many) < 1.2 * _size(alone)


async def test_a_connection_that_comes_and_goes_is_told_in_few_signals(stage: MakeStage) -> None:
    """Established, with an object for it and one for its subflow, and closed again."""
    play = await stage()
    listener = await play.listener()
    await play.agreed()
    play.viewer.signals.clear()

    pair, path = await play.connection(listener)
    # It lives long enough to have an object.
    await play.viewer.signal(lambda s: s.member == "InterfacesAdded" and s.body[0] == path)
    await play.client.call("close", number=pair.client)
    await play.server.call("close", number=pair.server)
    await play.viewer.signal(lambda s: s.member == "InterfacesRemoved" and s.body[0] == path)

    heard = play.viewer.signals
    members = Counter(signal.member for signal in heard)
    figures.tell(f"signals of a connection: {_size(heard)} characters, {dict(members)}")
    assert members["NewConnection"] == members["ConnectionClosed"] == 1
    assert len(heard) <= SIGNALS
    assert _size(heard) < 4000


async def test_connections_that_are_over_at_once_have_no_objects(stage: MakeStage) -> None:
    """Who makes thousands of them makes three signals of each and no more."""
    play = await stage()
    echo, _ = await play.server.call("listen", address=SERVER[4], port=PORT)
    await play.server.call("echo", listener=echo)
    await play.agreed()
    play.viewer.signals.clear()

    await play.client.call("churn", count=CHURN, address=SERVER[4], port=PORT, limit=60)

    def over() -> bool:
        return sum(s.member == "ConnectionClosed" for s in play.viewer.signals) == CHURN

    await eventually(over)
    members = Counter(signal.member for signal in play.viewer.signals)
    figures.tell(f"signals of {CHURN} short connections: {dict(members)}")
    assert members["NewConnection"] == CHURN
    assert members.total() < 3.5 * CHURN

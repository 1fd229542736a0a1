"""A handler that waits delays nothing else: not a thousand other connections, not a lost link.

The control is the same plugin with one lock around its handlers: it handles one thing after the
other, as a plugin with a single queue would.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import time

from mptcpd_dbus.core.events import ConnectionEstablished, NewSubflow, SubflowClosed
from tests.e2e.conftest import MakeStage
from tests.e2e.observer import Observer
from tests.e2e.stage import PORT, Stage
from tests.figures import tell
from tests.lab.carrier import Carrier
from tests.lab.hosts import SERVER, address
from tests.lab.plugin_files import PluginFiles
from tests.lab.wait import eventually

OTHERS, PORTION, RATE = 1000, 10, 400
LIMIT = 0.1
SILENT_PORT = 9

SILENCE = f"""
table ip silence {{
    chain arriving {{
        type filter hook input priority 0
        tcp dport {SILENT_PORT} drop
    }}
}}
"""

BUSY = f"""
    import asyncio
    import contextlib

    from mptcpd_dbus.plugin import MptcpdError, Plugin


    class Busy(Plugin):
        '''Joins over link2 or, on the first connection, over link3 to one that never answers'''

        turn = TURN

        async def connection_established(self, connection):
            async with self.turn:
                if connection.number == 1:
                    await self.pm.create_subflow(connection, interface="link3")
                    with contextlib.suppress(MptcpdError):
                        await self.pm.create_subflow(
                            connection, "{address("server", 1)}", {SILENT_PORT}, interface="link1",
                            timeout=20,
                        )
                else:
                    await self.pm.create_subflow(connection, interface="link2")

        async def update_interface(self, interface):
            async with self.turn:
                if not interface.running:
                    for connection in self.connections:
                        for subflow in connection.subflows:
                            if subflow.interface == interface.name:
                                await self.pm.abandon(connection, subflow.local_id)
"""


async def _play(make: MakeStage, turn: str, others: int) -> tuple[Stage, Observer, float]:
    """Have a join hang, others connect, a link lost; give when the link's loss was heard."""
    files = PluginFiles()
    files.write("busy", BUSY.replace("TURN", turn))
    stage = await make("--plugin-dir", str(files.path))
    stage.lab.sysctl("server", "net.mptcp.path_manager", "kernel")
    stage.lab.run("server", ["nft", "-f", "-"], input=SILENCE)
    listener = await stage.listener()
    with Observer(stage.lab) as observer, Carrier(stage.lab, 3) as carrier:
        await stage.connection(listener)
        await eventually(lambda: observer.of(NewSubflow))
        pending = ("-tinHO", "state", "syn-sent")
        await eventually(lambda: stage.lab.ss("client", *pending))
        began = time.monotonic()
        for number in range(others // PORTION):
            talks = await stage.client.call(
                "connect_many", count=PORTION, address=SERVER[4], port=PORT
            )
            await stage.client.call("send_each", talks=talks)
            await asyncio.sleep(began + number * PORTION / RATE - time.monotonic())
        lost = await carrier.change(stage.lab.cut, 3, up=False)
        await eventually(lambda: len(observer.of(ConnectionEstablished)) == others + 1)
        return stage, observer, lost


def _latencies(observer: Observer) -> list[float]:
    """How long each of the others waited for its second subflow."""
    first = observer.of(ConnectionEstablished)[0][1].token
    established = {e.token: t for t, e in observer.of(ConnectionEstablished) if e.token != first}
    return [t - established[e.token] for t, e in observer.of(NewSubflow) if e.token != first]


async def test_a_pending_join_delays_no_other_connection_and_no_lost_link(
    stage: MakeStage,
) -> None:
    it, observer, lost = await _play(stage, "contextlib.nullcontext()", OTHERS)
    assert it.lab.ss("client", "-tinHO", "state", "syn-sent"), "the join must still be pending"

    await eventually(lambda: len(_latencies(observer)) == OTHERS)
    latencies = sorted(_latencies(observer))
    closed = observer.of(SubflowClosed)
    given_up = [t - lost for t, e in closed if e.four_tuple[0] == address("client", 3)]
    typical, longest = latencies[OTHERS // 2], latencies[-1]
    joined = f"joined after {typical * 1000:.1f} ms, {longest * 1000:.1f} at most"
    tell(f"{OTHERS} connections beside a busy handler: {joined}; link {given_up[0] * 1000:.1f} ms")
    assert latencies[-1] < LIMIT
    assert given_up[0] < LIMIT


async def test_with_one_queue_for_all_it_would(stage: MakeStage) -> None:
    _, observer, lost = await _play(stage, "asyncio.Lock()", PORTION)
    await eventually(lambda: time.monotonic() > lost + 10 * LIMIT)

    assert _latencies(observer) == []
    assert observer.of(SubflowClosed) == []

"""What 10,000 live connections cost, beside 10: CPU per event, and how long the loop is held.

    make bench

The daemon's CPU time is the kernel's account (/proc/PID/schedstat); events are counted by their
signals at a subscriber.  They come at one rate, for a burst costs less per event than a trickle:
few, many and few again, for machines change their minds.  A sweep is no event: a round begins after
one and does not count if another came in between; what sweeps cost is printed for itself.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import gc
import os
import time
from functools import partial
from pathlib import Path
from statistics import median

from mptcpd_dbus.__main__ import COLLECTOR_THRESHOLDS
from mptcpd_dbus.core.state import State
from mptcpd_dbus.engine import Engine
from mptcpd_dbus.kernel.live import LiveKernel
from mptcpd_dbus.reconciler import Reconciler
from tests.bench.setting import setting
from tests.e2e.stage import MANAGER, Stage
from tests.lab.client import ROOT
from tests.lab.hosts import SERVER
from tests.lab.wait import eventually

FEW, MANY = 10, 10_000
CHURN, RATE = 2_000, 500  # connections in a round, and in a second; three events each
ROUNDS = 3


async def set_live(play: Stage, pairs: list[tuple[int, int]], listener: int, count: int) -> None:
    """Bring the number of live connections to *count* and wait until it is published."""
    while len(pairs) < count:
        made = await play.many(listener, min(count - len(pairs), 1000))
        pairs += zip(*made, strict=True)
    while len(pairs) > count:
        client, server = pairs.pop()
        await play.client.call("close", number=client)
        await play.server.call("close", number=server)

    async def published() -> bool:
        return bool(await play.viewer.get(ROOT, MANAGER, "ConnectionCount") == count)

    await eventually(published, within=60)


def cpu(pid: int) -> float:
    """Give the seconds of CPU that a process has had."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


async def churn(play: Stage, port: int) -> float:
    """Open and close connections; give the daemon's microseconds of CPU per event."""
    while True:
        sweeps = await statistic(play, "sweeps")
        await eventually(partial(_after, play, sweeps), within=120)
        sweeps += 1
        play.viewer.signals.clear()
        before = cpu(play.daemon.pid)
        target = {"address": SERVER[4], "port": port}
        await play.client.call("churn", count=CHURN, rate=RATE, limit=60, **target)

        # Some connections close before the peer has confirmed them: two events, not three.
        def closed() -> int:
            return sum(s.member == "ConnectionClosed" for s in play.viewer.signals)

        await eventually(lambda: closed() == CHURN, within=30)
        spent = cpu(play.daemon.pid) - before
        if await statistic(play, "sweeps") == sweeps:
            events = sum(s.interface == MANAGER for s in play.viewer.signals)
            return spent / events * 1e6


async def sweep(play: Stage) -> float:
    """Give the milliseconds of CPU of a sweep without any event."""
    sweeps = await statistic(play, "sweeps")
    await eventually(lambda: _after(play, sweeps), within=120)
    before = cpu(play.daemon.pid)
    sweeps += 1
    await eventually(lambda: _after(play, sweeps), within=120)
    return (cpu(play.daemon.pid) - before) * 1e3


async def statistic(play: Stage, name: str) -> int:
    """Read one of the daemon's counters."""
    return int((await play.viewer.call(ROOT, MANAGER, "GetStatistics"))[name])


async def _after(play: Stage, sweeps: int) -> bool:
    await asyncio.sleep(0.5)  # asking costs the daemon, too
    return await statistic(play, "sweeps") > sweeps


async def held(play: Stage) -> dict[str, tuple[float, float]]:
    """Read the client's kernel from this process; give seconds in all and the longest hold."""
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    found = {}
    with play.lab.inside("client"):
        kernel = LiveKernel()
        try:
            engine = Engine(State(), kernel)
            reconciler = Reconciler(engine, lambda: None)
            for name in ("everything is new", "nothing has changed"):
                gaps = [0.0]
                heart = asyncio.ensure_future(_beat(gaps))
                await asyncio.sleep(0)  # its first beat
                began = time.monotonic()
                await reconciler.compare()
                found[name] = (time.monotonic() - began, max(gaps))
                heart.cancel()
        finally:
            kernel.close()
    return found


async def _beat(gaps: list[float]) -> None:
    last = time.monotonic()
    while True:
        await asyncio.sleep(0)  # one round of the loop: how long that takes is what is measured
        now = time.monotonic()
        gaps.append(now - last)
        last = now


async def main() -> None:
    """Measure and print."""
    async with setting() as play:
        listener = await play.listener()
        echo, port = await play.server.call("listen", address=SERVER[4])
        await play.server.call("echo", listener=echo)
        pairs: list[tuple[int, int]] = []
        swept: dict[int, float] = {}
        rounds: dict[int, list[float]] = {FEW: [], MANY: []}
        holds: dict[str, tuple[float, float]] = {}
        for count in (FEW, MANY, FEW):
            await set_live(play, pairs, listener, count)
            swept[count] = await sweep(play)
            rounds[count] += [await churn(play, port) for _ in range(ROUNDS)]
            if count == MANY:
                holds = await held(play)
        tell(rounds, swept, holds)


def tell(
    rounds: dict[int, list[float]], swept: dict[int, float], holds: dict[str, tuple[float, float]]
) -> None:
    """Print the figures and what is wanted of them."""
    print(f"{os.uname().release}, {os.cpu_count()} CPUs, median of the rounds")
    cost = {count: median(values) for count, values in rounds.items()}
    for count, value in cost.items():
        print(f"CPU per event with {count:6} live connections: {value:6.1f} us")
    print(f"ratio: {cost[MANY] / cost[FEW]:.2f} (wanted: at most 1.2)")
    for count, value in swept.items():
        print(f"CPU of a sweep with {count:6} live connections:  {value:6.1f} ms")
    for name, (whole, longest) in holds.items():
        print(
            f"comparing {MANY} connections, {name}: {whole * 1000:.0f} ms,"
            f" the loop held {longest * 1000:.1f} ms at most (wanted: 20)"
        )


if __name__ == "__main__":
    asyncio.run(main())

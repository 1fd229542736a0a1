"""A cable is cut under each kind of traffic: for how long it stands still, and without the plugin.

The standby path has carried nothing before.  The control is the same connection with the plugin
disabled: the kernel heals by sending again over the standby what was lost, after a while.
"""
# SPDX-License-Identifier: BSD-3-Clause

import time
from dataclasses import dataclass, field
from statistics import mean

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import PORT, Stage
from tests.figures import tell
from tests.lab.app import Pair, converse
from tests.lab.carrier import Carrier
from tests.lab.hosts import SERVER, address
from tests.lab.plugin_files import shipped_plugins, write_configuration
from tests.lab.traffic import Kind, Meter, Stall, Traffic
from tests.lab.wait import eventually

RATE = 20_000_000
QUEUE = "400ms"  # a fresh path overruns a short one, which stalls bulk with or without any cut
LIMIT = 0.15
ROUNDS = 2
HAND_OVER = 0.1  # seconds; bulk that begins to stall later does so without any cut, too
CONFIGURATION = """
[core]
plugin-dir = {}
load-plugins = active_backup
[plugin active_backup]
interfaces = link1, link2
prefer = link1
"""

pytestmark = pytest.mark.both_ways


@dataclass
class Outage:
    """What one kind of traffic went through."""

    stalls: list[Stall] = field(default_factory=list)
    without: list[Stall] = field(default_factory=list)
    carried: list[tuple[str, dict[int, int]]] = field(default_factory=list)

    def told(self, title: str) -> str:
        """Say it in lines."""
        with_it = ", ".join(map(str, self.stalls))
        control = ", ".join(map(str, self.without))
        lines = [f"{title}: stalled {with_it}; without the plugin {control}"]
        for when, carried in self.carried:
            lines.append(
                f"    {when:22} link1 {carried[1] / 1e3:8.1f} kB, link2 {carried[2] / 1e3:8.1f} kB"
            )
        return "\n".join(lines)


class Scene:
    """A connection with its traffic, on a stage whose first link can be cut."""

    def __init__(self, stage: Stage, carrier: Carrier, pair: Pair, running: Traffic) -> None:
        self.stage, self.pair, self.running = stage, pair, running
        self.carrier = carrier
        self.meter = Meter(stage.lab)
        self.seen = Outage()

    async def pass_time(self, seconds: float, since: float) -> None:
        """Let the traffic run for so long after a moment, and until it really moves."""
        await eventually(lambda: time.monotonic() > since + seconds, within=seconds + 5)
        before = await self.running.received()

        async def moves() -> bool:
            return await self.running.received() > before

        await eventually(moves)

    def note(self, when: str) -> dict[int, int]:
        """Write down what the links have carried."""
        carried = self.meter.carried()
        self.seen.carried.append((when, carried))
        return carried

    async def cut(self, seconds: float) -> Stall:
        """Cut link1; give the longest stall since its carrier was lost."""
        lost = await self.carrier.change(self.stage.lab.cut, 1, up=False)
        self.meter.carried()  # what link1 had carried until then
        await self.pass_time(seconds, lost)
        bulk = self.running.kind in ("bulk up", "bulk down")
        return await self.running.stall(lost, lost + HAND_OVER if bulk else None)

    async def restore(self) -> None:
        """Have link1 again."""
        await self.carrier.change(self.stage.lab.restore, 1, up=True)

    async def returned(self) -> None:
        """Wait until link1 carries the traffic, and link2 none of it."""

        async def back() -> bool:
            self.meter.carried()
            await self.pass_time(0.05, time.monotonic())
            carried = self.meter.carried()
            assert carried[1] > 10 * carried[2], carried
            self.seen.carried.append(("when it was back", carried))
            return True

        await eventually(back)


async def _outage(stage: Stage, carrier: Carrier, kind: Kind, family: int, cuts: int) -> Outage:
    """Cut the first link so many times under one kind of traffic, then once without the plugin."""
    target = {"address": SERVER[family], "port": PORT}
    listener = await stage.listener(SERVER[family])
    pair = await converse(stage.client, stage.server, listener, **target)
    standby = address("client", 2, family)

    def standing_by() -> bool:
        return any(s[0] == pair.token and s[1][0] == standby for s in stage.sockets())

    await eventually(standing_by)
    running = Traffic(kind, stage.client, stage.server, pair, rate=RATE // 10)
    await running.start()
    scene = Scene(stage, carrier, pair, running)
    await scene.pass_time(0.2, time.monotonic())
    assert scene.note("before the first cut")[2] < 3000, "the standby has carried something"
    for number in range(cuts):
        scene.seen.stalls.append(await scene.cut(0.4))
        carried = scene.note(f"while cut ({number + 1})")
        assert carried[2] > 10 * carried[1]
        await scene.restore()
        await scene.returned()
    await stage.disable("active_backup")
    scene.meter.carried()
    scene.seen.without.append(await scene.cut(0.9))
    scene.note("cut without plugin")
    await running.stop()
    await scene.restore()
    # What is left in queues would count for the next connection.
    for app, number in ((stage.client, pair.client), (stage.server, pair.server)):
        await app.call("abort", talk=number)
    flows = ("-Htn", "state", "connected", "exclude", "time-wait")
    await eventually(lambda: not stage.lab.ss("client", *flows))
    await stage.server.call("close", number=listener)
    await stage.enable("active_backup")
    return scene.seen


async def _stage(make: MakeStage, peer: str) -> Stage:
    stage = await make(
        "--config", str(write_configuration(CONFIGURATION.format(shipped_plugins())))
    )
    stage.lab.sysctl("server", "net.mptcp.path_manager", peer)
    for link in (1, 2):
        stage.lab.bottleneck(link, f"{RATE}bit", queue=QUEUE)
    return stage


@pytest.mark.parametrize("peer", ["kernel", "userspace"])
@pytest.mark.parametrize("family", [4, 6])
async def test_traffic_goes_on_over_the_standby_when_the_cable_is_cut(
    stage: MakeStage, family: int, peer: str
) -> None:
    it = await _stage(stage, peer)
    kinds: dict[Kind, int] = {"ping-pong": 3, "push": 1, "paced up": 1, "paced down": 1}

    with Carrier(it.lab, 1) as carrier:
        for kind, cuts in kinds.items():
            seen = await _outage(it, carrier, kind, family, cuts)
            tell(seen.told(f"{kind} IPv{family}, peer under the {peer} path manager"))
            assert all(stall.own < LIMIT for stall in seen.stalls)
            assert seen.without[0].own > max(stall.own for stall in seen.stalls)


@pytest.mark.parametrize("peer", ["kernel", "userspace"])
@pytest.mark.parametrize("family", [4, 6])
async def test_bulk_that_fills_the_link_stalls_less_than_without_the_plugin(
    stage: MakeStage, family: int, peer: str
) -> None:
    it = await _stage(stage, peer)
    kinds: tuple[Kind, ...] = ("bulk up", "bulk down")

    with Carrier(it.lab, 1) as carrier:
        for kind in kinds:
            rounds = [await _outage(it, carrier, kind, family, 1) for _ in range(ROUNDS)]
            for seen in rounds:
                tell(seen.told(f"{kind} IPv{family}, peer under the {peer} path manager"))
            stalls = mean(seen.stalls[0].own for seen in rounds)
            without = mean(seen.without[0].own for seen in rounds)
            assert stalls < 0.75 * without
            assert kind == "bulk up" or stalls < LIMIT


async def test_a_cut_that_raises_no_carrier_event_is_left_to_the_kernel(stage: MakeStage) -> None:
    """Nobody hears of it; what was lost is sent again over the standby when a timer has run out."""
    it = await _stage(stage, "kernel")
    target = {"address": SERVER[4], "port": PORT}
    listener = await it.listener()
    pair = await converse(it.client, it.server, listener, **target)
    await eventually(lambda: len(it.sockets()) == 2)
    running = Traffic("push", it.client, it.server, pair)
    await running.start()
    with Carrier(it.lab, 1) as carrier:
        scene = Scene(it, carrier, pair, running)
        await scene.pass_time(0.2, time.monotonic())
        scene.note("before")
        dropped = time.monotonic()

        it.lab.drop(1)
        await scene.pass_time(1.5, dropped)
        silent = await running.stall(dropped, dropped + 0.5)
        carried = scene.note("while silent")
        it.lab.restore(1)
        await scene.pass_time(0.5, time.monotonic())
        heard = await scene.cut(0.5)  # the control: this one is heard of

    tell(f"push IPv4: stalled {silent} when nothing was heard, {heard} with a carrier event")
    assert len(it.sockets()) == 1
    assert carried[2] > 10_000
    assert silent.own > heard.own

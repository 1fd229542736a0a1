"""Proves of the lab's traffic what tests of policies take for granted: what moves, what stalls."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import re
import signal
import time

import pytest

from tests.lab.app import App, converse
from tests.lab.carrier import Carrier
from tests.lab.hosts import SERVER, Lab
from tests.lab.traffic import KINDS, Kind, Meter, Traffic
from tests.lab.wait import eventually

LINK_RATE = 20_000_000
TENTH = LINK_RATE // 10


async def traffic(
    lab: Lab, kind: Kind, family: int = 4, queue: str = "400ms"
) -> tuple[Traffic, App, App]:
    """Start a kind of traffic over the first link, and give it with the two ends."""
    # Bulk overruns a short queue, and what is dropped stalls it for as long as the queue is.
    lab.bottleneck(1, f"{LINK_RATE}bit", queue=queue)
    client, server = lab.app("client"), lab.app("server")
    listener, port = await server.call("listen", address=SERVER[family])
    pair = await converse(client, server, listener, address=SERVER[family], port=port)
    made = Traffic(kind, client, server, pair, rate=TENTH)
    await made.start()
    return made, client, server


async def seconds_pass(seconds: float, since: float) -> float:
    """Wait until so much time has passed since a moment and return the present one."""
    await eventually(lambda: time.monotonic() - since > seconds)
    return time.monotonic()


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", KINDS)
async def test_traffic_of_each_kind_runs_without_stalling_until_its_link_is_cut(
    lab: Lab, kind: Kind, family: int
) -> None:
    running, *_ = await traffic(lab, kind, family)
    await eventually(running.received)
    meter = Meter(lab)
    begun = time.monotonic()

    await seconds_pass(0.4, begun)
    carried = meter.carried()
    with Carrier(lab, 1) as carrier:
        lost = await carrier.change(lab.cut, 1, up=False)
    before = await running.stall(begun, lost)
    meter.carried()
    await seconds_pass(0.4, lost)
    after = await running.stall(lost)
    trickle = meter.carried()[1]

    print(f"{kind} IPv{family}: {before} before the cut, {after} since")
    assert before.own < 0.1
    assert after.own > 0.3
    assert carried[1] > 20_000
    assert carried[2] + carried[3] < 5_000
    assert trickle < 5_000


@pytest.mark.parametrize("kind", ["paced up", "paced down"])
async def test_paced_bulk_takes_the_rate_that_it_was_given(lab: Lab, kind: Kind) -> None:
    await traffic(lab, kind)
    meter = Meter(lab)
    begun = time.monotonic()

    elapsed = await seconds_pass(0.8, begun) - begun

    assert 0.8 < meter.carried()[1] * 8 / elapsed / TENTH < 1.3


async def test_bulk_takes_all_that_the_link_gives(lab: Lab) -> None:
    await traffic(lab, "bulk down")
    meter = Meter(lab)
    begun = time.monotonic()

    elapsed = await seconds_pass(0.8, begun) - begun

    assert meter.carried()[1] * 8 / elapsed > 0.6 * LINK_RATE


@pytest.mark.parametrize("end", ["client", "server"])
async def test_what_the_machine_takes_from_an_application_is_told_beside_the_stall(
    lab: Lab, end: str
) -> None:
    running, client, server = await traffic(lab, "ping-pong")
    await eventually(running.received)
    process = {"client": client, "server": server}[end].process
    begun = time.monotonic()

    process.send_signal(signal.SIGSTOP)
    await seconds_pass(0.2, begun)
    process.send_signal(signal.SIGCONT)

    async def told_beside() -> bool:
        held = await running.stall(begun)
        assert held.seconds > 0.19, held
        assert held.own < 0.05, held
        return True

    await eventually(told_beside)  # it looks now and then how long it was kept
    with Carrier(lab, 1) as carrier:
        lost = await carrier.change(lab.cut, 1, up=False)
    await seconds_pass(0.2, lost)
    cut = await running.stall(lost)

    assert cut.own > 0.15


async def test_a_stall_counts_from_the_moment_asked_about_and_only_those_begun_by_another(
    lab: Lab,
) -> None:
    running, *_ = await traffic(lab, "push")
    await eventually(running.received)
    begun = time.monotonic()
    await seconds_pass(0.1, begun)
    with Carrier(lab, 1) as carrier:
        lost = await carrier.change(lab.cut, 1, up=False)
    later = await seconds_pass(0.2, lost)
    await seconds_pass(0.1, later)

    whole, rest = await running.stall(lost), await running.stall(later)
    earlier = await running.stall(begun - 1, begun)  # push pauses for 5 ms at a time

    assert whole.seconds - rest.seconds == pytest.approx(later - lost, abs=0.05)
    assert earlier.seconds < 0.1 < rest.seconds


async def test_the_carrier_is_heard_of_when_it_goes_and_when_it_comes(lab: Lab) -> None:
    with Carrier(lab, 2) as carrier:
        for way, up in ((lab.cut, False), (lab.restore, True), (lab.cut, False)):
            begun = time.monotonic()
            heard = await carrier.change(way, 2, up=up)
            assert begun < heard < begun + 0.2


async def test_a_silenced_link_raises_no_carrier_event(lab: Lab) -> None:
    with Carrier(lab, 2) as carrier:
        silenced = asyncio.create_task(carrier.change(lab.drop, 2, up=False))
        _, waiting = await asyncio.wait([silenced], timeout=0.3)
        silenced.cancel()
        assert waiting == {silenced}
        assert await carrier.change(lab.cut, 2, up=False)  # the control: this one does


@pytest.mark.parametrize(("queue", "dropping"), [("20ms", True), ("400ms", False)])
async def test_a_long_queue_spares_bulk_the_drops_that_a_short_one_means(
    lab: Lab, queue: str, dropping: bool
) -> None:
    await traffic(lab, "bulk up", queue=queue)

    await seconds_pass(0.8, time.monotonic())

    told = lab.run("client", ["tc", "-s", "qdisc", "show", "dev", "link1"])
    assert (int(re.findall(r"dropped (\d+)", told)[0]) > 0) is dropping

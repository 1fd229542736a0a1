"""Commands that come at once begin in their order, some with each turn of the loop."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio

from mptcpd_dbus.pace import Pace


async def test_whoever_comes_alone_begins_without_waiting() -> None:
    pace = Pace()

    for _ in range(100):
        began = asyncio.ensure_future(pace.keep())
        await asyncio.sleep(0)
        assert began.done()
        await asyncio.sleep(0)


async def test_a_crowd_begins_in_its_order_and_lets_the_loop_go_round() -> None:
    pace, turns, begun = Pace(), 0, []
    loop = asyncio.get_running_loop()

    def turn() -> None:
        nonlocal turns
        turns += 1
        loop.call_soon(turn)

    async def one(number: int) -> None:
        await pace.keep()
        begun.append((number, turns))

    turn()
    crowd = [asyncio.ensure_future(one(number)) for number in range(100)]
    crowd[50].cancel()
    await asyncio.wait(crowd)

    assert [number for number, _ in begun] == [n for n in range(100) if n != 50]
    together = [sum(turn == at for _, turn in begun) for at in {turn for _, turn in begun}]
    assert max(together) <= 16
    assert len(together) == 7
    late = asyncio.ensure_future(one(100))
    await asyncio.sleep(0)
    assert late.done()

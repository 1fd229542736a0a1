"""What failed is left alone for longer and longer, and forgiven in the end."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mptcpd_dbus.plugin import Backoff, Plugin
from mptcpd_dbus.testing import connect, play
from mptcpd_dbus.testing.clock import PlayedLoop

ONE, OTHER = play(Plugin, connect(), connect()).connections


def _run(story: Callable[[Backoff], Awaitable[None]]) -> None:
    async def run() -> None:
        await story(Backoff())

    with asyncio.Runner(loop_factory=PlayedLoop) as runner:
        runner.run(run())


def test_each_failure_doubles_the_wait_up_to_a_minute() -> None:
    async def story(backoff: Backoff) -> None:
        waits = []
        for _ in range(9):
            waits.append(backoff.failed(ONE, "join"))
            assert backoff.waits(ONE, "join")
            await asyncio.sleep(waits[-1])
            assert not backoff.waits(ONE, "join")
        assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]

    _run(story)


def test_a_failure_that_is_told_twice_counts_once() -> None:
    async def story(backoff: Backoff) -> None:
        backoff.failed(ONE, "join")
        await asyncio.sleep(0.25)
        assert backoff.failed(ONE, "join") == pytest.approx(0.75)
        await asyncio.sleep(0.75)
        assert not backoff.waits(ONE, "join")
        assert backoff.failed(ONE, "join") == 2

    _run(story)


def test_what_did_not_fail_for_a_minute_is_forgiven() -> None:
    async def story(backoff: Backoff) -> None:
        for _ in range(3):
            await asyncio.sleep(backoff.failed(ONE, "join"))
        await asyncio.sleep(59)
        assert backoff.failed(ONE, "join") == 8
        await asyncio.sleep(8 + 61)
        assert backoff.failed(ONE, "join") == 1

    _run(story)


def test_other_things_other_connections_and_forgotten_ones_do_not_wait() -> None:
    async def story(backoff: Backoff) -> None:
        backoff.failed(ONE, "join")
        assert not backoff.waits(ONE, "announce")
        assert not backoff.waits(OTHER, "join")
        backoff.forget(ONE)
        assert not backoff.waits(ONE, "join")
        backoff.forget(OTHER)  # of which nothing was noted

    _run(story)

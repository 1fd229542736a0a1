"""A plugin as a program beside a daemon whose kernel is in memory: what reaches it, what ends it.

What it does on the real kernel is in tests/e2e/test_run_plugin.py.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mptcpd_dbus.bus.names import CALLS_UNANSWERED, ROOT
from mptcpd_dbus.bus.signals import SIGNALS_DROPPED
from mptcpd_dbus.config import Settings
from mptcpd_dbus.core import events
from mptcpd_dbus.core.errors import NotReady
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.policy.hosted import Hosted
from mptcpd_dbus.policy.mailbox import QUEUE
from mptcpd_dbus.remote import program as remote
from mptcpd_dbus.remote.daemon import OBJECT_MANAGER
from mptcpd_dbus.remote.mirror import Mirror
from tests.bus.conftest import until
from tests.bus.test_programs import Stage, stage
from tests.policy.hosted_world import Heard, recorder
from tests.world import TOKEN

__all__ = ["stage"]


class Beside:
    """The program, what its plugin heard, and how it ends."""

    def __init__(self, bus_address: str) -> None:
        self.heard = Heard()
        self.policy = Hosted("beside", (0, 0, 0))
        self.policy.kind = recorder(self.heard, "beside")
        self.program = remote.Program(
            self.policy, Settings(bus=bus_address), Path(), interactive=False
        )
        self._end: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def start(self, stage: Stage) -> None:
        """Run it until it decides."""
        self._end = asyncio.ensure_future(self.program.run())
        await until(lambda: self._end.done() or "beside" in stage.state.policies)

    async def end(self) -> str:
        """Wait for its end; give what it says."""
        with pytest.raises(remote.LetGo) as end:
            await asyncio.wait_for(self._end, 5)
        return str(end.value)

    async def stop(self) -> None:
        """End it."""
        self._end.cancel()
        with suppress(asyncio.CancelledError, remote.LetGo):
            await self._end

    def count(self, handler: str) -> int:
        """Give how often a handler was called."""
        return len(self.heard.by("beside", handler))


@pytest.fixture
async def beside(bus_address: str) -> AsyncIterator[Beside]:
    beside = Beside(bus_address)
    yield beside
    await beside.stop()


def _connect(stage: Stage, count: int) -> None:
    for number in range(1, count + 1):
        stage.connect(number, FourTuple("10.0.1.1", 1024 + number, "10.0.9.1", 80))


async def test_connections_that_close_at_once_are_all_told(stage: Stage, beside: Beside) -> None:
    """The objects of those whose calls are held back have gone by then."""
    count = 4 * CALLS_UNANSWERED
    await beside.start(stage)
    _connect(stage, count)
    await until(lambda: beside.count("connection_established") == count)

    stage.engine.batch([events.ConnectionClosed(number + 1) for number in range(count)])

    await until(lambda: beside.count("connection_closed") == count)


def test_what_belongs_to_a_connection_that_has_gone_is_not_taken_in() -> None:
    """Its news is older than the look at all objects, which does not have it."""
    mirror = Mirror()
    gone = f"{ROOT}/connection/1"

    mirror.added(f"{gone}/subflow/1", {"org.mptcpd1.Subflow": {"Connection": gone}})
    mirror.added(f"{gone}/address/local/1", {"org.mptcpd1.Address": {"Connection": gone}})

    assert mirror.get(f"{gone}/subflow/1") is None


def _drop(stage: Stage) -> None:
    """Say that signals were dropped."""
    manager = next(i for i in stage.interfaces.values() if i.name == "org.mptcpd1.Manager")
    stage.tree.tell_now(manager, SIGNALS_DROPPED, 1)


async def test_signals_that_were_dropped_lose_nothing_that_is_told(
    stage: Stage, beside: Beside
) -> None:
    await beside.start(stage)
    for number in range(1, 6):
        _drop(stage)
        _drop(stage)
        stage.listeners(1, number)
        await asyncio.sleep(0)

    await until(lambda: beside.count("events_lost") == 10)

    assert beside.count("listener_created") == 5


async def test_who_cannot_look_again_ends(
    stage: Stage, beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    await beside.start(stage)
    daemon = beside.program._daemon  # noqa: SLF001
    call: Callable[..., Any] = daemon.call

    async def refused(path: str, interface: str, *more: Any, **named: Any) -> Any:
        if interface == OBJECT_MANAGER:
            raise NotReady("too many large answers")
        return await call(path, interface, *more, **named)

    monkeypatch.setattr(daemon, "call", refused)
    _drop(stage)

    assert await beside.end() == "what the daemon shows cannot be read: too many large answers"


async def test_a_plugin_that_cannot_be_made_is_refused_in_one_line(
    stage: Stage, beside: Beside
) -> None:
    def fails(*_: Any) -> None:
        raise ValueError("no")

    beside.policy.kind = type("Fails", (beside.policy.kind,), {"__init__": fails})
    await beside.start(stage)

    assert await beside.end() == "plugin beside did not start: ValueError: no"


async def test_who_is_let_go_while_it_registers_does_not_come_back(
    stage: Stage, beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any) -> None:
        beside.program._let_go("it was disabled")  # noqa: SLF001
        raise NotReady("you have no policy")

    monkeypatch.setattr(beside.program, "_register", refused)
    await beside.start(stage)

    assert await beside.end() == "it was disabled"


async def test_a_plugin_that_does_not_start_is_not_stopped(stage: Stage, beside: Beside) -> None:
    async def fails(_: Any) -> None:
        raise ValueError("no")

    beside.policy.kind = recorder(beside.heard, "beside", start=fails)
    await beside.start(stage)

    assert await beside.end() == "plugin beside did not start"
    assert beside.heard == []


async def test_a_connection_that_it_cannot_follow_is_given_up_once(
    stage: Stage, beside: Beside, caplog: pytest.LogCaptureFixture
) -> None:
    async def forever(*_: Any) -> None:
        await asyncio.Event().wait()

    beside.policy.kind = recorder(beside.heard, "beside", new_address=forever)
    await beside.start(stage)
    connection = stage.connect()
    assert connection.owner == "beside"

    for number in range(2 * QUEUE):
        stage.engine.take(events.NewAddress(TOKEN, number % 2 + 1, f"10.1.{number % 251}.1", 80))

    await until(lambda: connection.owner != "beside")
    await until(lambda: beside.count("connection_released") == 1)
    assert caplog.text.count("events waited for one handler and were dropped") == 1

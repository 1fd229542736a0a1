"""The reader of events: when it rests, who can have it look, and that it never goes deaf."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import socket
from collections.abc import Iterator
from typing import cast

import pytest

from mptcpd_dbus import event_reader
from mptcpd_dbus.core import events
from mptcpd_dbus.engine import Engine
from mptcpd_dbus.event_reader import EventReader
from mptcpd_dbus.kernel.event_socket import EventSocket
from tests.lab.wait import eventually

ONE: list[events.MptcpEvent] = [events.ConnectionClosed(1)]


class Source:
    """Stands for the event socket: each `tell` is a slice of one event."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._left = 0

    def fileno(self) -> int:
        """Give what is watched."""
        return self._ours.fileno()

    def tell(self) -> None:
        """Have one event more."""
        self._theirs.send(b"x")
        self._left += 1

    def drain(self) -> tuple[list[events.MptcpEvent], bool, bool]:
        """Give one, and whether there are more."""
        self._ours.recv(1)
        self._left -= 1
        return ONE, False, self._left > 0

    def close(self) -> None:
        """End it."""
        self._ours.close()
        self._theirs.close()


class Listener:
    """Stands for the engine."""

    def __init__(self) -> None:
        self.heard = 0
        self.fails = self.in_a_hurry = False

    def batch(self, batch: list[events.MptcpEvent]) -> None:
        """Count them, and fail if it is to."""
        self.heard += len(batch)
        if self.fails:
            raise RuntimeError("a fault on the way of an event")


@pytest.fixture
def source() -> Iterator[Source]:
    """Give a source of slices."""
    source = Source()
    yield source
    source.close()


async def _resting(source: Source, listener: Listener) -> EventReader:
    """Give a reader that has read one slice and rests."""
    reader = EventReader(cast("EventSocket", source), cast("Engine", listener))
    reader.start()
    source.tell()
    await eventually(lambda: listener.heard == 1)
    return reader


@pytest.fixture
def any_is_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it rest whatever it has read, and for a moment only."""
    monkeypatch.setattr(event_reader, "_BUSY", 0)
    monkeypatch.setattr(event_reader, "_REST", 0.01)


@pytest.mark.usefixtures("any_is_many")
async def test_a_fault_on_the_way_of_an_event_is_not_the_last_that_it_hears(
    source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    listener = Listener()
    reader = await _resting(source, listener)

    listener.fails = True
    source.tell()
    await eventually(lambda: listener.heard == 2)
    listener.fails = False
    source.tell()
    await eventually(lambda: listener.heard == 3)

    assert "a fault on the way of an event" in caplog.text
    reader.stop()


@pytest.mark.usefixtures("any_is_many")
async def test_whoever_wants_to_know_has_it_read_all_that_came_while_it_rests(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_reader, "_REST", 1e6)
    listener = Listener()
    reader = await _resting(source, listener)

    for _ in range(3):
        source.tell()
    for _ in range(9):
        await asyncio.sleep(0)
    assert listener.heard == 1
    reader.catch_up()

    assert listener.heard == 4
    reader.stop()

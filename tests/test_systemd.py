"""What the service manager is told."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mptcpd_dbus.systemd import feed_watchdog, notify


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Listen as the service manager does, and say where."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


def test_lines_go_out_in_one_datagram(manager: socket.socket) -> None:
    notify("READY=1", "STATUS=fine")

    assert manager.recv(100) == b"READY=1\nSTATUS=fine"


def test_an_abstract_address_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0mptcpd-dbus-test")
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", "@mptcpd-dbus-test")

        notify("STOPPING=1")

        assert listener.recv(100) == b"STOPPING=1"


def test_without_a_service_manager_nothing_is_said(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET")

    notify("READY=1")

    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


async def test_the_watchdog_is_fed_twice_as_often_as_wanted(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    loop = asyncio.get_running_loop()
    manager.setblocking(False)

    calls: list[int] = []
    feeding = asyncio.ensure_future(feed_watchdog(lambda: "fine", lambda: calls.append(1)))
    began = loop.time()
    for _ in range(5):
        assert await loop.sock_recv(manager, 100) == b"WATCHDOG=1\nSTATUS=fine"
    feeding.cancel()

    assert loop.time() - began >= 4 * 0.009
    assert len(calls) == 5


async def test_without_a_watchdog_there_is_no_wake_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)

    await asyncio.wait_for(feed_watchdog(str, lambda: None), 1)


def test_a_service_manager_that_is_not_there_is_logged_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nowhere"))

    with caplog.at_level(logging.WARNING):
        notify("READY=1", "STATUS=fine")

    assert "the service manager was not told READY=1" in caplog.text

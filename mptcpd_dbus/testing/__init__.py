"""For those who write plugins: a kernel in memory, and plays that show what a plugin commands.

    from mptcpd_dbus.testing import connect, link, play

    def test_it_joins_over_the_second_link() -> None:
        played = play(Mine, link("eth0", "10.0.1.1"), link("wwan0", "10.0.2.1"), connect())

        assert played.commands == ["create 10.0.2.1 id 1 dev wwan0 -> 10.0.9.1:443"]

The daemon itself must not import it.
"""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.testing.fake_kernel import JOINED, Answer, FakeConnection, FakeKernel
from mptcpd_dbus.testing.happenings import (
    address,
    announced,
    answers,
    close,
    connect,
    cut,
    joined,
    link,
    managed,
    no_address,
    reload,
    restore,
    subflow_lost,
    wait,
    withdrawn,
)
from mptcpd_dbus.testing.play import TOKEN, Happening, Played, World, play

__all__ = [
    "JOINED",
    "TOKEN",
    "Answer",
    "FakeConnection",
    "FakeKernel",
    "Happening",
    "Played",
    "World",
    "address",
    "announced",
    "answers",
    "close",
    "connect",
    "cut",
    "joined",
    "link",
    "managed",
    "no_address",
    "play",
    "reload",
    "restore",
    "subflow_lost",
    "wait",
    "withdrawn",
]

"""When to try again what failed, so that a peer that says no is not asked all the time."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import Hashable
from typing import NamedTuple

from mptcpd_dbus.policy.snapshots import Connection

FIRST, MOST = 1.0, 60.0
"""Seconds to wait after the first failure, and at most."""

_TICK = 0.001
"""A timer may fire so much too early, by the resolution of clocks."""


class _Failure(NamedTuple):
    wait: float
    until: float  # on the clock of the loop


class Backoff:
    """Longer waits after each failure: 1, 2, 4 ... 60 seconds.

    What is tried has a name of your choice, on each connection its own: a pair of addresses, say.
    What did not fail for a minute after its wait is forgiven.
    """

    def __init__(self) -> None:
        self._failures: dict[int, dict[Hashable, _Failure]] = {}

    def failed(self, connection: Connection, what: Hashable) -> float:
        """Note a failure, and give the seconds to wait; told again meanwhile it counts once."""
        failures = self._failures.setdefault(connection.number, {})
        now = asyncio.get_running_loop().time()
        last = failures.get(what)
        if last is not None and now + _TICK < last.until:
            return last.until - now
        wait = FIRST if last is None or now > last.until + MOST else min(2 * last.wait, MOST)
        failures[what] = _Failure(wait, now + wait)
        return wait

    def waits(self, connection: Connection, what: Hashable) -> bool:
        """Whether it is too early to try that again."""
        last = self._failures.get(connection.number, {}).get(what)
        return last is not None and asyncio.get_running_loop().time() + _TICK < last.until

    def forget(self, connection: Connection) -> None:
        """Forget a connection that is gone."""
        self._failures.pop(connection.number, None)

"""When to try again what failed, so that a peer that says no is not asked all the time."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import Hashable
from typing import NamedTuple

from mptcpd_dbus.policy.snapshots import Connection

FIRST, MOST = 1.0, 60.0
"""Seconds to wait after the first failure, and at most."""

REMEMBERED = 256
"""So many failures are remembered of a connection; with so many nothing new is tried on it."""


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
        now = _now()
        last = failures.get(what)
        if last is not None and now < last.until:
            return last.until - now
        if last is None and len(failures) >= REMEMBERED:
            for old in [w for w, failure in failures.items() if now > failure.until + MOST]:
                del failures[old]
            if len(failures) >= REMEMBERED:
                return MOST
        forgiven = last is None or now > last.until + MOST
        wait = FIRST if last is None or forgiven else min(2 * last.wait, MOST)
        failures[what] = _Failure(wait, now + wait)
        return wait

    def waits(self, connection: Connection, what: Hashable) -> bool:
        """Whether it is too early to try that again, or too much has failed to try anything new."""
        failures = self._failures.get(connection.number, {})
        last = failures.get(what)
        return _now() < last.until if last is not None else len(failures) >= REMEMBERED

    def next(self, connection: Connection) -> float | None:
        """Give the seconds until something can be tried again; None if nothing has to wait."""
        now = _now()
        waits = (f.until - now for f in self._failures.get(connection.number, {}).values())
        return min((wait for wait in waits if wait > 0), default=None)

    def forget(self, connection: Connection) -> None:
        """Forget a connection that is gone."""
        self._failures.pop(connection.number, None)


def _now() -> float:
    return asyncio.get_running_loop().time()

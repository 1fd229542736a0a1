"""From the kernel's counters of a subflow, read now and then, to what it does per second; pure.

Source: struct tcp_info of <linux/tcp.h>, by its names without the prefix tcpi_.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_COUNTED = ("bytes_sent", "bytes_received", "total_retrans")
_RECENT = 1000  # milliseconds


class Rates(NamedTuple):
    """What subflows have done between two readings: bytes per second, retransmits, round trips.

    None is what was not measured yet, or what an older kernel does not tell.
    """

    sent: float | None = None
    received: float | None = None
    new_retrans: int | None = None
    total_retrans: int | None = None
    rtt: int | None = None
    rttvar: int | None = None


class Meter:
    """The last reading of a subflow's counters, and what the one before makes of it."""

    __slots__ = ("_before", "at", "promising", "rates")

    def __init__(self, at: float) -> None:
        self.at = at
        """When it was read, or made."""
        self.rates = Rates()
        self.promising = False
        """Whether a second reading would tell of traffic: there was some just before the first."""
        self._before: dict[str, int] = {}

    def read(self, at: float, counters: Mapping[str, int]) -> None:
        """Take in the counters as they were at a moment, in seconds of a clock that never jumps."""
        seconds = at - self.at

        def gained(name: str) -> int | None:
            if name not in self._before or name not in counters:
                return None
            return max(0, counters[name] - self._before[name])

        def rate(name: str) -> float | None:
            gain = gained(name)
            return None if gain is None or seconds <= 0 else gain / seconds

        self.rates = Rates(
            rate("bytes_sent"),
            rate("bytes_received"),
            gained("total_retrans"),
            *(counters.get(name) for name in ("total_retrans", "rtt", "rttvar")),
        )
        idle = min(counters.get(name, _RECENT) for name in ("last_data_sent", "last_data_recv"))
        self.promising = not self._before and idle < _RECENT
        self.at = at
        self._before = {name: counters[name] for name in _COUNTED if name in counters}


def total(every: Sequence[Rates]) -> Rates:
    """Add up the rates and retransmits of subflows; what is known of none stays unknown."""

    def added(*values: Any) -> Any:
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    return Rates(*(added(*values) for values in zip(*every, strict=True)))._replace(
        rtt=None, rttvar=None
    )

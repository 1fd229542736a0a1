"""A figure of the report: ours, mptcpd's, their ratio, and what is wanted of which."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import inf
from operator import truediv
from statistics import median
from typing import Generic, Literal, TypeVar

from tests.bench.daemons import Name

T = TypeVar("T")
Judged = Literal["ratio", "ours"]


@dataclass(frozen=True)
class Figure:
    """One row."""

    workload: str
    what: str
    unit: str
    ours: float | None = None
    mptcpd: float | None = None
    ratio: float | None = None
    most: float | None = None
    """What is wanted at most, of what is judged."""
    judged: Judged = "ratio"

    @property
    def met(self) -> bool | None:
        """Whether it is as wanted; None if nothing is."""
        value = self.ratio if self.judged == "ratio" else self.ours
        return None if self.most is None else value is not None and value <= self.most


@dataclass(frozen=True)
class Pairs(Generic[T]):
    """What rounds have measured, neighbours beside each other."""

    ours: list[T]
    mptcpd: list[T]

    def figure(
        self,
        row: tuple[str, str, str],
        value: Callable[[T], float],
        *,
        how: Callable[[Sequence[float]], float] = median,
        most: float | None = None,
        judged: Judged = "ratio",
    ) -> Figure:
        """Make a row: the median of each, or another summary, and the median of the ratios."""
        ours, theirs = ([value(one) for one in rounds] for rounds in (self.ours, self.mptcpd))
        comparable = all(theirs) and inf not in (*ours, *theirs)
        ratio = median(map(truediv, ours, theirs)) if comparable else None
        return Figure(*row, how(ours), how(theirs), ratio, most, judged)


async def alternate(rounds: int, measure: Callable[[Name], Awaitable[T]]) -> Pairs[T]:
    """Measure both daemons in turn, so many times, so that both have the same machine."""
    found: Pairs[T] = Pairs([], [])
    for number in range(rounds):
        if number % 2:
            found.ours.append(await measure("ours"))
            found.mptcpd.append(await measure("mptcpd"))
        else:
            found.mptcpd.append(await measure("mptcpd"))
            found.ours.append(await measure("ours"))
    return found

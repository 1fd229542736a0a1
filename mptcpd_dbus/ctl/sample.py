"""Asks for the counters of subflows, and for no more of them than a daemon should be asked for.

Those that are shown come first; what is left goes round all others, so that a busy one is found,
which with one reading is not known yet: what had traffic then has its second one at once.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import Collection, Iterable, Iterator
from heapq import nsmallest

from mptcpd_dbus.bus.error_names import DISCONNECTED, BusError
from mptcpd_dbus.bus.names import SUBFLOW
from mptcpd_dbus.ctl.daemon import Daemon
from mptcpd_dbus.ctl.follow import Subflow

CALLS = 100
"""So many a second: half of what one program may call."""
_AT_A_TIME = 4


def chosen(shown: Collection[Subflow], every: Iterable[Subflow], calls: int) -> list[Subflow]:
    """Choose whom to ask, the longest not asked first; a quarter of the calls is for the others."""

    def turn(subflow: Subflow) -> tuple[bool, float]:
        return not subflow.meter.promising, subflow.meter.at

    ours = {it.path for it in shown}
    least = calls - min(len(ours), calls - calls // 4)
    others = nsmallest(least, (it for it in every if it.path not in ours), key=turn)
    return nsmallest(calls - len(others), shown, key=turn) + others


async def read(daemon: Daemon, wanted: Collection[Subflow]) -> None:
    """Ask each once; who has gone meanwhile, or is not to be had now, keeps what it had."""
    left = iter(wanted)
    await asyncio.gather(*(_read_some(daemon, left) for _ in range(_AT_A_TIME)))


async def _read_some(daemon: Daemon, left: Iterator[Subflow]) -> None:
    now = asyncio.get_running_loop().time
    for subflow in left:
        try:
            counters = await daemon.read(subflow.path, SUBFLOW, "GetStatistics")
        except BusError as error:
            if error.name == DISCONNECTED:
                raise
        else:
            subflow.meter.read(now(), counters)

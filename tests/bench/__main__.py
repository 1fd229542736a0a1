"""Measures our daemon beside Debian's mptcpd: `make bench`, with ARGS='--only churn --quick'."""
# SPDX-License-Identifier: BSD-3-Clause

import argparse
import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.bench import report
from tests.bench.churn import churn
from tests.bench.command import command
from tests.bench.figures import Figure
from tests.bench.flap import flap
from tests.bench.growth import growth
from tests.bench.hold import hold
from tests.bench.idle import idle
from tests.bench.latency import latency
from tests.bench.live import live
from tests.bench.objects import objects
from tests.bench.overflow import overflow
from tests.bench.restart import restart
from tests.bench.setting import Setting, setting
from tests.bench.subflow import subflow

WORKLOADS: dict[str, Callable[[Setting, bool], Awaitable[list[Figure]]]] = {
    "idle": idle,
    "churn": churn,
    "subflow": subflow,
    "hold": hold,
    "overflow": overflow,
    "restart": restart,
    "growth": growth,
    "flap": flap,
    "live": live,
    "objects": objects,
    "latency": latency,
    "command": command,
}


async def measure(name: str, quick: bool) -> list[Figure]:
    """Run a workload on a stage of its own."""
    sys.stderr.write(f"{name} ...\n")
    async with setting() as it:
        return await WORKLOADS[name](it, quick)


def main() -> int:
    """Measure and report; a workload that fails costs its own rows."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=WORKLOADS, help="this workload alone")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and connections")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    given = parser.parse_args()
    where = report.machine()
    figures: list[Figure] = []
    failed = 0
    for name in given.only or WORKLOADS:
        try:
            figures += asyncio.run(measure(name, given.quick))
        except Exception:  # noqa: BLE001 # whatever it is, it is told
            traceback.print_exc()
            failed += 1
        if given.json:
            report.write(given.json, where, figures)
    sys.stdout.write(report.text(where, figures))
    return failed


if __name__ == "__main__":
    sys.exit(main())

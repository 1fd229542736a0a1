"""The report: one table for terminal and document, and the JSON that it is made from.

    .venv/bin/python -m tests.bench.report FILE

writes the table of a run with --json into docs/performance.md, between its two markers.
"""
# SPDX-License-Identifier: BSD-3-Clause

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from math import inf
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure
from tests.lab.sandbox import REPOSITORY

DOCUMENT = REPOSITORY / "docs/performance.md"
BEGIN, END = "<!-- figures: make bench -->", "<!-- end of figures -->"
NEVER = "never"  # JSON has no word for it
HEAD = ("workload", "what", "unit", "ours", "mptcpd", "ratio", "wanted", "")


def machine() -> dict[str, Any]:
    """Say where and when this is."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in cpus if line.startswith("model name")), "?")
    query = ["dpkg-query", "-W", "-f", "${Version}", "mptcpd"]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "kernel": platform.release(),
        "processors": f"{os.cpu_count()} x {model}",
        "python": platform.python_version(),
        "mptcpd": subprocess.run(query, check=True, capture_output=True, text=True).stdout,
        "load": round(os.getloadavg()[0], 1),
    }


def write(file: Path, where: dict[str, Any], figures: Sequence[Figure]) -> None:
    """Write JSON."""
    rows = [
        {name: NEVER if value == inf else value for name, value in asdict(figure).items()}
        | {"met": figure.met}
        for figure in figures
    ]
    file.write_text(json.dumps({"machine": where, "figures": rows}, indent=1) + "\n")


def read(file: Path) -> tuple[dict[str, Any], list[Figure]]:
    """Read it back."""
    data = json.loads(file.read_text())
    return data["machine"], [_figure(row) for row in data["figures"]]


def _figure(row: dict[str, Any]) -> Figure:
    names = (field.name for field in fields(Figure))
    values: dict[str, Any] = {name: inf if row[name] == NEVER else row[name] for name in names}
    return Figure(**values)


def text(where: dict[str, Any], figures: Sequence[Figure]) -> str:
    """Give a line about the machine and a table."""
    rows = [HEAD, *map(_row, figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(map(str.ljust, row[:3], widths)) + " | "
        + " | ".join(map(str.rjust, row[3:], widths[3:])) + " |"
        for row in rows
    ]  # fmt: skip
    left = [f":{'-' * (width - 1)}" for width in widths[:3]]
    right = [f"{'-' * (width - 1)}:" for width in widths[3:]]
    lines.insert(1, "| " + " | ".join(left + right) + " |")
    about = ", ".join(f"{key} {value}" for key, value in where.items())
    return f"{about}\n\n" + "\n".join(lines) + "\n"


def _row(figure: Figure) -> tuple[str, ...]:
    wanted = "" if figure.most is None else f"{figure.judged} <= {_number(figure.most)}"
    judged = {None: "", True: "yes", False: "NO"}[figure.met]
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    numbers = (_number(figure.ours), _number(figure.mptcpd), ratio, wanted, judged)
    return (figure.workload, figure.what, figure.unit, *numbers)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value == inf:
        return NEVER
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def main(file: Path) -> None:
    """Rewrite the table of the document."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text(*read(file))}\n{END}{after}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

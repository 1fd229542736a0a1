"""The benchmarks' own counting: a listener, a subscriber and /proc tell the same story.

Ours alone, and few connections: what mptcpd does beside it is the business of `make bench`.
"""
# SPDX-License-Identifier: BSD-3-Clause

import os
import signal
from math import inf
from pathlib import Path

from tests.bench import report
from tests.bench.account import cpu
from tests.bench.figures import Figure, alternate
from tests.bench.follow import follow
from tests.bench.setting import setting

COUNT = 50  # connections of three events


async def test_a_signal_is_counted_for_every_event_that_the_listener_heard() -> None:
    async with setting() as it, it.running("ours") as subject:
        found = await follow(it, subject, it.churn(COUNT))

        assert found.events == found.handled == 3 * COUNT
        assert 0 < found.seconds <= cpu(subject.pid)


async def test_a_daemon_that_stands_still_is_seen_to_handle_nothing() -> None:
    """The control."""
    async with setting() as it, it.running("ours") as subject:
        os.kill(subject.pid, signal.SIGSTOP)
        try:
            found = await follow(it, subject, it.churn(COUNT))
        finally:
            os.kill(subject.pid, signal.SIGCONT)

        assert (found.lost, found.handled) == (3 * COUNT, 0)


async def test_a_ratio_is_the_median_of_those_of_neighbours() -> None:
    measured = {"ours": iter((1.0, 30.0, 2.0)), "mptcpd": iter((1.0, 10.0, 4.0))}
    order: list[str] = []

    async def measure(name: str) -> float:
        order.append(name)
        return next(measured[name])

    rounds = await alternate(3, measure)
    figure = rounds.figure(("w", "what", "us"), float, most=0.9)

    assert order == ["mptcpd", "ours", "ours", "mptcpd", "mptcpd", "ours"]
    assert (figure.ours, figure.mptcpd, figure.ratio, figure.met) == (2.0, 4.0, 1.0, False)


def test_a_report_is_written_and_read_back(tmp_path: Path) -> None:
    figures = [
        Figure("churn", "CPU per event", "us", 9.0, 10.0, 0.9, most=1.0),
        Figure("churn", "lost", "", 1, 5, 0.2, most=0, judged="ours"),
        Figure("idle", "RSS", "kB", 50_000, 2_000, 25.0),
        Figure("hold", "CPU per event", "us", 20.0, inf),
    ]
    report.write(tmp_path / "json", {"kernel": "6.18"}, figures)

    assert report.read(tmp_path / "json") == ({"kernel": "6.18"}, figures)
    lines = report.text({"kernel": "6.18"}, figures).splitlines()
    assert [line.split("|")[-2].strip() for line in lines[4:]] == ["yes", "NO", "", ""]
    assert "never" in lines[-1]


def test_the_document_has_a_place_for_the_table() -> None:
    text = report.DOCUMENT.read_text()

    assert text.count(report.BEGIN) == text.count(report.END) == 1
    assert text.index(report.BEGIN) < text.index(report.END)

"""The demo shows what it promises, fails when a step did not happen, and leaves nothing behind."""
# SPDX-License-Identifier: BSD-3-Clause

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab.demo import Scene
from tests.lab.hosts import Lab
from tests.lab.sandbox import REPOSITORY
from tests.lab.wait import eventually

DEMO = [sys.executable, "-m", "tests.lab.sandbox", sys.executable, "-m", "tests.lab.demo"]

GOOD = Scene(
    tree="/org/mptcpd1/connection/1",
    owner='s "active_backup"',
    subflows={"/org/mptcpd1/connection/1/subflow/1", "/org/mptcpd1/connection/1/subflow/2"},
    before={1: 4 << 20, 2: 0},
    carrier_lost=True,
    pause=0.01,
    after={1: 0, 2: 4 << 20},
    returned={1: 4 << 20, 2: 0},
    heard={"NewConnection", "ConnectionEstablished", "NewSubflow", "UpdateInterface"},
)


@pytest.fixture
def demo(lab: Lab) -> Iterator[subprocess.Popen[str]]:
    """Start the demo in a sandbox of its own, in a process group of its own like a terminal's."""
    del lab  # it asks for the real kernel
    with subprocess.Popen(
        DEMO,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        process.kill()


def test_the_demo_tells_of_the_cut_the_pause_and_the_return(demo: subprocess.Popen[str]) -> None:
    """In lines that fit a screen."""
    told, _ = demo.communicate(timeout=60)

    assert demo.returncode == 0, told
    assert 's "active_backup"' in told
    assert re.search(r"signal\| NewSubflow +connection/1/subflow/2 .* on link2", told)
    assert re.search(r"signal\| UpdateInterface .* link1 .* running false", told)
    assert re.search(r"signal\| NewSubflow +connection/1/subflow/3 .* on link1", told)
    assert re.search(r"longest pause at the server: \d+ ms", told)
    lines = told.splitlines()
    assert 40 <= len(lines) <= 60
    assert max(map(len, lines)) <= 100
    assert "\033" not in told


def test_a_good_scene_lacks_nothing() -> None:
    """The control of the next test."""
    assert GOOD.missing() == []


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (replace(GOOD, tree="/org/mptcpd1"), "no connection"),
        (replace(GOOD, owner='s ""'), "does not decide"),
        (replace(GOOD, subflows={"/org/mptcpd1/connection/1/subflow/1"}), "two subflows"),
        (replace(GOOD, before={1: 4 << 20, 2: 4 << 20}), "before the cut"),
        (replace(GOOD, carrier_lost=False), "carrier"),
        (replace(GOOD, pause=0.0), "no pause"),
        (replace(GOOD, after={1: 0, 2: 0}), "did not go on"),
        (replace(GOOD, returned={1: 0, 2: 4 << 20}), "did not return"),
        (replace(GOOD, heard=GOOD.heard - {"NewSubflow"}), "signal did not come"),
    ],
)
def test_a_step_that_did_not_happen_is_named(broken: Scene, words: str) -> None:
    """Above all: without a join there is no second subflow."""
    assert any(words in missing for missing in broken.missing())


def _processes() -> set[str]:
    return {entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()}


def _namespaces() -> set[str]:
    found = set()
    for process in _processes():
        for kind in ("net", "mnt", "pid"):
            try:
                found.add((Path("/proc") / process / "ns" / kind).readlink().name)
            except OSError:  # it has ended
                continue
    return found


@pytest.fixture
def before() -> tuple[set[str], set[str]]:
    """Give the processes and namespaces that are there before the demo."""
    return _processes(), _namespaces()


async def test_an_interrupted_demo_leaves_no_process_and_no_namespace(
    before: tuple[set[str], set[str]], demo: subprocess.Popen[str]
) -> None:
    """An interrupt from the keyboard goes to all of its processes at once."""
    assert demo.stdout is not None
    while not (line := demo.stdout.readline()).startswith("5."):  # then all of it runs
        assert line, "the demo has ended"
    assert len(_processes() - before[0]) > 5
    assert len(_namespaces() - before[1]) > 2

    os.killpg(demo.pid, signal.SIGINT)
    rest, _ = demo.communicate(timeout=20)

    assert demo.returncode == 128 + signal.SIGINT
    assert "interrupted" in rest
    assert "Traceback" not in rest

    def gone() -> bool:
        return (_processes() <= before[0]) and (_namespaces() <= before[1])

    await eventually(gone)

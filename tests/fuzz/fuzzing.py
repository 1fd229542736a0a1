"""Runs one target in a process of its own, for so many executions, and gives what was found.

Must not know what a target reads.  Source: https://llvm.org/docs/LibFuzzer.html
"""
# SPDX-License-Identifier: BSD-3-Clause

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.lab.sandbox import REPOSITORY

TARGETS = (
    *("events", "answers", "rtnetlink"),
    *("messages", "stream"),
    *("configuration", "rules", "notes"),
)
CORPUS = Path(__file__).parent / "corpus"
SECONDS = 5  # for one input; they take microseconds
MEGABYTES = 600  # of the process, of which atheris and the targets' imports take 150


@dataclass(frozen=True)
class Outcome:
    """What came of a run: `culprit` is the input that broke the target, if one did."""

    executions: int
    culprit: bytes | None
    told: str


def kept(target: str) -> list[bytes]:
    """Give the inputs of the corpus."""
    file = CORPUS / f"{target}.hex"
    return [bytes.fromhex(line) for line in file.read_text().split()] if file.exists() else []


def inputs(target: str) -> list[bytes]:
    """Give all that a run begins with."""
    return [*_seeds(target), *kept(target)]


def fuzz(target: str, executions: int) -> Outcome:
    """Run *target*; the same executions each time, for it must not fail by chance."""
    with _workplace(target) as place:
        begin = place.directory("begin", inputs(target))
        return place.run(f"-runs={executions}", "-seed=1", begin)


def grow(target: str, executions: int) -> Outcome:
    """Run *target* by chance, and keep the few inputs that reach all that was reached."""
    with _workplace(target) as place:
        seeds = place.directory("seeds", _seeds(target))
        found = place.directory("found", kept(target))
        outcome = place.run(f"-runs={executions}", found, seeds)
        if outcome.culprit is None:
            few = place.directory("few", ())
            place.run("-merge=1", "-use_counters=0", few, seeds, found)
            new = {file.read_bytes() for file in few.iterdir()} - set(_seeds(target))
            ordered = sorted(new, key=lambda data: (len(data), data))
            (CORPUS / f"{target}.hex").write_text("".join(f"{data.hex()}\n" for data in ordered))
        return outcome


def _seeds(target: str) -> Iterator[bytes]:
    seeds: Iterator[bytes] = import_module(f"tests.fuzz.{target}").seeds()
    return seeds


class _Workplace:
    """A directory that is gone afterwards, with a program in it that fuzzes *target*."""

    def __init__(self, target: str, place: Path) -> None:
        self._place = place
        self._program = place / target
        # A program of its own, for a merge starts it again and again.
        command = shlex.join([sys.executable, "-m", "tests.fuzz.one", target])
        self._program.write_text(f'#!/bin/sh\nexec {command} "$0" "$@"\n')
        self._program.chmod(0o755)

    def directory(self, name: str, contents: Iterable[bytes]) -> Path:
        """Make a directory of inputs."""
        directory = self._place / name
        directory.mkdir()
        for number, data in enumerate(contents):
            (directory / f"{number:04}").write_bytes(data)
        return directory

    def run(self, *options: str | Path) -> Outcome:
        """Fuzz until an input breaks the target, or as long as the *options* say."""
        bounds = (f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}")
        done = subprocess.run(
            [
                *(self._program, *bounds, "-print_final_stats=1"),
                *(f"-artifact_prefix={self._place}/broken-", *options),
            ],
            cwd=REPOSITORY,
            env=os.environ | {"TMPDIR": str(self._place)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            umask=0o022,  # what others may write the daemon does not read
            check=False,
        )
        culprit = next((file.read_bytes() for file in self._place.glob("broken-*")), None)
        if culprit is None and done.returncode != 0:
            raise RuntimeError(f"{self._program.name} did not run to its end:\n{done.stdout}")
        count = re.search(r"number_of_executed_units: (\d+)", done.stdout)
        return Outcome(int(count[1]) if count else 0, culprit, done.stdout)


@contextmanager
def _workplace(target: str) -> Iterator[_Workplace]:
    with TemporaryDirectory(dir="/dev/shm") as name:  # thousands of files a second are written
        yield _Workplace(target, Path(name))

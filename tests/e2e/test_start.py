"""A daemon that cannot start says in one line why, and ends with the status that means it."""
# SPDX-License-Identifier: BSD-3-Clause

import subprocess
import sys

import pytest

from tests.e2e.conftest import MakeStage
from tests.lab.bus import ADDRESS
from tests.lab.hosts import Lab
from tests.lab.sandbox import readable_repository

EX_UNAVAILABLE = 69


def _started(lab: Lab, *arguments: str, user: str | None = None) -> str:
    repository = readable_repository()
    python = f"{repository}/.venv/bin/python" if user else sys.executable
    argv = ["env", f"PYTHONPATH={repository}", python, "-m", "mptcpd_dbus", *arguments]
    ran = subprocess.run(
        lab.command("client", argv, user),
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
        cwd="/",
    )
    assert ran.returncode == EX_UNAVAILABLE, ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stderr


def test_without_a_bus(lab: Lab) -> None:
    assert "cannot reach the bus 'unix:path=/nowhere'" in _started(
        lab, "--bus", "unix:path=/nowhere"
    )


async def test_while_another_one_runs(stage: MakeStage) -> None:
    play = await stage()

    assert "the name org.mptcpd1 is taken" in _started(play.lab, "--bus", ADDRESS)

    listener = await play.listener()
    await play.connection(listener)  # the first one is none the worse for it
    await play.agreed()


@pytest.mark.usefixtures("people")
def test_without_the_capability(lab: Lab) -> None:
    assert "CAP_NET_ADMIN" in _started(lab, "--bus", ADDRESS, user="alice")

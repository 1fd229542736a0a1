"""Machines with the package; a test ends with a look at what no journal of theirs may have."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.conftest import show_on_failure
from tests.lab.sandbox import initial_root
from tests.system.machine import Machine
from tests.system.product import SYSTEMS, Installed, install
from tests.system.refusals import refusals

MakeMachine = Callable[..., Machine]


@pytest.fixture(scope="session", params=SYSTEMS, ids=lambda system: f"{system[0]}-{system[1]}")
def installed(request: pytest.FixtureRequest) -> Installed:
    """Give a system with the package, switched off."""
    if not initial_root():
        pytest.skip("only root can boot a system")
    return install(*request.param)


@pytest.fixture
def boot(request: pytest.FixtureRequest, installed: Installed) -> Iterator[MakeMachine]:
    """Give a maker of machines on which the package is installed, booted."""
    with ExitStack() as stack:

        def make(**options: Any) -> Machine:
            machine = Machine(installed.layers, **{"bus": installed.bus} | options)
            stack.callback(machine.remove)
            machine.boot()
            stack.callback(machine.power_off)
            show_on_failure(request, f"journal of {machine.name}", machine.journal)
            stack.callback(_find_no_refusals, machine)
            return machine

        yield make


def _find_no_refusals(machine: Machine) -> None:
    assert refusals(machine.journal()) == []

"""Machines with the package; a test ends with a look at what no journal of theirs may have."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.conftest import show_on_failure
from tests.lab.bus import Kind
from tests.lab.sandbox import initial_root
from tests.system.machine import Machine
from tests.system.product import SYSTEMS, Installed, install
from tests.system.refusals import refusals
from tests.system.release import Release

MakeMachine = Callable[..., Machine]
System = tuple[Release, Kind]


@pytest.fixture(scope="session", params=SYSTEMS, ids=lambda system: f"{system[0]}-{system[1]}")
def system(request: pytest.FixtureRequest) -> System:
    """Give what is tested on."""
    if not initial_root():
        pytest.skip("only root can boot a system")
    which: System = request.param
    return which


@pytest.fixture(scope="session")
def installed(system: System) -> Installed:
    """Give a system with the package, switched off."""
    return install(*system)


@pytest.fixture
def boot(request: pytest.FixtureRequest, installed: Installed) -> Iterator[MakeMachine]:
    """Give a maker of machines on which the package is installed, booted."""
    with ExitStack() as stack:

        def make(prepare: Callable[[Machine], None] = lambda _: None, **options: Any) -> Machine:
            machine = Machine(installed.layers, **{"bus": installed.bus} | options)
            stack.callback(machine.remove)
            prepare(machine)
            machine.boot()
            stack.callback(machine.power_off)
            show_on_failure(request, f"journal of {machine.name}", machine.journal)
            stack.callback(_find_no_refusals, machine)
            return machine

        yield make


def _find_no_refusals(machine: Machine) -> None:
    assert refusals(machine.journal()) == []

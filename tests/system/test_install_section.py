"""The README's section on installing, the rest of it: without a package, no listeners, and away.

What is left is found by comparing the machine with what it was before.
"""
# SPDX-License-Identifier: BSD-3-Clause

import re
from collections.abc import Iterator

import pytest

import mptcpd_dbus
from tests.conftest import show_on_failure
from tests.lab.hosts import LINKS, Lab
from tests.lab.users import DAEMON
from tests.system.conftest import MakeMachine, System
from tests.system.machine import Machine
from tests.system.product import (
    AWAY,
    LISTENERS,
    NO_LISTENERS,
    SOURCES,
    UNIT,
    exposure,
    follow,
    furnished,
)
from tests.system.refusals import refusals
from tests.system.test_package import EXPOSURE, PING

EXPOSURE_WITHOUT_LISTENERS = 1.1

# All but the admin's own files, the journal, what others have at run time, and shared directories.
_FILES = """\
find / -xdev \\( -path /home -o -path /var/log \\) -prune \
    -o \\( ! -type d -o -name '*mptcpd*' \\) -printf '%y %m %u:%g %p\\n'
find /run /tmp /dev/shm -name '*mptcpd*'
"""
_LOOKS = {
    "files": ("sh", "-c", _FILES),
    "users": ("getent", "passwd"),
    "groups": ("getent", "group"),
    "units": ("systemctl", "list-unit-files", "--no-pager"),
    "endpoints": ("ip", "mptcp", "endpoint"),
}


@pytest.fixture
def machine(request: pytest.FixtureRequest, lab: Lab, system: System) -> Iterator[Machine]:
    """Give a machine that is a host of the lab, and to which nothing is installed yet."""
    with furnished(*system, lab.namespaces["client"]) as new:
        show_on_failure(request, f"journal of {new.name}", new.journal)
        yield new
        assert refusals(new.journal()) == []
    new.remove()


def test_without_a_package_it_runs_too_and_is_taken_away_without_a_trace(machine: Machine) -> None:
    before = _state(machine)

    *_, status = follow(machine, SOURCES).values()
    assert f"mptcpd-dbus: {mptcpd_dbus.__version__}\n" in status
    assert f"Steered by: the kernel, by its endpoints ({2 * len(LINKS)} of mptcpd)" in status
    assert machine.shown("User", UNIT) == DAEMON
    there = _state(machine)
    assert [look for look in _LOOKS if there[look] == before[look]] == []

    follow(machine, AWAY)
    after = _state(machine)
    assert {
        look: after[look] ^ before[look] for look in _LOOKS if after[look] != before[look]
    } == {}
    machine.run(*PING, user="alice", status=1)


def test_what_only_connects_does_without_listeners_until_they_are_wanted_back(
    boot: MakeMachine,
) -> None:
    machine = boot()

    follow(machine, NO_LISTENERS)
    assert exposure(machine) == EXPOSURE_WITHOUT_LISTENERS
    assert _starts(machine)[-1].endswith("it may not listen: announce with Listener=false")
    follow(machine, LISTENERS)
    assert exposure(machine) == EXPOSURE
    assert _starts(machine)[-1].endswith("it may listen on announced addresses")


def _state(machine: Machine) -> dict[str, set[str]]:
    return {look: set(machine.run(*argv).splitlines()) for look, argv in _LOOKS.items()}


def _starts(machine: Machine) -> list[str]:
    lines = machine.journal("--output=cat", f"--unit={UNIT}").splitlines()
    return [line for line in lines if re.match(r"mptcpd-dbus \S+ serves ", line)]

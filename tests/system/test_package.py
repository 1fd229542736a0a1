"""The package on a booted Debian: installed by the README, started, activated, hardened."""
# SPDX-License-Identifier: BSD-3-Clause

import re

import mptcpd_dbus
from tests import figures
from tests.lab.client import NAME, ROOT
from tests.lab.users import DAEMON
from tests.system.conftest import MakeMachine
from tests.system.machine import Machine
from tests.system.product import UNIT, Installed, exposure
from tests.system.refusals import refusals

EXPOSURE = 1.6
PING = ("busctl", "call", NAME, ROOT, "org.freedesktop.DBus.Peer", "Ping")


def test_what_the_readme_says_installs_a_service_that_runs(installed: Installed) -> None:
    *_, package, status = installed.said

    assert f"Setting up mptcpd-dbus ({mptcpd_dbus.__version__})" in installed.said[package]
    assert f"mptcpd-dbus: {mptcpd_dbus.__version__}\n" in installed.said[status]
    assert re.search(r"\n *Steered by: .*`mptcpctl ", installed.said[status])
    assert re.search(r"\naddr_adv +running ", installed.said[status])


def test_it_runs_after_a_boot_and_its_status_is_clean(boot: MakeMachine) -> None:
    machine = boot()

    status = machine.run("systemctl", "status", "--no-pager", UNIT)
    assert "Active: active (running)" in status
    assert re.search(r'Status: "0 connections; new ones get the kernel path manager: ', status)
    assert machine.journal("--priority=warning", f"--unit={UNIT}") == ""
    lines = machine.journal("--output=cat", f"--unit={UNIT}").splitlines()
    assert len(lines) <= 5, lines
    assert machine.run("systemctl", "--failed", "--plain", "--no-legend") == ""
    assert machine.shown("User", UNIT) == DAEMON


def test_it_starts_by_hand_and_when_somebody_first_calls_it(boot: MakeMachine) -> None:
    """Unless it is masked, which shows that it is systemd who starts it."""
    machine = boot()

    machine.run("systemctl", "stop", UNIT)
    machine.run("systemctl", "start", UNIT)
    assert machine.shown("ActiveState", UNIT) == "active"
    machine.run("systemctl", "stop", UNIT)
    assert machine.shown("ActiveState", UNIT) == "inactive"
    machine.run(*PING, user="alice")
    assert machine.shown("ActiveState", UNIT) == "active"

    machine.run("systemctl", "stop", UNIT)
    machine.run("systemctl", "mask", "--runtime", UNIT)
    machine.run(*PING, user="alice", status=1)
    assert machine.shown("ActiveState", UNIT) == "inactive"


def test_little_is_exposed(boot: MakeMachine, installed: Installed) -> None:
    """As systemd-analyze(1) counts; with one protection taken away it is more."""
    machine = boot()

    version = machine.run("systemctl", "--version").split()[1]
    assert int(version) == installed.release.systemd
    counted = exposure(machine)
    figures.tell(f"exposure, systemd {version}: {counted}")
    assert counted <= EXPOSURE
    machine.write(f"run/systemd/system/{UNIT}.d/lab.conf", "[Service]\nProtectSystem=no\n")
    machine.run("systemctl", "daemon-reload")
    assert exposure(machine) > EXPOSURE


def test_what_a_journal_must_not_have_would_be_found(installed: Installed) -> None:
    """As when the service may not do what it must: it says so, and that is a refusal."""
    with Machine(installed.layers, bus=installed.bus) as machine:
        assert refusals(machine.journal()) == []
        drop_in = "[Service]\nAmbientCapabilities=\nCapabilityBoundingSet=\nRestart=no\n"
        machine.write(f"run/systemd/system/{UNIT}.d/lab.conf", drop_in)
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "restart", UNIT, status=1)
        assert refusals(machine.journal())

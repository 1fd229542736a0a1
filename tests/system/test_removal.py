"""What is left of the package on a booted Debian: little when it is removed, purged nothing."""
# SPDX-License-Identifier: BSD-3-Clause

import pytest

from tests.lab.client import NAME
from tests.lab.hosts import Lab
from tests.lab.users import DAEMON
from tests.system.conftest import MakeMachine
from tests.system.machine import Machine
from tests.system.product import Installed, furnished, package

CONFIGURATION = "/etc/mptcpd-dbus/mptcpd-dbus.conf"
KEPT = ("/etc/mptcpd-dbus", "/etc/systemd/system/", "/var/lib/systemd/deb-systemd-helper-")
"""What the administrator may have changed: the configuration, and whether the unit is enabled."""
FOREIGN = "10.99.0.1 id 77 signal "

# What dpkg, apt, systemd and the journal keep of everything, and what the kernel shows.
_FIND = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /home -o -path /tmp \
    -o -path /var/tmp -o -path /var/log -o -path /var/cache -o -path /var/backups \
    -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/lib/systemd/timers \
    -o -path /run/log \) -prune -o -print
find /run -xdev \( -path /run/systemd -o -path /run/log -o -path /run/user \
    -o -path /run/agetty.reload \) -prune -o -print
"""


@pytest.fixture
def machine(installed: Installed, lab: Lab) -> Machine:
    """Give a machine on which nothing of ours is installed, with three links."""
    machine = furnished(installed.release, installed.bus, namespace=lab.namespaces["client"])
    (machine.root / "etc/systemd/system/NetworkManager.service").symlink_to("/dev/null")
    return machine


def test_a_purge_leaves_nothing(machine: Machine, installed: Installed) -> None:
    """And a removal what is the administrator's, which shows that the look finds things."""
    (machine.root / "package.deb").write_bytes(package(installed).read_bytes())
    with machine:
        machine.run("ip", "mptcp", "endpoint", "add", "10.99.0.1", "id", "77", "signal")
        before, users, listening = _files(machine), _users(machine), _listening(machine)

        machine.run("apt-get", "install", "--yes", "/package.deb")
        machine.wait(lambda: len(_endpoints(machine)) > 3, "endpoints of addr_adv")
        machine.run("mptcpctl", "path-manager", "userspace")
        machine.run("mptcpctl", "endpoint", "delete", "10.0.1.1")
        machine.run("mptcpctl", "endpoint", "add", "10.0.1.1", "port", "444", "signal")
        assert "10.0.1.1:444 " in _listening(machine)
        assert {CONFIGURATION, "/usr/bin/mptcpctl", "/run/mptcpd-dbus"} <= _files(machine) - before
        assert f"{DAEMON}:" in _users(machine)

        machine.run("apt-get", "remove", "--yes", DAEMON)
        left = _files(machine) - before
        assert CONFIGURATION in left
        assert {file for file in left if not file.startswith(KEPT)} == set()
        assert _endpoints(machine) == [FOREIGN]
        assert _listening(machine) == listening
        assert machine.run("sysctl", "-n", "net.mptcp.pm_type") == "0\n"
        names = machine.run("busctl", "list", "--acquired", "--activatable", "--no-legend")
        assert NAME not in names
        assert NAME not in machine.run("pkaction")
        assert DAEMON not in machine.run("systemctl", "list-unit-files")

        machine.run("apt-get", "purge", "--yes", DAEMON)
        assert _files(machine) - before == set()
        assert before - _files(machine) == set()
        assert _users(machine) == users
        assert _endpoints(machine) == [FOREIGN]


def test_what_is_installed_again_is_as_new(boot: MakeMachine, installed: Installed) -> None:
    machine = boot()
    (machine.root / "package.deb").write_bytes(package(installed).read_bytes())

    machine.run("apt-get", "purge", "--yes", DAEMON)
    machine.run("apt-get", "install", "--yes", "/package.deb")
    assert "addr_adv  running" in machine.run("mptcpctl", "status")


def _files(machine: Machine) -> set[str]:
    return set(machine.run("sh", "-c", _FIND, status=None).splitlines())


def _users(machine: Machine) -> str:
    return machine.run("cat", "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow")


def _listening(machine: Machine) -> str:
    return machine.run("ss", "-ltnH")


def _endpoints(machine: Machine) -> list[str]:
    return machine.run("ip", "mptcp", "endpoint", "show").splitlines()

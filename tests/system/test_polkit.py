"""Who may command an installed service: users with and without a session, and a real agent.

The kernel's own list of endpoints shows who was obeyed.
"""
# SPDX-License-Identifier: BSD-3-Clause

from pathlib import Path

import pytest

from tests.lab.client import NAME, ROOT
from tests.system.conftest import MakeMachine
from tests.system.machine import Machine
from tests.system.product import PASSWORD

TERMINAL = Path(__file__).with_name("at_terminal.py")
NOT_AUTHORISED = 4
ADDRESS, ANOTHER = "10.99.0.1", "10.99.0.2"
RULE = "50-mptcpd-dbus.rules"

_TYPE = ("python3", "-I", "/run/at_terminal.py")
# For programs without an agent of their own: one is started for the shell, which then becomes them.
_WITH_AGENT = """\
told=$(mktemp -u) && mkfifo "$told"
pkttyagent --process $$ --notify-fd 4 4>"$told" &
cat "$told"
exec "$@"
"""
_BUSCTL = (
    *("busctl", "--allow-interactive-authorization=yes", "--timeout=60"),
    *("call", NAME, ROOT, "org.mptcpd1.Manager", "AddEndpoint", "sasa{sv}", ADDRESS, "0", "0"),
)
_ASKED = "Authentication is required to"


@pytest.fixture
def machine(boot: MakeMachine) -> Machine:
    """Give a machine with somebody who can type."""
    machine = boot()
    machine.write("run/at_terminal.py", TERMINAL.read_text())
    return machine


def _endpoints(machine: Machine) -> str:
    return machine.run("ip", "mptcp", "endpoint", "show")


def _run(machine: Machine, user: str, *argv: str, status: int = 0) -> str:
    """Run something as somebody: alice sits at the machine, others have no session."""
    if user == "alice":
        return machine.run(*machine.session(user, *argv), status=status)
    return machine.run(*argv, user=user, status=status)


def _add(machine: Machine, address: str) -> tuple[str, ...]:
    assert address not in _endpoints(machine)
    return ("mptcpctl", "endpoint", "add", address)


@pytest.mark.parametrize("user", ["alice", "carol"])
def test_who_asks_gets_what_an_administrator_allows(machine: Machine, user: str) -> None:
    """Alice sits at the machine, carol has no session; mptcpctl(1) asks on the terminal."""
    _run(machine, user, *_add(machine, ADDRESS), status=NOT_AUTHORISED)
    _run(machine, user, "mptcpctl", "list")
    said = _run(machine, user, *_TYPE, PASSWORD, *_add(machine, ADDRESS))
    assert said.count(_ASKED) == 1
    assert "bob" in said
    assert ADDRESS in _endpoints(machine)


def test_a_wrong_password_is_no_permission(machine: Machine) -> None:
    argv = (*_TYPE, "wrong", *_add(machine, ADDRESS))

    said = _run(machine, "alice", *argv, status=NOT_AUTHORISED)
    assert _ASKED in said
    assert ADDRESS not in _endpoints(machine)


@pytest.mark.parametrize("user", ["alice", "carol"])
def test_busctl_and_an_agent_of_the_terminal_are_enough(machine: Machine, user: str) -> None:
    """Without the agent the same command is refused, and with it if the caller wants no dialogue.

    Carol has no session.
    """
    _run(machine, user, *_BUSCTL, status=1)
    assert ADDRESS not in _endpoints(machine)
    agent = (*_TYPE, PASSWORD, "sh", "-ec", _WITH_AGENT, "sh")
    unasked = [word.replace("=yes", "=no") for word in _BUSCTL]
    said = _run(machine, user, *agent, *unasked, status=1)
    assert _ASKED not in said
    assert ADDRESS not in _endpoints(machine)
    said = _run(machine, user, *agent, *_BUSCTL)
    assert _ASKED in said
    assert ADDRESS in _endpoints(machine)


def test_the_rule_that_comes_along_lets_a_group_in(machine: Machine) -> None:
    machine.run("usermod", "--append", "--groups=netdev", "carol")
    _run(machine, "carol", *_add(machine, ADDRESS), status=NOT_AUTHORISED)

    example = f"/usr/share/doc/mptcpd-dbus/examples/{RULE}"
    machine.run("install", "-m", "644", example, f"/etc/polkit-1/rules.d/{RULE}")
    machine.run("systemctl", "restart", "polkit.service")

    _run(machine, "carol", *_add(machine, ADDRESS))
    assert ADDRESS in _endpoints(machine)
    _run(machine, "alice", *_add(machine, ANOTHER), status=NOT_AUTHORISED)
    assert ANOTHER not in _endpoints(machine)

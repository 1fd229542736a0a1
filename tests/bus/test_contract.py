"""The contract on the bus, the files that describe it and the files that guard it are one thing."""
# SPDX-License-Identifier: BSD-3-Clause

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from mptcpd_dbus.bus.interface import Interface
from mptcpd_dbus.bus.policy import POLICY
from mptcpd_dbus.core import events
from mptcpd_dbus.policy.base import HANDLERS
from tests.contract import DIRECTORY, REPOSITORY, documented, golden_files, interfaces
from tests.manual import CONTRACT

DOC = "org.gtk.GDBus.DocString"
STANDARD = {f"org.freedesktop.DBus.{name}" for name in ("Introspectable", "ObjectManager", "Peer")}
PROPERTIES = "org.freedesktop.DBus.Properties"

# any, inactive, active; see polkit(8).  "keep" ignores the arguments of a call, so what changes the
# whole host or runs code is asked for each time.
DEFAULTS = {
    "org.mptcpd1.control-own-connections": ("yes", "yes", "yes"),
    "org.mptcpd1.manage-connections": ("auth_admin", "auth_admin", "auth_admin_keep"),
    "org.mptcpd1.manage-endpoints": ("auth_admin", "auth_admin", "auth_admin_keep"),
    "org.mptcpd1.set-path-manager": ("auth_admin", "auth_admin", "auth_admin"),
    "org.mptcpd1.manage-plugins": ("auth_admin", "auth_admin", "auth_admin"),
    "org.mptcpd1.register-policy": ("auth_admin", "auth_admin", "auth_admin"),
}
HARMLESS = {"GetConnection", "GetStatistics", "ListConnections"}
ONES_OWN = {"UnregisterPolicy"}  # the handler refuses everybody but the one whose it is


def _parse(path: Path) -> ET.Element:
    return ET.parse(path).getroot()  # noqa: S314 - files of this repository


def _name(interface: Interface) -> str:
    return interface.name


def test_the_golden_files_are_what_the_code_declares() -> None:
    """`make contract` writes them; a change of the contract is a change of a file under review."""
    stored = {path: path.read_text() for path in (*DIRECTORY.glob("*.xml"), CONTRACT)}

    assert stored == golden_files(), "the contract has changed: run `make contract`, then review"


@pytest.mark.parametrize("interface", documented(), ids=_name)
def test_every_member_in_the_golden_file_is_documented(interface: Interface) -> None:
    """With a sentence: it begins like one and ends like one."""
    element = _parse(DIRECTORY / f"{interface.name}.xml").find("interface")
    assert element is not None
    members = [element, *(child for child in element if child.tag != "annotation")]

    for member in members:
        docs = [a.get("value", "") for a in member.findall("annotation") if a.get("name") == DOC]
        assert len(docs) == 1, member.get("name")
        assert docs[0][0].isupper(), docs
        assert docs[0].endswith("."), docs
    declared = (*interface.methods, *interface.signals, *interface.properties)
    assert len(members) == 1 + len(declared)


def test_a_policy_on_the_bus_has_a_method_for_each_handler_of_a_plugin() -> None:
    """But for those of its own start and end."""
    handlers = set(HANDLERS) - {"start", "stop", "reload"}
    methods = {"".join(map(str.capitalize, handler.split("_"))) for handler in handlers}

    assert {method.name for method in POLICY.methods} == methods | {"Released"}


def test_every_event_has_the_signal_of_its_name() -> None:
    """One word through all layers; SignalsDropped alone is no event."""
    manager = next(its for its in interfaces() if its.name == "org.mptcpd1.Manager")
    kinds = {kind.__name__ for kind in events.Event.__args__}

    assert {signal.name for signal in manager.signals} == kinds | {"SignalsDropped"}


def test_actions_of_the_code_and_of_polkit_are_the_same() -> None:
    """What polkit does not know is refused for ever; what no method names is noise."""
    used = {method.action for its in interfaces() for method in its.methods if method.action}
    known = {action.get("id") for action in _policy().findall("action")}

    assert used == known == set(DEFAULTS)


def test_only_reading_needs_no_action() -> None:
    """A method that commands and names no action would be open to everybody."""
    free = {method.name for its in interfaces() for method in its.methods if not method.action}

    assert free == HARMLESS | ONES_OWN


def test_actions_ask_whom_they_should() -> None:
    """The defaults are the product's promise to administrators."""
    for action in _policy().findall("action"):
        fields = [f"defaults/allow_{who}" for who in ("any", "inactive", "active")]
        name = str(action.get("id"))
        assert tuple(action.findtext(field) for field in fields) == DEFAULTS[name]
        # Otherwise polkit tells the daemon nothing of other users' authorisations.
        owner = action.find("annotate[@key='org.freedesktop.policykit.owner']")
        assert owner is not None
        assert owner.text == "unix-user:mptcpd-dbus"


def test_the_bus_lets_everybody_call_what_has_methods_and_nothing_else() -> None:
    """Properties are read through one interface, whichever they belong to."""
    configuration = _parse(DIRECTORY / "org.mptcpd1.conf")
    rules = configuration.findall("policy[@context='default']/allow")
    allowed = {rule.get("send_interface") for rule in rules}
    called = {its.name for its in interfaces() if its.methods}

    assert allowed == called | STANDARD | {PROPERTIES}
    assert {rule.get("send_destination") for rule in rules} == {"org.mptcpd1"}


def test_only_root_and_the_daemons_user_may_call_programs() -> None:
    """The bus lets nobody else play the daemon, and the daemon call nothing else of a client."""
    configuration = _parse(DIRECTORY / "org.mptcpd1.conf")
    callers = {
        policy.get("user")
        for policy in configuration.findall("policy")
        for rule in policy.findall("allow[@send_interface]")
        if rule.get("send_destination") is None
        and rule.get("send_interface") == "org.mptcpd1.Policy"
    }

    assert callers == {"mptcpd-dbus", "root"}


def test_only_root_and_the_daemons_user_may_own_the_name() -> None:
    """Anybody else who could would be asked in the daemon's place."""
    configuration = _parse(DIRECTORY / "org.mptcpd1.conf")
    owners = {
        policy.get("user")
        for policy in configuration.findall("policy")
        if policy.find("allow[@own]") is not None
    }

    assert owners == {"mptcpd-dbus", "root"}


def _policy() -> ET.Element:
    return _parse(REPOSITORY / "polkit/org.mptcpd1.policy")

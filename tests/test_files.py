"""The files that the system reads have the form that the system wants.

The DTDs are those of polkitd and libdbus-1-dev; for the bus configuration it is ours, see there.
"""
# SPDX-License-Identifier: BSD-3-Clause

import configparser
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mptcpd_dbus.__main__ import EX_CONFIG
from mptcpd_dbus.bus.names import BUS_NAME
from mptcpd_dbus.config import EX_USAGE
from tests import figures
from tests.contract import REPOSITORY
from tests.installation import NO_LISTENERS

UNIT = REPOSITORY / "systemd/mptcpd-dbus.service"
SYSUSERS = REPOSITORY / "systemd/mptcpd-dbus.sysusers"
CONFINED, WITHOUT_LISTENERS = 1.6, 1.1
ACTIVATION = REPOSITORY / "dbus/org.mptcpd1.service"

BUSCONFIG = REPOSITORY / "tests/dtd/busconfig.dtd"
POLICYCONFIG = Path("/usr/share/polkit-1/policyconfig-1.dtd")
INTROSPECT = Path("/usr/share/xml/dbus-1/introspect.dtd")
GRAMMARS = {
    REPOSITORY / "dbus/org.mptcpd1.conf": BUSCONFIG,
    REPOSITORY / "polkit/org.mptcpd1.policy": POLICYCONFIG,
    **dict.fromkeys(sorted((REPOSITORY / "dbus").glob("*.xml")), INTROSPECT),
}


def _complaints(document: Path, grammar: Path) -> str:
    argv = ["xmllint", "--nonet", "--noout", "--dtdvalid", str(grammar), str(document)]
    ran = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert (ran.returncode == 0) == (not ran.stderr)
    return ran.stderr


def _name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("document", GRAMMARS, ids=_name)
def test_the_document_keeps_to_its_grammar(document: Path) -> None:
    """As xmllint(1) sees it."""
    complaints = _complaints(document, GRAMMARS[document])

    assert not complaints


@pytest.mark.parametrize(
    ("document", "right", "wrong"),
    [
        ("dbus/org.mptcpd1.conf", "send_interface=", "send_interfaces="),
        ("polkit/org.mptcpd1.policy", "<message ", "<massage "),
        ("dbus/org.mptcpd1.Address.xml", 'type="o" ', ""),
    ],
)
def test_a_document_with_a_slip_does_not(
    document: str, right: str, wrong: str, tmp_path: Path
) -> None:
    """The control: the grammars are really applied."""
    original = REPOSITORY / document
    text = original.read_text()
    assert right in text
    text = text.replace(right, wrong).replace("</message>", "</massage>")
    slipped = tmp_path / original.name
    slipped.write_text(text)

    assert _complaints(slipped, GRAMMARS[original])


def _verify(unit: Path) -> str:
    argv = ["systemd-analyze", "--man=no", "verify", str(unit)]
    ran = subprocess.run(argv, check=False, capture_output=True, text=True)
    return ran.stdout + ran.stderr


def _unit(directory: Path, text: str) -> Path:
    """Give a copy of the unit whose command exists on this machine."""
    copy = directory / UNIT.name
    command = f"ExecStart={sys.executable}"
    copy.write_text(re.sub(r"^ExecStart=.*$", command, text, flags=re.MULTILINE))
    return copy


def test_systemd_has_nothing_to_say_about_the_unit(tmp_path: Path) -> None:
    """Not even a hint."""
    assert _verify(_unit(tmp_path, UNIT.read_text())) == ""


def test_systemd_would_have_named_a_slip_in_the_unit(tmp_path: Path) -> None:
    """The control of the test above."""
    slipped = UNIT.read_text().replace("NoNewPrivileges=", "NoNewPriviledges=")

    assert "NoNewPriviledges" in _verify(_unit(tmp_path, slipped))


def _exposure(root: Path, unit: str, drop_in: str = "") -> float:
    """Give what systemd-analyze makes of a unit in a directory that stands for a whole system."""
    place = root / "etc/systemd/system"
    (place / f"{UNIT.name}.d").mkdir(parents=True, exist_ok=True)
    (place / UNIT.name).write_text(unit)
    (place / f"{UNIT.name}.d" / NO_LISTENERS.name).write_text(drop_in)
    argv = ["systemd-analyze", "security", "--offline=yes", f"--root={root}", UNIT.name]
    text = subprocess.check_output(argv, text=True)
    (figure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", text)
    return float(figure)


def test_the_unit_is_as_confined_as_systemd_can_tell(tmp_path: Path) -> None:
    """Without listeners still more; each is the other's control, and so is one line less."""
    unit, drop_in = UNIT.read_text(), NO_LISTENERS.read_text()
    laxer = unit.replace("RestrictNamespaces=yes\n", "")
    # The unit's lists would be added to.
    added = re.sub(r"^\w+=\n", "", drop_in, flags=re.MULTILINE)

    found = _exposure(tmp_path, unit), _exposure(tmp_path, unit, drop_in)
    figures.tell(f"exposure by systemd-analyze: {found[0]}, without listeners {found[1]}")
    assert found[0] <= CONFINED
    assert found[1] <= WITHOUT_LISTENERS
    assert _exposure(tmp_path, laxer) > CONFINED
    assert _exposure(tmp_path, laxer, drop_in) > WITHOUT_LISTENERS
    assert _exposure(tmp_path, unit, added) > WITHOUT_LISTENERS


def test_systemd_has_nothing_to_say_about_the_drop_in(tmp_path: Path) -> None:
    """And would have named a slip."""
    copy = _unit(tmp_path, UNIT.read_text())
    (tmp_path / f"{UNIT.name}.d").mkdir()
    place = tmp_path / f"{UNIT.name}.d" / NO_LISTENERS.name
    place.write_text(NO_LISTENERS.read_text())
    assert _verify(copy) == ""

    place.write_text(NO_LISTENERS.read_text().replace("IPAddressDeny", "IPAddressDenied"))
    assert "IPAddressDenied" in _verify(copy)


def _section(path: Path, section: str) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False)  # a unit may name a key more than once
    parser.optionxform = str  # type: ignore[assignment,method-assign] # the documented way
    parser.read(path)
    return parser[section]


def test_bus_and_systemd_name_the_same_unit() -> None:
    """The bus starts the alias, which exists only while the unit is enabled."""
    activation, service = _section(ACTIVATION, "D-BUS Service"), _section(UNIT, "Service")

    assert activation["Name"] == service["BusName"] == BUS_NAME == ACTIVATION.stem
    assert activation["SystemdService"] == _section(UNIT, "Install")["Alias"]
    assert activation["Exec"] == "/bin/false"


def test_the_unit_comes_back_from_everything_but_a_wrong_configuration() -> None:
    """After a crash, a hang, or a bus that is not there yet; and what it noted is still there."""
    service = _section(UNIT, "Service")

    wanted = {
        "Restart": "always",
        "RestartPreventExitStatus": f"{EX_USAGE} {EX_CONFIG}",
        "WatchdogSec": "30s",
        "RuntimeDirectory": "mptcpd-dbus",
        "RuntimeDirectoryPreserve": "yes",
        "ExecReload": "/bin/kill -HUP $MAINPID",
    }
    assert {key: service.get(key) for key in wanted} == wanted
    assert _section(UNIT, "Unit")["StartLimitIntervalSec"] == "0"


def test_the_units_user_is_made_and_owns_the_name() -> None:
    """With sysusers.d(5)'s one line: type, name, ID, description, home, shell."""
    lines = [line for line in SYSUSERS.read_text().splitlines() if not line.startswith("#")]
    (words,) = map(shlex.split, lines)

    user = _section(UNIT, "Service")["User"]
    assert words[:3] == ["u", user, "-"]
    assert words[4:] == ["/", "/usr/sbin/nologin"]
    assert f'<policy user="{user}">' in (REPOSITORY / "dbus/org.mptcpd1.conf").read_text()


def test_systemd_makes_the_user(tmp_path: Path) -> None:
    """In a directory that stands for the root of a system."""
    (tmp_path / "etc").mkdir()
    argv = ["systemd-sysusers", f"--root={tmp_path}", "-"]
    subprocess.run(argv, input=SYSUSERS.read_bytes(), check=True, capture_output=True)

    users = (tmp_path / "etc/passwd").read_text().splitlines()
    assert [line.split(":")[0] for line in users] == ["mptcpd-dbus"]

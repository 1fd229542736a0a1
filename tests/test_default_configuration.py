"""The configuration that is installed: it is taken as it is, and with each choice that it names."""
# SPDX-License-Identifier: BSD-3-Clause

import re
from pathlib import Path

import pytest

from mptcpd_dbus.config import read_settings
from mptcpd_dbus.policy.sections import read_section
from tests.installation import CONFIGURATION
from tests.lab.plugin_files import shipped_kinds

TEXT = CONFIGURATION.read_text()
CHOICES = re.findall(r"^#(?! ).*$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("choice", ["", *CHOICES])
def test_it_is_taken_with_each_choice(tmp_path: Path, choice: str) -> None:
    """A choice comes after what it stands instead of, and wins."""
    file = tmp_path / "mptcpd-dbus.conf"
    file.write_text(re.sub(f"^{re.escape(choice)}$", choice[1:], TEXT, flags=re.MULTILINE))
    settings = read_settings(["--config", str(file)])

    key, _, value = choice[1:].partition("=")
    chosen = getattr(settings, key.replace("-", "_")) if choice else settings.load_plugins
    meant = value if isinstance(chosen, str) else tuple(value.split(","))
    assert chosen == (meant if choice else ("addr_adv",))
    kinds = shipped_kinds()
    assert set(settings.load_plugins or ()) <= set(kinds)
    for name, its in settings.plugins.items():
        read_section(kinds[name], its.values)


def test_it_names_every_plugin_that_is_installed_with_a_sentence_each() -> None:
    chosen = set(re.findall(r"^#?load-plugins=(\w+)$", TEXT, re.MULTILINE))

    assert chosen == set(shipped_kinds()) - {"foo"}
    lines = TEXT.splitlines()
    assert all(lines[lines.index(choice) - 1].startswith("# ") for choice in CHOICES)


def test_what_networkmanager_manages_is_left_to_it(tmp_path: Path) -> None:
    file = tmp_path / "mptcpd-dbus.conf"
    file.write_text(TEXT)

    assert read_settings(["--config", str(file)]).plugins["addr_adv"].values["managed"] == "leave"

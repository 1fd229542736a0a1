"""Plugins and configurations where the daemon trusts and can read them; see sandbox.py."""
# SPDX-License-Identifier: BSD-3-Clause

import itertools
import shutil
import textwrap
from pathlib import Path

from mptcpd_dbus.plugin import Plugin
from mptcpd_dbus.policy.loader import load
from mptcpd_dbus.policy.watch import Watch
from tests.lab.sandbox import REPOSITORY, SCRATCH

_numbers = itertools.count(1)


class PluginFiles:
    """A plugin directory of its own."""

    def __init__(self) -> None:
        self.path = SCRATCH / f"plugins-{next(_numbers)}"
        self.path.mkdir(mode=0o755)

    def write(self, name: str, source: str) -> Path:
        """Write a plugin; its text may be indented as the test is."""
        file = self.path / f"{name}.py"
        file.write_text(textwrap.dedent(source))
        file.chmod(0o644)
        return file


def write_configuration(text: str) -> Path:
    """Write a configuration file that the daemon takes."""
    file = SCRATCH / f"mptcpd-dbus-{next(_numbers)}.conf"
    file.write_text(text)
    file.chmod(0o644)
    return file


def shipped_plugins() -> Path:
    """Give a copy of the plugins that we ship, below directories that nobody else can write."""
    place = SCRATCH / "shipped-plugins"
    if not place.exists():
        shutil.copytree(REPOSITORY / "plugins", place, ignore=shutil.ignore_patterns("__pycache__"))
        place.chmod(0o755)
        for file in place.iterdir():
            file.chmod(0o644)
    return place


def shipped_kinds() -> dict[str, type[Plugin]]:
    """Load the plugins that we ship, as the daemon would; give their classes."""
    sources = (REPOSITORY / "plugins").glob("*.py")
    return {source.stem: load(source.stem, source.read_bytes(), Watch()) for source in sources}

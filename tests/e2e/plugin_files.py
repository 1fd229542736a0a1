"""Plugins written by a test, in a directory that the daemon trusts and can read."""
# SPDX-License-Identifier: BSD-3-Clause

import itertools
import textwrap
from pathlib import Path

from tests.lab.sandbox import SCRATCH

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

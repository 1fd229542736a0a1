"""What an installed service consists of, apart from its Python environment.

The expectation is written from what the system looks for, not from how install.mk puts it there.
"""
# SPDX-License-Identifier: BSD-3-Clause

import subprocess
from pathlib import Path

from mptcpd_dbus.config import FILE, PLUGIN_DIR
from tests.lab.sandbox import REPOSITORY

ENVIRONMENT = "/usr/libexec/mptcpd-dbus"
CONFIGURATION = REPOSITORY / "systemd/mptcpd-dbus.conf"
RULE = REPOSITORY / "polkit/50-mptcpd-dbus.rules"
NO_LISTENERS = REPOSITORY / "systemd/no-listeners.conf"

_DIRECTORIES = {
    "systemd/bin/*": "/usr/bin",
    "mptcpd_dbus/ctl/completion/_mptcpctl": "/usr/share/zsh/vendor-completions",
    "mptcpd_dbus/ctl/completion/mptcpctl": "/usr/share/bash-completion/completions",
    "mptcpd_dbus/ctl/completion/*.fish": "/usr/share/fish/vendor_completions.d",
    "dbus/*.conf": "/usr/share/dbus-1/system.d",
    "dbus/*.service": "/usr/share/dbus-1/system-services",
    "dbus/*.xml": "/usr/share/dbus-1/interfaces",
    "plugins/*.pc": "/usr/share/pkgconfig",
    "plugins/*.py": PLUGIN_DIR,
    "polkit/*.policy": "/usr/share/polkit-1/actions",
    "systemd/*.service": "/usr/lib/systemd/system",
    **{f"docs/man/*.{section}": f"/usr/share/man/man{section}" for section in range(1, 9)},
}
_EXAMPLES = "/usr/share/doc/mptcpd-dbus/examples"
_NAMED = {
    CONFIGURATION: str(FILE),
    RULE: f"{_EXAMPLES}/{RULE.name}",
    NO_LISTENERS: f"{_EXAMPLES}/{NO_LISTENERS.name}",
    REPOSITORY / "plugins/foo.py": f"{_EXAMPLES}/foo.py",  # it steers nothing
    REPOSITORY / "systemd/mptcpd-dbus.sysusers": "/usr/lib/sysusers.d/mptcpd-dbus.conf",
}
_FOR_INSTALLING = {REPOSITORY / "systemd" / name for name in ("install.mk", "requirements.lock")}
_FOLDERS = (
    "mptcpd_dbus/ctl/completion",
    "systemd/bin",
    "dbus",
    "docs/man",
    "plugins",
    "polkit",
    "systemd",
)


def expected() -> dict[str, Path]:
    """Give where each file of ours must be, and which one it is."""
    found = {target: source for source, target in _NAMED.items()}
    for pattern, directory in _DIRECTORIES.items():
        sources = set(REPOSITORY.glob(pattern)) - set(_NAMED)
        found |= {f"{directory}/{source.name}": source for source in sources}
    ours = {file for folder in _FOLDERS for file in (REPOSITORY / folder).glob("*")}
    assert {file for file in ours if file.is_file()} <= set(found.values()) | _FOR_INSTALLING
    return found


def make(target: str, root: Path, *variables: str) -> None:
    """Install into a directory that stands for the root of a system, or take it away there."""
    argv = ["make", "--no-print-directory", target, f"DESTDIR={root}", *variables]
    subprocess.run(argv, cwd=REPOSITORY, check=True)

"""Fuzz target: a configuration file, up to the settings of the daemon and of its plugins.

What was read is read again when written down; what is refused is refused in one line.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

from mptcpd_dbus.config import read_settings
from mptcpd_dbus.config_file import parse
from mptcpd_dbus.core.errors import ConfigurationError
from mptcpd_dbus.policy.loader import load
from mptcpd_dbus.policy.sections import read_section
from mptcpd_dbus.policy.watch import Watch
from tests.lab.sandbox import REPOSITORY

LENGTH = 1400

PLUGINS = {
    file.stem: load(file.stem, file.read_bytes(), Watch())
    for file in (REPOSITORY / "plugins").glob("*.py")
}
FILE = Path(gettempdir()) / "x.conf"


def seeds() -> Iterator[bytes]:
    """Give the file that is installed, with its comments taken away, and what it does not show."""
    yield (REPOSITORY / "systemd/mptcpd-dbus.conf").read_bytes().replace(b"\n#", b"\n")
    yield from (
        b"[core]\nlog=journal\nplugin-dir=/p\npath-manager=sspi\nload-plugins=addr_adv,sspi\n",
        b"[core]\naddr-flags=subflow,backup\nnotify-flags=existing,check_route\n",
        b"[core]\nkernel-path-manager=userspace\n[interfaces]\nallow=eth*,kind:wlan\n",
        b"[interfaces]\ndeny=prefix:fe80::/10,name:docker0\n",
        b"[plugin sspi]\npriority=-3\nmatch-port=443,80\nmatch-prefix=10.0.0.0/8,::/0\n",
        b"[plugin fullmesh]\nmatch-uid=root\nmatch-unit=a*.service\nmatch-side=client\n",
        b"[plugin ndiffports]\nsubflows=2\ninterfaces=eth0\nmax-subflows=3\n",
        b"[plugin rules]\nfile=/x\n[plugin active_backup]\nprimary=eth0\n",
    )


def check(data: bytes) -> None:
    """Read it as text, and as what the daemon is told with --config."""
    try:
        entries = parse(data, "x.conf")
    except ConfigurationError as error:
        one_line(error)
    else:
        text = "".join(f"[{section}]\n{key}={value}\n" for section, key, value, _ in entries)
        assert [e[:3] for e in parse(text.encode(), "")] == [e[:3] for e in entries]
    FILE.write_bytes(data)
    try:
        settings = read_settings(["--config", str(FILE)])
    except ConfigurationError as error:
        one_line(error)
        return
    for name, section in settings.plugins.items():
        if name in PLUGINS:
            try:
                read_section(PLUGINS[name], section.values)
            except ConfigurationError as error:
                one_line(error)


def one_line(error: ConfigurationError) -> None:
    """Fail where a log could not show *error* in a line."""
    assert str(error).isprintable(), error

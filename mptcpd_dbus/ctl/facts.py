"""What a bug report needs of the host: versions, sysctls, counters, sockets.

Reading it needs no privilege.  It is the host of whoever runs mptcpctl, which is the daemon's
unless their network namespaces differ.  Sources: uname(2), os-release(5), /proc/sys/net/mptcp,
ss(8), the lines MPTcpExt of /proc/net/netstat.
"""
# SPDX-License-Identifier: BSD-3-Clause

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_SYSCTLS = Path("/proc/sys/net/mptcp")
_NETSTAT = Path("/proc/net/netstat")
_PACKAGES = ("dbus-next", "pyroute2", "pydantic", "rich")
_SOCKETS = ["ss", "--mptcp", "--numeric", "--info", "--all", "--no-header"]
_SS_SECONDS = 20


def facts() -> dict[str, Any]:
    """Gather all of it."""
    uname = os.uname()
    return {
        "system": {
            "kernel": uname.release,
            "build": uname.version,
            "machine": uname.machine,
            "distribution": _distribution(),
            "python": platform.python_version(),
        },
        "packages": {name: _version(name) for name in _PACKAGES},
        "sysctls": {file.name: _read(file) for file in sorted(_SYSCTLS.glob("*"))},
        "counters": counters(_read(_NETSTAT)),
        "sockets": _sockets(),
    }


def counters(netstat: str) -> dict[str, int]:
    """Read the MPTCP counters that are not zero: a line with their names, one with their values."""
    lines = [line.split()[1:] for line in netstat.splitlines() if line.startswith("MPTcpExt:")]
    if len(lines) != 2:
        return {}
    return {name: int(value) for name, value in zip(*lines, strict=False) if value != "0"}


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _sockets() -> list[str]:
    try:
        ran = subprocess.run(  # noqa: S603  a fixed program
            _SOCKETS, check=True, capture_output=True, text=True, timeout=_SS_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        return [f"ss: {error}"]
    return ran.stdout.expandtabs().splitlines()

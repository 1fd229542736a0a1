"""The sysctls of net.mptcp that matter here, of this process's network namespace.

Knows files; judges no value.  Source: Documentation/networking/mptcp-sysctl.rst of the kernel.
"""
# SPDX-License-Identifier: BSD-3-Clause

from pathlib import Path

from mptcpd_dbus.core.errors import InvalidArgument, KernelRefused
from mptcpd_dbus.core.readings import SettingsRead

DIRECTORY = Path("/proc/sys/net/mptcp")
TCP_TIMESTAMPS = Path("/proc/sys/net/ipv4/tcp_timestamps")
# Before Linux 6.15 there is only the number.
PM_TYPES = {"kernel": "0", "userspace": "1"}


def read_settings(directory: Path = DIRECTORY) -> SettingsRead:
    """Read them; "" for what this kernel does not have."""
    path_manager = _read(directory / "path_manager")
    available = _read(directory / "available_path_managers").split()
    if not path_manager:
        pm_type = _read(directory / "pm_type")
        path_manager = next((name for name, number in PM_TYPES.items() if number == pm_type), "")
        available = list(PM_TYPES) if pm_type else []
    return SettingsRead(
        enabled=_read(directory / "enabled") == "1",
        path_manager=path_manager,
        available_path_managers=tuple(available),
        scheduler=_read(directory / "scheduler"),
    )


def set_path_manager(name: str, directory: Path = DIRECTORY) -> None:
    """Choose the path manager of connections that begin from now on."""
    settings = read_settings(directory)
    if name not in settings.available_path_managers:
        known = ", ".join(settings.available_path_managers) or "none: it has no MPTCP"
        raise InvalidArgument(f"no path manager {name!r}; this kernel has {known}")
    file, value = directory / "path_manager", name
    if not file.exists():
        file, value = directory / "pm_type", PM_TYPES[name]
    try:
        file.write_text(value)
    except OSError as error:
        text = f"{file} cannot be written: {error.strerror}"
        raise KernelRefused("path_manager", error.errno or 0, text) from error


def tcp_timestamps(file: Path = TCP_TIMESTAMPS) -> bool:
    """Whether TCP uses timestamps; they leave no room for an IPv6 ADD_ADDR with a port."""
    return _read(file) != "0"


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""

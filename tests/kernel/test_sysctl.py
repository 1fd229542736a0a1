"""Proves the settings of net.mptcp on this kernel, and on files as older kernels have them."""
# SPDX-License-Identifier: BSD-3-Clause

from pathlib import Path

import pytest

from mptcpd_dbus.core.errors import InvalidArgument, KernelRefused
from mptcpd_dbus.core.readings import SettingsRead
from mptcpd_dbus.kernel import sysctl
from tests.kernel.host import Host


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Lay out the directory of Linux 6.1."""
    for name, value in {"enabled": "1", "pm_type": "0", "checksum_enabled": "0"}.items():
        (tmp_path / name).write_text(f"{value}\n")
    return tmp_path


@pytest.mark.real_kernel
@pytest.mark.usefixtures("host")
def test_this_kernels_settings_are_read_and_the_path_manager_is_set() -> None:
    before = sysctl.read_settings()
    sysctl.set_path_manager("userspace")

    assert before == SettingsRead(True, "kernel", ("kernel", "userspace"), "default")
    assert sysctl.read_settings().path_manager == "userspace"


@pytest.mark.real_kernel
def test_tcp_timestamps_are_on_until_they_are_switched_off(host: Host) -> None:
    assert sysctl.tcp_timestamps()

    host.run("sysctl -qw net.ipv4.tcp_timestamps=0")

    assert not sysctl.tcp_timestamps()


@pytest.mark.real_kernel
@pytest.mark.usefixtures("host")
def test_an_unknown_path_manager_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidArgument, match="'bpf'; this kernel has kernel, userspace"):
        sysctl.set_path_manager("bpf")


def test_an_older_kernel_has_a_number_instead_of_a_name(old: Path) -> None:
    before = sysctl.read_settings(old)
    sysctl.set_path_manager("userspace", old)

    assert before == SettingsRead(True, "kernel", ("kernel", "userspace"), "")
    assert sysctl.read_settings(old).path_manager == "userspace"
    assert (old / "pm_type").read_text() == "1"


def test_a_kernel_without_multipath_tcp_has_nothing(tmp_path: Path) -> None:
    assert sysctl.read_settings(tmp_path / "missing") == SettingsRead(False, "", (), "")
    with pytest.raises(InvalidArgument, match="has no MPTCP"):
        sysctl.set_path_manager("kernel", tmp_path / "missing")


def test_a_file_that_cannot_be_written_is_named(old: Path) -> None:
    (old / "available_path_managers").write_text("kernel userspace")
    (old / "path_manager").symlink_to("/proc/version")

    with pytest.raises(KernelRefused, match="path_manager cannot be written"):
        sysctl.set_path_manager("userspace", old)

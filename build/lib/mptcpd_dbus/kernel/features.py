"""What this kernel offers beyond the oldest that is supported, Linux 6.1."""
# SPDX-License-Identifier: BSD-3-Clause

import os
import re

from mptcpd_dbus.core.readings import SettingsRead
from mptcpd_dbus.kernel.sysctl import DIRECTORY


def features(settings: SettingsRead) -> tuple[str, ...]:
    """Name them, in the words of the property Features."""
    found = []
    if "userspace" in settings.available_path_managers:
        found.append("userspace-path-manager")
    if (DIRECTORY / "path_manager").exists():
        found.append("path-manager-sysctl")
    # No interface tells of an event before it happens; only the version does.
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if release and tuple(map(int, release.groups())) >= (6, 2):
        found.append("listener-events")
    return tuple(found)

"""What this kernel offers beyond the oldest that is supported, Linux 6.1."""
# SPDX-License-Identifier: BSD-3-Clause

import os
import re

from mptcpd_dbus.core.readings import SettingsRead
from mptcpd_dbus.kernel.sysctl import DIRECTORY


def features(settings: SettingsRead) -> dict[str, bool]:
    """Say what is there and what is not, in the words of the property Features."""
    # No interface tells of an event before it happens; only the version does.
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    version = tuple(map(int, release.groups())) if release else (0, 0)
    return {
        "userspace-path-manager": "userspace" in settings.available_path_managers,
        "path-manager-sysctl": (DIRECTORY / "path_manager").exists(),
        "listener-events": version >= (6, 2),
    }

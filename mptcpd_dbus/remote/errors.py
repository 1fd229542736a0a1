"""From an error on the bus to the one that a plugin would get in the daemon."""
# SPDX-License-Identifier: BSD-3-Clause

import errno
import re

from mptcpd_dbus.bus.error_names import ERROR_NAMES, BusError
from mptcpd_dbus.core.errors import KernelRefused, MptcpdError

_KINDS = {name: kind for kind, name in ERROR_NAMES.items()}  # of several, the most general
_REFUSED = re.compile(r"the kernel refused (.*?): (E\w+|errno (\d+))(?: \((.*)\))?")


def from_the_bus(error: BusError) -> MptcpdError:
    """Give the error that *error* was made of, as far as the bus tells."""
    kind = _KINDS.get(error.name)
    if kind is KernelRefused:
        found = _REFUSED.fullmatch(error.text)
        if found is not None:
            command, name, number, text = found.groups()
            return KernelRefused(command, int(number or getattr(errno, name, 0)), text or "")
    if kind is None or kind is KernelRefused:
        return MptcpdError(str(error))
    return kind(error.text)

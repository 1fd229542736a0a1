"""From an error on the bus to the one that a plugin would get in the daemon."""
# SPDX-License-Identifier: BSD-3-Clause

import errno
import re

from mptcpd_dbus.bus.error_names import ERROR_NAMES, UNKNOWN_OBJECT, BusError
from mptcpd_dbus.core.errors import (
    KernelRefused,
    MptcpdError,
    NoSuchConnection,
    NoSuchEndpoint,
    NoSuchSubflow,
)

_KINDS = {name: kind for kind, name in ERROR_NAMES.items()}  # of several, the most general
_REFUSED = re.compile(r"the kernel refused (.*?): (E\w+|errno (\d+))(?: \((.*)\))?")


_GONE = (
    ("/subflow/", NoSuchSubflow),
    ("/connection/", NoSuchConnection),
    ("/endpoint/", NoSuchEndpoint),
)


def from_the_bus(error: BusError, path: str) -> MptcpdError:
    """Give the error that *error*, of a call to *path*, was made of, as far as the bus tells."""
    if error.name == UNKNOWN_OBJECT:
        kinds = (gone for part, gone in _GONE if part in path)
        return next(kinds, MptcpdError)(error.text)
    kind = _KINDS.get(error.name)
    if kind is KernelRefused:
        found = _REFUSED.fullmatch(error.text)
        if found is not None:
            command, name, number, text = found.groups()
            return KernelRefused(command, int(number or getattr(errno, name, 0)), text or "")
    if kind is None or kind is KernelRefused:
        return MptcpdError(str(error))
    return kind(error.text)

"""What went wrong on the bus, in a line that says what to do, and the exit status that means it.

The daemon's own words come first; they are one line.  Standard names: D-Bus specification.
"""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.bus.error_names import (
    ACCESS_DENIED,
    DISCONNECTED,
    INTERACTIVE_AUTHORIZATION_REQUIRED,
    BusError,
)
from mptcpd_dbus.bus.names import ERROR_PREFIX
from mptcpd_dbus.ctl.failure import FAILED, NOT_AUTHORISED, UNAVAILABLE, Failure

_STANDARD = "org.freedesktop.DBus.Error."
_ABSENT = (
    *(_STANDARD + name for name in ("ServiceUnknown", "NameHasNoOwner", "NoReply", "TimedOut")),
    _STANDARD + "Spawn.",
    "org.freedesktop.systemd1.",
)
_START = "mptcpd-dbus is not running; start it: systemctl start mptcpd-dbus"
_ALLOW = "run it as root, or have polkit allow you that action, see mptcpctl(1)"
_HINTS = {
    ERROR_PREFIX + "NotManageable": "choose `mptcpctl path-manager userspace`, then connect anew",
    ERROR_PREFIX + "NoSuchConnection": "see `mptcpctl list`",
}


def explain(error: BusError | TimeoutError) -> Failure:
    """Give the failure that *error* means."""
    if isinstance(error, TimeoutError):
        return Failure(UNAVAILABLE, "mptcpd-dbus does not answer: see its log, or restart it")
    if error.name == DISCONNECTED:
        return Failure(UNAVAILABLE, f"the bus has gone: {error.text}")
    if error.name.startswith(_ABSENT):
        return Failure(UNAVAILABLE, _START)
    if error.name == INTERACTIVE_AUTHORIZATION_REQUIRED:
        return Failure(NOT_AUTHORISED, f"{error.text}: let it ask for a password, or {_ALLOW}")
    if error.name == ACCESS_DENIED:
        return Failure(NOT_AUTHORISED, f"{error.text}: {_ALLOW}")
    hint = _HINTS.get(error.name)
    return Failure(FAILED, f"{error.text}; {hint}" if hint else error.text)

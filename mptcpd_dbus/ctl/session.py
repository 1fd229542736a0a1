"""One command from beginning to end: its module is found, the bus connected, errors explained.

What went wrong on the bus becomes a line that says what to do; the daemon's own words come first.
Standard names of errors: D-Bus specification.
"""
# SPDX-License-Identifier: BSD-3-Clause

from importlib import import_module

from mptcpd_dbus.bus.error_names import (
    ACCESS_DENIED,
    DISCONNECTED,
    INTERACTIVE_AUTHORIZATION_REQUIRED,
    BusError,
)
from mptcpd_dbus.bus.names import ERROR_PREFIX
from mptcpd_dbus.ctl.daemon import Daemon
from mptcpd_dbus.ctl.failure import FAILED, NOT_AUTHORISED, UNAVAILABLE, Failure
from mptcpd_dbus.ctl.output import Output
from mptcpd_dbus.ctl.parser import Call

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
    ERROR_PREFIX + "NotOurs": "with mptcpctl, add the word force",
    ERROR_PREFIX + "NoSuchConnection": "see `mptcpctl list`",
}


async def run(call: Call) -> None:
    """Run the command; whatever goes wrong is a Failure."""
    module, _, function = call.command.run.partition(":")
    command = getattr(import_module(f"mptcpd_dbus.ctl.{module}"), function)
    out = Output(as_json="json" in call.given)
    bus, ask = call.given.get("bus", "system"), "no-ask-password" not in call.given
    try:
        async with Daemon.at(bus, ask_password=ask) as daemon:
            await command(daemon, call.given, out)
    except TimeoutError as error:
        words = "mptcpd-dbus does not answer: see its log, or restart it"
        raise Failure(UNAVAILABLE, words) from error
    except BusError as error:
        raise _explained(error) from error


def _explained(error: BusError) -> Failure:
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

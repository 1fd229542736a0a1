"""The one table from our errors to D-Bus error names, and what of an error a caller may read.

Standard names: D-Bus specification, "Message Bus Messages" and <dbus/dbus-protocol.h>.
"""
# SPDX-License-Identifier: BSD-3-Clause

import logging

from mptcpd_dbus.bus.names import ERROR_PREFIX
from mptcpd_dbus.core import errors

_log = logging.getLogger(__name__)

_STANDARD = "org.freedesktop.DBus.Error."
FAILED = _STANDARD + "Failed"
INVALID_ARGS = _STANDARD + "InvalidArgs"
UNKNOWN_OBJECT = _STANDARD + "UnknownObject"
UNKNOWN_INTERFACE = _STANDARD + "UnknownInterface"
UNKNOWN_METHOD = _STANDARD + "UnknownMethod"
UNKNOWN_PROPERTY = _STANDARD + "UnknownProperty"
PROPERTY_READ_ONLY = _STANDARD + "PropertyReadOnly"
ACCESS_DENIED = _STANDARD + "AccessDenied"
INTERACTIVE_AUTHORIZATION_REQUIRED = _STANDARD + "InteractiveAuthorizationRequired"
LIMITS_EXCEEDED = _STANDARD + "LimitsExceeded"
DISCONNECTED = _STANDARD + "Disconnected"
NAME_HAS_NO_OWNER = _STANDARD + "NameHasNoOwner"

ERROR_NAMES: dict[type[errors.MptcpdError], str] = {
    errors.InvalidArgument: INVALID_ARGS,
    errors.NoSuchConnection: ERROR_PREFIX + "NoSuchConnection",
    errors.NoSuchSubflow: ERROR_PREFIX + "NoSuchSubflow",
    errors.NoSuchAddress: ERROR_PREFIX + "NoSuchAddress",
    errors.NoSuchEndpoint: ERROR_PREFIX + "NoSuchEndpoint",
    errors.NotOurs: ERROR_PREFIX + "NotOurs",
    errors.NotManageable: ERROR_PREFIX + "NotManageable",
    errors.NotMultipath: ERROR_PREFIX + "NotMultipath",
    errors.ForeignNamespace: ERROR_PREFIX + "ForeignNamespace",
    errors.NotReady: ERROR_PREFIX + "NotReady",
    errors.AlreadyRegistered: ERROR_PREFIX + "AlreadyRegistered",
    errors.LimitReached: ERROR_PREFIX + "LimitReached",
    errors.KernelRefused: ERROR_PREFIX + "KernelRefused",
    errors.SubflowFailed: ERROR_PREFIX + "SubflowFailed",
    errors.ConfigurationError: FAILED,
    errors.DecodeError: FAILED,
    errors.MptcpdError: FAILED,
}


class BusError(Exception):
    """An error with the name that it has, or shall have, on the bus."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name
        self.text = text

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


def on_the_bus(error: Exception) -> BusError:
    """Tell the caller of *error* no more than a name and one line of our own words."""
    if isinstance(error, BusError):
        return error
    if isinstance(error, errors.ConfigurationError):  # it names files
        _log.error("%s", error)
        return BusError(FAILED, "the configuration is wrong, nothing was changed: see the log")
    for kind in type(error).__mro__:
        if kind in ERROR_NAMES:
            return BusError(ERROR_NAMES[kind], str(error))
    _log.error("internal error in a bus method", exc_info=error)
    return BusError(FAILED, "internal error")

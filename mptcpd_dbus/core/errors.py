"""What can go wrong, named by whose fault it is; the bus edge has one table to D-Bus names.

MptcpdError
├── InvalidArgument       the caller gave something that cannot be meant
├── NoSuchConnection, NoSuchSubflow, NoSuchAddress, NoSuchEndpoint
├── NotOurs               the endpoint belongs to NetworkManager
├── NotManageable         the connection belongs to the in-kernel path manager
├── NotMultipath, ForeignNamespace   the passed socket shows no connection of this host
├── NotReady              it cannot be done yet, or not on this kernel
├── LimitReached          a bound of ours is exhausted
├── KernelRefused         the kernel answered a command with an errno
├── SubflowFailed         the kernel accepted, the subflow did not come to be
├── ConfigurationError    the configuration says something that cannot be meant
└── DecodeError           bytes of the kernel that cannot be understood
"""
# SPDX-License-Identifier: BSD-3-Clause

import errno as errno_names


class MptcpdError(Exception):
    """Something that a caller or an administrator should read; the text is one line."""


class InvalidArgument(MptcpdError):
    """An argument has no meaning; the text names the argument and its value."""


class NoSuchConnection(MptcpdError):
    """No such connection exists in the kernel."""


class NoSuchSubflow(MptcpdError):
    """The connection has no such subflow."""


class NoSuchAddress(MptcpdError):
    """The connection has no local address with that ID."""


class NoSuchEndpoint(MptcpdError):
    """The in-kernel path manager has no such endpoint."""


class NotOurs(MptcpdError):
    """The endpoint is NetworkManager's, which would only set it again."""


class NotManageable(MptcpdError):
    """The connection is under the in-kernel path manager, which takes no commands for it."""


class NotMultipath(MptcpdError):
    """What was passed is not the socket of a live MPTCP connection."""


class ForeignNamespace(MptcpdError):
    """The passed socket is of a network namespace that this daemon does not serve."""


class NotReady(MptcpdError):
    """The kernel or the connection is not in a state in which this can be done."""


class AlreadyRegistered(MptcpdError):
    """There is a policy of that name."""


class LimitReached(MptcpdError):
    """A bound of the daemon or of the protocol is exhausted."""


class KernelRefused(MptcpdError):
    """The kernel refused a command: its errno and its own words (NLMSGERR_ATTR_MSG)."""

    def __init__(self, command: str, errno: int, text: str = "") -> None:
        self.command = command
        self.errno = errno
        self.text = text
        name = errno_names.errorcode.get(errno, f"errno {errno}")
        super().__init__(f"the kernel refused {command}: {name}" + (f" ({text})" if text else ""))


class SubflowFailed(MptcpdError):
    """The kernel sent the SYN, but no working subflow came of it; the text is the reason."""


class ConfigurationError(MptcpdError):
    """The configuration says something that cannot be meant; the text names where it says so."""


class DecodeError(MptcpdError):
    """A message of the kernel does not have the form that its headers document."""

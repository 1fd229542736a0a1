"""The connection behind a socket that somebody passed to us, by its token.

Trusts nothing: it may be any descriptor, and the socket one of any protocol and network namespace.
Source: MPTCP_INFO, struct mptcp_info, <linux/mptcp.h>; SO_NETNS_COOKIE, <asm-generic/socket.h>.
"""
# SPDX-License-Identifier: BSD-3-Clause

import socket
import struct

from mptcpd_dbus.core.errors import ForeignNamespace, NotMultipath

_SO_NETNS_COOKIE = 71
_SOL_MPTCP, _MPTCP_INFO = 284, 1
_IPPROTO_MPTCP = 262
_COOKIE = struct.Struct("=Q")
_TOKEN = struct.Struct("=12xI")  # the first fields of struct mptcp_info, which grows at its end


def namespace_cookie() -> int:
    """Give the number of our own network namespace, which no other one ever has."""
    with socket.socket(socket.AF_UNIX) as ours:
        return _cookie(ours)


def token(descriptor: int, namespace: int) -> int:
    """Read the token of the connection whose socket *descriptor* is; it stays open.

    Raise NotMultipath, or ForeignNamespace where it is not of the *namespace* with that cookie.
    """
    try:
        passed = socket.socket(fileno=descriptor)
    except OSError as error:
        raise NotMultipath("what was passed is no socket; pass an MPTCP socket") from error
    try:
        return _token(passed, namespace)
    finally:
        passed.detach()


def _token(passed: socket.socket, namespace: int) -> int:
    # Before asking about MPTCP: other protocols may mean something else by the same numbers.
    if (passed.family, passed.proto) not in _MPTCP:
        raise NotMultipath("the socket is not of the protocol IPPROTO_MPTCP; see mptcpize(8)")
    if _cookie(passed) != namespace:
        raise ForeignNamespace(
            "the socket is of another network namespace; ask the daemon that serves that one"
        )
    try:
        info = passed.getsockopt(_SOL_MPTCP, _MPTCP_INFO, _TOKEN.size)
    except OSError as error:
        raise NotMultipath("the connection has fallen back to plain TCP") from error
    (found,) = _TOKEN.unpack(info)
    if not found:
        raise NotMultipath("the socket is not connected; connect, or pass what accept() gave")
    return int(found)


_MPTCP = {(family, _IPPROTO_MPTCP) for family in (socket.AF_INET, socket.AF_INET6)}


def _cookie(asked: socket.socket) -> int:
    (cookie,) = _COOKIE.unpack(asked.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, _COOKIE.size))
    return int(cookie)

"""The interface org.mptcpd1.Address."""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.bus.interface import Interface, Property
from mptcpd_dbus.bus.names import INTERFACE_PREFIX
from mptcpd_dbus.bus.paths import path_of

ADDRESS = Interface(
    INTERFACE_PREFIX + "Address",
    "An address of one end of a connection under its address ID (RFC 8684, section 3.4): announced"
    " by the peer, or in this host's table of IDs (announced, or the source of a join; only under"
    " the userspace path manager).",
    properties=(
        Property(
            "Connection",
            "o",
            lambda a: path_of(a.connection),
            "The connection on which the ID has this meaning.",
            "const",
        ),
        Property("Id", "y", lambda a: a.id, "The address ID.", "const"),
        Property("Address", "s", lambda a: a.address, "The address."),
        Property(
            "Port",
            "q",
            lambda a: a.port,
            "Remote: the announced port or, where none was, the remote port of the subflow that"
            " carried the announcement. Local: the announced port, or 0.",
        ),
        Property(
            "Remote",
            "b",
            lambda a: a.remote,
            "Whether it is the peer's. The kernel does not tell these again after a restart of the"
            " daemon.",
            "const",
        ),
    ),
)

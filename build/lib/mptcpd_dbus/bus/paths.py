"""Where things live on the bus: the object path of everything that is published."""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.bus.names import ROOT
from mptcpd_dbus.core.connections import Address, Connection, Subflow
from mptcpd_dbus.core.endpoints import Endpoint
from mptcpd_dbus.core.network import Interface
from mptcpd_dbus.core.state import State, Thing

NOTHING = "/"
"""What a signal carries in place of the path of something that has no object."""


def path_of(thing: Thing | None) -> str:
    """Give the object path of *thing*; numbers in it are never used again."""
    match thing:
        case Subflow():
            return f"{ROOT}/connection/{thing.connection.number}/subflow/{thing.number}"
        case Connection():
            return f"{ROOT}/connection/{thing.number}"
        case Address():
            end = "remote" if thing.remote else "local"
            return f"{ROOT}/connection/{thing.connection.number}/address/{end}/{thing.id}"
        case Endpoint():
            return f"{ROOT}/endpoint/{thing.id}"
        case Interface():
            return f"{ROOT}/interface/{thing.index}"
        case State():
            return ROOT
        case None:
            return NOTHING

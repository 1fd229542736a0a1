"""Where things live on the bus: the object path of everything that is published."""
# SPDX-License-Identifier: BSD-3-Clause

import re

from mptcpd_dbus.bus.names import ROOT
from mptcpd_dbus.core.connections import Address, Connection, Subflow
from mptcpd_dbus.core.endpoints import Endpoint
from mptcpd_dbus.core.network import Interface
from mptcpd_dbus.core.policies import Policy
from mptcpd_dbus.core.state import State, Thing

_OF_CONNECTION = re.compile(f"{ROOT}/connection/([1-9][0-9]{{0,18}})(?:/|$)", re.ASCII)

NOTHING = "/"
"""What a signal carries in place of the path of something that has no object."""


def path_of(thing: Thing | None) -> str:
    """Give the object path of *thing*; a connection's or subflow's number is never used again."""
    match thing:
        case Subflow():
            return subflow_path(thing.connection.number, thing.number)
        case Connection():
            return connection_path(thing.number)
        case Address():
            return address_path(thing.connection.number, thing.id, remote=thing.remote)
        case Endpoint():
            return f"{ROOT}/endpoint/{thing.id}"
        case Interface():
            return interface_path(thing.index)
        case Policy():
            return f"{ROOT}/plugin/{_element(thing.name)}"
        case State():
            return ROOT
        case None:
            return NOTHING


def connection_path(number: int) -> str:
    """Give the path of a connection."""
    return f"{ROOT}/connection/{number}"


def connection_number(path: str) -> int:
    """Give the number of the connection that the object at *path* is of; 0 if it is of none."""
    found = _OF_CONNECTION.match(path)
    return int(found[1]) if found else 0


def subflow_path(connection: int, number: int) -> str:
    """Give the path of a subflow by the numbers of its connection and its own."""
    return f"{connection_path(connection)}/subflow/{number}"


def address_path(connection: int, address_id: int, *, remote: bool) -> str:
    """Give the path of an address by the number of its connection and its ID."""
    end = "remote" if remote else "local"
    return f"{connection_path(connection)}/address/{end}/{address_id}"


def interface_path(index: int) -> str:
    """Give the path of a network interface."""
    return f"{ROOT}/interface/{index}"


def _element(name: str) -> str:
    """Spell *name* as part of a path: as it is, else one level deeper, so that no two names meet.

    A plugin file may be called anything; one with a bad name is shown as a plugin that failed.
    """
    if re.fullmatch(r"[A-Za-z0-9_]+", name):
        return name
    raw = name.encode(errors="surrogateescape")
    spelt = re.sub(rb"[^A-Za-z0-9]", lambda found: b"_%02x" % ord(found[0]), raw).decode()
    return f"_/{spelt or '_'}"

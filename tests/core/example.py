"""One connection, seen from the client, and what events and dumps tell of it; for the core."""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import replace

from mptcpd_dbus.core import events
from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.readings import ConnectionRead, Reading, SubflowRead
from mptcpd_dbus.core.state import State
from mptcpd_dbus.core.types import FourTuple

TOKEN = 0xA889FAD4
FIRST = FourTuple("10.0.1.1", 4000, "10.0.9.1", 80)
SECOND = FourTuple("10.0.2.1", 4001, "10.0.9.1", 80)
THIRD = FourTuple("10.0.3.1", 4002, "10.0.9.1", 80)

CREATED = events.NewConnection(TOKEN, FIRST)
ESTABLISHED = events.ConnectionEstablished(TOKEN, FIRST)
JOINED = events.NewSubflow(TOKEN, SECOND, local_id=1)
LEFT = events.SubflowClosed(TOKEN, SECOND, local_id=1)
CLOSED = events.ConnectionClosed(TOKEN)
LINK1 = events.NewInterface(2, "link1", "ether", up=True, running=True)

ROW = ConnectionRead(
    TOKEN,
    FIRST,
    mapped=False,
    state=1,
    uid=1000,
    inode=77,
    cgroup=5,
    fallback=False,
)
INITIAL_ROW = SubflowRead(
    TOKEN,
    FIRST,
    mapped=False,
    state=1,
    local_id=0,
    remote_id=0,
    backup=False,
    backup_requested=False,
    interface_index=0,
    initial=True,
    opened_here=True,
    fully_established=True,
)
JOINED_ROW = replace(INITIAL_ROW, four_tuple=SECOND, local_id=1, initial=False)


def state_after(*history: events.Event | Reading) -> State:
    """Give the state that knows *history* and nothing else."""
    state = State()
    for event in history:
        state.apply(event)
    return state


def connection_after(*history: events.Event) -> Connection:
    """Give the example's connection as *history* left it."""
    return state_after(*history).connections[TOKEN]

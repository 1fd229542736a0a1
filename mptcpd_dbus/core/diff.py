"""The difference between a connection as the state has it and as the kernel shows it, as events.

Loss, a restart and what the kernel never tells (a peer's abort, fallback, a subflow that reset
itself) are all mended by applying this difference.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Iterable, Iterator

from mptcpd_dbus.core import events
from mptcpd_dbus.core.connections import Connection, Subflow
from mptcpd_dbus.core.readings import ConnectionRead, SubflowRead
from mptcpd_dbus.core.types import ConnectionState, FourTuple

# enum in <net/tcp_states.h>
_ESTABLISHED, _SYN_SENT, _SYN_RECV, _CLOSE, _CLOSE_WAIT, _LISTEN = 1, 2, 3, 7, 8, 10

Difference = events.ConnectionEvent | ConnectionRead | SubflowRead


def is_live(row: ConnectionRead) -> bool:
    """Whether a CLOSED event is still to come for the connection behind *row*.

    With inode 0 in any state but ESTABLISHED and CLOSE_WAIT the application has closed it: CLOSED
    was sent, although the socket lingers.
    """
    if row.state in (_ESTABLISHED, _CLOSE_WAIT):
        return True
    return row.inode != 0 and row.state not in (_SYN_SENT, _SYN_RECV, _LISTEN)


def difference(
    connection: Connection | None, row: ConnectionRead | None, subflows: Iterable[SubflowRead]
) -> list[Difference]:
    """Give what must be applied so that *connection* becomes what *row* and *subflows* show."""
    if connection is not None and (
        row is None or not is_live(row) or row.four_tuple != connection.four_tuple
    ):
        closed: list[Difference] = [events.ConnectionClosed(connection.token)]
        return closed + difference(None, row, subflows)
    if row is None:
        return []
    if connection is None:
        # TCP_CLOSE: it may be a connection that was refused and never became MPTCP.  Fallback: it
        # is plain TCP by now, and no path manager has a say in it.
        if not is_live(row) or row.state == _CLOSE or row.fallback:
            return []
        return list(_adopt(row, list(subflows)))
    return list(_update(connection, row, {s.four_tuple: s for s in subflows}))


def _adopt(row: ConnectionRead, subflows: list[SubflowRead]) -> Iterator[Difference]:
    initial = next((s for s in subflows if s.initial), None)
    # The initiator's initial subflow carries MCAP_LOC.  Where it is gone, who made the others is
    # the best evidence left: servers rarely join.
    server_side = not (initial.opened_here if initial else any(s.opened_here for s in subflows))
    new = events.NewConnection(
        row.token, row.four_tuple, server_side=server_side, mapped=row.mapped
    )
    yield new
    if server_side or initial is None or initial.fully_established:
        yield events.ConnectionEstablished(
            row.token, row.four_tuple, server_side=server_side, mapped=row.mapped
        )
    for subflow in subflows:
        if _joined(subflow):
            yield _told(events.NewSubflow, subflow)
        if subflow.backup_requested and (_joined(subflow) or subflow.initial):
            yield subflow
        if subflow.initial and subflow.backup:
            yield _told(events.SubflowPriority, subflow)
    if initial is None:
        yield events.SubflowClosed(row.token, row.four_tuple, mapped=row.mapped)
    yield row


def _update(
    connection: Connection, row: ConnectionRead, rows: dict[FourTuple, SubflowRead]
) -> Iterator[Difference]:
    created = connection.state is ConnectionState.CREATED
    if created and (connection.server_side or any(s.fully_established for s in rows.values())):
        yield events.ConnectionEstablished(
            row.token,
            row.four_tuple,
            server_side=connection.server_side,
            deny_join_id0=connection.deny_join_id0,
            mapped=connection.mapped,
        )
    for subflow in rows.values():
        yield from _update_subflow(connection.subflows.get(subflow.four_tuple), subflow)
    for known in connection.subflows.values():
        if known.four_tuple not in rows:
            yield events.SubflowClosed(
                row.token, known.four_tuple, known.local_id, known.remote_id, known.backup
            )
    closing = row.state != _ESTABLISHED and connection.state is not ConnectionState.CLOSING
    details = (connection.fallback, connection.uid, connection.cgroup)
    if closing or details != (row.fallback, row.uid, row.cgroup):
        yield row


def _update_subflow(known: Subflow | None, row: SubflowRead) -> Iterator[Difference]:
    if known is not None:
        if known.backup != row.backup:
            yield _told(events.SubflowPriority, row)
        if known.backup_requested != row.backup_requested:
            yield row
    elif _joined(row):
        yield _told(events.NewSubflow, row)
        if row.backup_requested:
            yield row


def _joined(subflow: SubflowRead) -> bool:
    """Whether *subflow* is a join that both ends accepted; one that is closing is not adopted."""
    return (
        not subflow.initial
        and subflow.fully_established
        and subflow.state in (_ESTABLISHED, _CLOSE_WAIT)
    )


def _told(
    kind: type[events.NewSubflow] | type[events.SubflowPriority], row: SubflowRead
) -> events.NewSubflow | events.SubflowPriority:
    return kind(
        row.token,
        row.four_tuple,
        row.local_id,
        row.remote_id,
        row.backup,
        row.interface_index,
        row.mapped,
    )

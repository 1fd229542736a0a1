"""The rows of sock_diag as core readings: MPTCP connections, TCP subflows, MPTCP listeners.

Pure: bytes in, readings out; asks nothing.  Structures are read as far as they are there, since
both kinds of information grow with the kernel.  Source: <linux/inet_diag.h>, <linux/mptcp.h>
(struct mptcp_info, MPTCP_SUBFLOW_*), <linux/tcp.h> (struct tcp_info).
"""
# SPDX-License-Identifier: BSD-3-Clause

from socket import AF_INET6
from struct import Struct

from mptcpd_dbus.core.errors import DecodeError
from mptcpd_dbus.core.readings import ConnectionRead, ListenerRead, SubflowRead
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.kernel.addresses import ipv4_text, ipv6_text
from mptcpd_dbus.kernel.netlink import ATTRIBUTE, U8, U32, attribute_map, number

# struct inet_diag_msg: family, state, timer, retrans; sport, dport, src, dst, interface, cookie;
# expires, rqueue, wqueue, uid, inode.  Ports are in network order.
MESSAGE = Struct("=BBxx2s2s16s16sI8x12xII")

# enum inet_diag extensions (INET_DIAG_*)
INFO, ULP_INFO, CGROUP_ID = 2, 19, 21
ULP_NAME, ULP_MPTCP = 1, 3
# enum mptcp_subflow_attrs
SUBFLOW_TOKEN_LOC, SUBFLOW_FLAGS, SUBFLOW_ID_REM, SUBFLOW_ID_LOC = 2, 8, 9, 10
JOIN = 4 | 8  # JOIN_REM | JOIN_LOC
OPENED_HERE = 2 | 8  # MCAP_LOC | JOIN_LOC
BACKUP_REMOTE, BACKUP_LOCAL, FULLY_ESTABLISHED = 16, 32, 64
# struct mptcp_info
INFO_FLAGS_AT, INFO_TOKEN_AT = 8, 12
INFO_FALLBACK = 1

LISTEN = 10  # <net/tcp_states.h>

_ULP_IS_MPTCP = ATTRIBUTE.pack(10, ULP_NAME) + b"mptcp\0"  # the whole attribute

_Found = dict[int, tuple[int, int]]
_U64 = Struct("=Q")
Table = dict[str, tuple[Struct, int]]


def _table(*runs: tuple[int, str, str]) -> Table:
    """Lay out fields that lie one behind the other: (first offset, format, names)."""
    table: Table = {}
    for offset, form, names in runs:
        layout = Struct(f"={form}")
        for place, name in enumerate(names.split()):
            table[name] = (layout, offset + place * layout.size)
    return table


# struct mptcp_info without the prefix mptcpi_
CONNECTION_COUNTERS = _table(
    (0, "B", "subflows add_addr_signal add_addr_accepted"),
    (16, "Q", "write_seq snd_una rcv_nxt"),
    (40, "B", "local_addr_used"),
    (42, "B", "csum_enabled"),
    (44, "I", "retransmits"),
    (48, "Q", "bytes_retrans bytes_sent bytes_received bytes_acked"),
    (80, "B", "subflows_total"),
    (84, "I", "last_data_sent last_data_recv last_ack_recv"),
)
# struct tcp_info without the prefix tcpi_; times are in microseconds, last_* in milliseconds
SUBFLOW_COUNTERS = _table(
    (0, "B", "state ca_state retransmits probes backoff"),
    (8, "I", "rto ato snd_mss rcv_mss unacked sacked lost retrans"),
    (44, "I", "last_data_sent"),
    (52, "I", "last_data_recv last_ack_recv pmtu rcv_ssthresh rtt rttvar snd_ssthresh snd_cwnd"),
    (84, "I", "advmss reordering rcv_rtt rcv_space total_retrans"),
    (104, "Q", "pacing_rate max_pacing_rate bytes_acked bytes_received"),
    (136, "I", "segs_out segs_in notsent_bytes min_rtt data_segs_in data_segs_out"),
    (160, "Q", "delivery_rate busy_time rwnd_limited sndbuf_limited"),
    (192, "I", "delivered delivered_ce"),
    (200, "Q", "bytes_sent bytes_retrans"),
    (216, "I", "dsack_dups reord_seen rcv_ooopack snd_wnd"),
)


def decode_connection(payload: bytes) -> ConnectionRead | None:
    """Read a row of protocol 262; None for one that is no connection: it has no token."""
    state, four_tuple, mapped, _, uid, inode = _head(payload)
    found = attribute_map(payload, MESSAGE.size, len(payload))
    if INFO not in found:
        return None
    start, end = found[INFO]
    token = number(U32, payload, start + INFO_TOKEN_AT, end)
    if not token:
        return None
    return ConnectionRead(
        token=token,
        four_tuple=four_tuple,
        mapped=mapped,
        state=state,
        uid=uid,
        inode=inode,
        cgroup=number(_U64, payload, *found[CGROUP_ID]) if CGROUP_ID in found else 0,
        fallback=bool(number(U32, payload, start + INFO_FLAGS_AT, end) & INFO_FALLBACK),
    )


def decode_subflow(payload: bytes) -> SubflowRead | None:
    """Read a row of TCP; None for a socket that is no subflow."""
    if _ULP_IS_MPTCP not in payload:  # by far the cheapest way to pass over plain TCP
        return None
    found = attribute_map(payload, MESSAGE.size, len(payload))
    if ULP_INFO not in found:
        return None
    inner = attribute_map(payload, *found[ULP_INFO])
    if ULP_MPTCP not in inner:
        return None
    subflow = attribute_map(payload, *inner[ULP_MPTCP])
    if SUBFLOW_TOKEN_LOC not in subflow or SUBFLOW_FLAGS not in subflow:
        return None
    flags = number(U32, payload, *subflow[SUBFLOW_FLAGS])
    state, four_tuple, mapped, interface_index, _, _ = _head(payload)
    return SubflowRead(
        token=number(U32, payload, *subflow[SUBFLOW_TOKEN_LOC]),
        four_tuple=four_tuple,
        mapped=mapped,
        state=state,
        local_id=_octet(payload, subflow, SUBFLOW_ID_LOC),
        remote_id=_octet(payload, subflow, SUBFLOW_ID_REM),
        backup=bool(flags & BACKUP_REMOTE),
        backup_requested=bool(flags & BACKUP_LOCAL),
        interface_index=interface_index,
        initial=not flags & JOIN,
        opened_here=bool(flags & OPENED_HERE),
        fully_established=bool(flags & FULLY_ESTABLISHED),
    )


def decode_listener(payload: bytes) -> ListenerRead | None:
    """Read a row of TCP; None for a socket that is no listening MPTCP socket."""
    if _ULP_IS_MPTCP not in payload:
        return None
    state, four_tuple, _, interface_index, uid, inode = _head(payload)
    if state != LISTEN:
        return None
    return ListenerRead(
        four_tuple.local_address, four_tuple.local_port, interface_index, uid, inode
    )


def decode_information(payload: bytes, table: Table) -> dict[str, int] | None:
    """Read the counters of a row by *table*, as many as this kernel has."""
    found = attribute_map(payload, MESSAGE.size, len(payload))
    if INFO not in found:
        return None
    start, end = found[INFO]
    return {
        name: int(layout.unpack_from(payload, start + offset)[0])
        for name, (layout, offset) in table.items()
        if start + offset + layout.size <= end
    }


def _head(payload: bytes) -> tuple[int, FourTuple, bool, int, int, int]:
    if len(payload) < MESSAGE.size:
        raise DecodeError(f"a sock_diag row of {len(payload)} bytes")
    family, state, sport, dport, local, remote, interface, uid, inode = MESSAGE.unpack_from(payload)
    if family == AF_INET6:
        local_text, mapped = ipv6_text(local)
        remote_text, _ = ipv6_text(remote)
    else:
        local_text, mapped = ipv4_text(local[:4]), False
        remote_text = ipv4_text(remote[:4])
    four_tuple = FourTuple(
        local_text, int.from_bytes(sport, "big"), remote_text, int.from_bytes(dport, "big")
    )
    return state, four_tuple, mapped, interface, uid, inode


def _octet(payload: bytes, found: _Found, kind: int) -> int:
    return number(U8, payload, *found[kind]) if kind in found else 0

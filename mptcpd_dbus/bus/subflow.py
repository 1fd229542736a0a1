"""The interface org.mptcpd1.Subflow."""
# SPDX-License-Identifier: BSD-3-Clause

from typing import Any

from mptcpd_dbus.bus.interface import Call, Interface, Method, Property, args
from mptcpd_dbus.bus.names import MANAGE_CONNECTIONS, SUBFLOW
from mptcpd_dbus.bus.options import NoOptions, Options, read_options
from mptcpd_dbus.bus.paths import path_of
from mptcpd_dbus.core.connections import Subflow
from mptcpd_dbus.core.errors import NoSuchSubflow
from mptcpd_dbus.path_manager import PathManager


class DestroyOptions(Options):
    """The options of Destroy."""

    Announce: bool = False


def subflow_interface(pm: PathManager) -> Interface:
    """Declare the interface; its commands go to *pm*."""

    async def destroy(subflow: Subflow, _: Call, given: dict[str, Any]) -> None:
        options = read_options(DestroyOptions, given)
        await pm.destroy_subflow(subflow, announce=options.Announce)

    async def set_backup(
        subflow: Subflow,
        _: Call,
        backup: bool,  # noqa: FBT001 # a D-Bus argument has no keyword
        given: dict[str, Any],
    ) -> None:
        read_options(NoOptions, given)
        await pm.set_backup(subflow, backup=backup)

    async def get_statistics(subflow: Subflow, _: Call) -> tuple[dict[str, int]]:
        counters = pm.subflow_statistics(subflow)
        if counters is None:
            raise NoSuchSubflow(f"the subflow {subflow.four_tuple} is gone")
        return (counters,)

    return Interface(
        SUBFLOW,
        "One TCP flow of an MPTCP connection (RFC 8684, section 1.3).",
        properties=(
            Property(
                "Connection",
                "o",
                lambda s: path_of(s.connection),
                "The connection that it belongs to.",
                "const",
            ),
            Property(
                "LocalAddress",
                "s",
                lambda s: s.four_tuple.local_address,
                "The address of this host.",
                "const",
            ),
            Property(
                "LocalPort",
                "q",
                lambda s: s.four_tuple.local_port,
                "The port of this host.",
                "const",
            ),
            Property(
                "RemoteAddress",
                "s",
                lambda s: s.four_tuple.remote_address,
                "The address of the peer.",
                "const",
            ),
            Property(
                "RemotePort",
                "q",
                lambda s: s.four_tuple.remote_port,
                "The port of the peer.",
                "const",
            ),
            Property(
                "LocalId",
                "y",
                lambda s: s.local_id,
                "The address ID of the local address; 0 is that of the initial subflow.",
                "const",
            ),
            Property(
                "RemoteId",
                "y",
                lambda s: s.remote_id,
                "The address ID of the remote address.",
                "const",
            ),
            Property(
                "Backup",
                "b",
                lambda s: s.backup,
                "Whether the peer asked to use it only when no other is left (RFC 8684, section"
                " 3.3.8).",
            ),
            Property(
                "BackupRequested",
                "b",
                lambda s: s.backup_requested,
                "Whether this host asked for the same; the kernel sends no event for it, so a"
                " change by another program shows with the next sweep.",
            ),
            Property(
                "Interface",
                "s",
                lambda s: s.interface.name if s.interface else "",
                "The network interface that the socket is bound to, else the one that owns the"
                " local address, which need not be the one that its packets leave by; '' where"
                " there is none.",
            ),
            Property(
                "InterfaceIndex",
                "u",
                lambda s: s.interface.index if s.interface else 0,
                "The index of that interface, or 0.",
            ),
            Property(
                "Bound",
                "b",
                lambda s: bool(s.bound_to),
                "Whether the socket is bound to that interface.",
                "const",
            ),
            Property(
                "Initial",
                "b",
                lambda s: s.initial,
                "Whether it is the connection's first one, made by the MP_CAPABLE handshake.",
                "const",
            ),
        ),
        methods=(
            Method(
                "Destroy",
                args("a{sv} options"),
                (),
                destroy,
                "Close the subflow; the connection goes on over the others. Option: Announce b"
                " (default false): first withdraw its local address ID, so that the peer stops"
                " sending into a dead path at once; this ends all subflows of that ID. Only under"
                " the userspace path manager.",
                MANAGE_CONNECTIONS,
            ),
            Method(
                "SetBackup",
                args("b backup", "a{sv} options"),
                (),
                set_backup,
                "Ask the peer to use the subflow only when no other is left, or again like the"
                " others (MP_PRIO, RFC 8684, section 3.3.8). There are no options yet. Only under"
                " the userspace path manager.",
                MANAGE_CONNECTIONS,
            ),
            Method(
                "GetStatistics",
                (),
                args("a{st} counters"),
                get_statistics,
                "Read the counters of the subflow from the kernel, by their names in struct"
                " tcp_info of <linux/tcp.h> without its prefix tcpi_: rtt in microseconds,"
                " total_retrans, bytes_acked, ...; an older kernel has fewer.",
            ),
        ),
    )

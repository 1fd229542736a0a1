"""The interface org.mptcpd1.Connection."""
# SPDX-License-Identifier: BSD-3-Clause

from typing import Annotated, Any

from pydantic import Field

from mptcpd_dbus.bus.interface import Call, Interface, Method, Property, args
from mptcpd_dbus.bus.names import CONNECTION, MANAGE_CONNECTIONS
from mptcpd_dbus.bus.options import NoOptions, Options, read_options
from mptcpd_dbus.bus.paths import NOTHING, path_of
from mptcpd_dbus.core.addresses import read_address
from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.errors import NoSuchConnection
from mptcpd_dbus.core.subflow_wish import SubflowWish
from mptcpd_dbus.path_manager import DEFAULT_TIMEOUT, MAX_TIMEOUT, PathManager
from mptcpd_dbus.policy_protocol import Policies

_Port = Annotated[int, Field(ge=0, le=65535)]
NO_UID = 0xFFFFFFFF


class SubflowOptions(Options):
    """The options of CreateSubflow."""

    LocalAddress: str = ""
    LocalPort: _Port = 0
    Interface: str | None = None
    Backup: bool = False
    Timeout: Annotated[int, Field(ge=1, le=int(MAX_TIMEOUT))] = int(DEFAULT_TIMEOUT)
    Wait: bool = True


class AnnounceOptions(Options):
    """The options of AnnounceAddress."""

    Port: _Port = 0
    Id: Annotated[int, Field(ge=0, le=255)] = 0
    Listener: bool = True


def connection_interface(pm: PathManager, policies: Policies) -> Interface:
    """Declare the interface; its commands go to *pm*, and to *policies* who decides."""

    async def create_subflow(
        connection: Connection, _: Call, address: str, port: int, given: dict[str, Any]
    ) -> tuple[str]:
        options = read_options(SubflowOptions, given)
        wish = SubflowWish(
            read_address("remote_address", address) if address else "",
            port,
            read_address("LocalAddress", options.LocalAddress) if options.LocalAddress else "",
            options.LocalPort,
            options.Interface,
            options.Backup,
        )
        if not options.Wait:
            await pm.send_join(connection, wish)
            return (NOTHING,)
        return (path_of(await pm.create_subflow(connection, wish, options.Timeout)),)

    async def announce_address(
        connection: Connection, _: Call, address: str, given: dict[str, Any]
    ) -> tuple[str]:
        options = read_options(AnnounceOptions, given)
        announced = await pm.announce_address(
            connection,
            read_address("address", address),
            port=options.Port,
            address_id=options.Id,
            listener=options.Listener,
        )
        return (path_of(announced),)

    async def remove_address(
        connection: Connection, _: Call, address_id: int, given: dict[str, Any]
    ) -> None:
        read_options(NoOptions, given)
        await pm.remove_address(connection, address_id)

    async def set_owner(connection: Connection, _: Call, name: str, given: dict[str, Any]) -> None:
        read_options(NoOptions, given)
        await policies.set_owner(connection, name)

    async def get_statistics(connection: Connection, _: Call) -> tuple[dict[str, int]]:
        counters = pm.statistics(connection)
        if counters is None:
            raise NoSuchConnection(f"connection {connection.token:08x} is gone")
        return (counters,)

    return Interface(
        CONNECTION,
        "An MPTCP connection of this host (RFC 8684). Its addresses and ports are those of the"
        " initial subflow, seen from here: 'local' is always this host.",
        properties=(
            Property(
                "Token",
                "u",
                lambda c: c.token,
                "The local token: what 'ss -M', 'ip mptcp monitor' and all signals name the"
                " connection by, in eight hexadecimal digits. Unique among live connections only;"
                " the object path is never used again.",
                "const",
            ),
            Property(
                "LocalAddress",
                "s",
                lambda c: c.four_tuple.local_address,
                "The local address of the initial subflow; an IPv4 address mapped into IPv6 is"
                " shown as IPv4.",
                "const",
            ),
            Property(
                "LocalPort",
                "q",
                lambda c: c.four_tuple.local_port,
                "The local port of the initial subflow.",
                "const",
            ),
            Property(
                "RemoteAddress",
                "s",
                lambda c: c.four_tuple.remote_address,
                "The remote address of the initial subflow.",
                "const",
            ),
            Property(
                "RemotePort",
                "q",
                lambda c: c.four_tuple.remote_port,
                "The remote port of the initial subflow.",
                "const",
            ),
            Property(
                "ServerSide",
                "b",
                lambda c: c.server_side,
                "Whether this host accepted the connection. After a restart of the daemon, and only"
                " if the initial subflow is gone, this is a guess from who made the others.",
                "const",
            ),
            Property(
                "DenyJoinId0",
                "b",
                lambda c: c.deny_join_id0,
                "Whether the peer accepts no joins to its initial address and port (RFC 8684,"
                " section 3.1, flag C). The kernel does not tell it again after a restart of the"
                " daemon: false then.",
            ),
            Property(
                "State",
                "s",
                lambda c: c.state.value,
                "How far it has come: 'created' (no MPTCP option of the peer was seen after the"
                " handshake; no subflow can be added), 'established', or 'closing' (one side has"
                " shut down; found by the sweep). More words may come.",
            ),
            Property(
                "PathManager",
                "s",
                lambda c: c.path_manager,
                "Which of the kernel's path managers owns the connection, chosen when it began:"
                " 'kernel' (endpoints and limits steer it) or 'userspace' (the commands of this"
                " interface do). Empty until it was asked.",
            ),
            Property(
                "Owner",
                "s",
                lambda c: c.owner,
                "The name of the policy that decides for the connection, or '' while nobody does.",
            ),
            Property(
                "Uid",
                "u",
                lambda c: NO_UID if c.uid is None else c.uid,
                "The user that owns the socket; 4294967295 until it was asked. Before accept() it"
                " is the listener's.",
            ),
            Property(
                "ControlGroup",
                "t",
                lambda c: c.cgroup or 0,
                "The ID of the control group in which the socket was created (cgroup v2; the inode"
                " number of its directory), or 0 where the kernel does not tell.",
            ),
            Property(
                "Fallback",
                "b",
                lambda c: c.fallback,
                "Whether the connection has fallen back to plain TCP (RFC 8684, section 3.7); found"
                " by the sweep, as the kernel sends no event.",
            ),
        ),
        methods=(
            Method(
                "CreateSubflow",
                args("s remote_address", "q remote_port", "a{sv} options"),
                args("o subflow"),
                create_subflow,
                "Join from a local to a remote address (MP_JOIN, RFC 8684, section 3.2) and wait"
                " for the outcome: the new subflow, or the error SubflowFailed with the reason. An"
                " empty address and port 0 stand for the connection's own. Options: LocalAddress s"
                " (default: an address of Interface, else the connection's own), LocalPort q,"
                " Interface s (the device to bind to; default: the one that owns the local address;"
                " '' binds to none and leaves the way to the routing table), Backup b, Timeout u"
                " (seconds, 1-20, default 10), Wait b (false: answer '/' as soon as the SYN is"
                " sent; a signal tells the outcome). Only under the userspace path manager.",
                MANAGE_CONNECTIONS,
            ),
            Method(
                "AnnounceAddress",
                args("s address", "a{sv} options"),
                args("o path"),
                announce_address,
                "Announce a local address to the peer (ADD_ADDR, RFC 8684, section 3.4.1) and"
                " listen for its joins where nothing does. Options: Port q (announce this port and"
                " listen on exactly it; not for IPv6 while TCP timestamps are on; below 1024 only"
                " with CAP_NET_BIND_SERVICE), Id y (default: the address's own, else the lowest"
                " free one), Listener b (default true). Only under the userspace path manager.",
                MANAGE_CONNECTIONS,
            ),
            Method(
                "RemoveAddress",
                args("y id", "a{sv} options"),
                (),
                remove_address,
                "Withdraw a local address by its ID (REMOVE_ADDR, RFC 8684, section 3.4.2):"
                " the peer closes the subflows to it. ID 0 is the address of the initial subflow."
                " There are no options yet. Only under the userspace path manager.",
                MANAGE_CONNECTIONS,
            ),
            Method(
                "SetOwner",
                args("s name", "a{sv} options"),
                (),
                set_owner,
                "Let another policy decide for the connection; '' lets nobody. There are no options"
                " yet.",
                MANAGE_CONNECTIONS,
            ),
            Method(
                "GetStatistics",
                (),
                args("a{st} counters"),
                get_statistics,
                "Read the counters of the connection from the kernel, by their names in struct"
                " mptcp_info of <linux/mptcp.h>; an older kernel has fewer.",
            ),
        ),
    )

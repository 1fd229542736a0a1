"""The kernel that this process runs on, behind the protocol of `kernel_protocol.py`."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Hashable, Iterator, Sequence

from mptcpd_dbus.core.commands import Command, GetAddr, GetLimits
from mptcpd_dbus.core.readings import (
    ConnectionRead,
    EndpointsRead,
    LimitsRead,
    ListenerRead,
    LocalAddressesRead,
    SettingsRead,
    SubflowRead,
)
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.kernel import passed_socket, sysctl
from mptcpd_dbus.kernel.listeners import Listeners
from mptcpd_dbus.kernel.request_socket import RequestSocket
from mptcpd_dbus.kernel.sock_diag import SockDiag


class LiveKernel:
    """Hands each question to the socket that answers it."""

    def __init__(self) -> None:
        self._requests = RequestSocket()
        self._diag = SockDiag()
        self._listeners = Listeners()
        self._namespace = passed_socket.namespace_cookie()

    def close(self) -> None:
        """Close all sockets; what was set up in the kernel stays."""
        self._listeners.close_all()
        self._requests.close()
        self._diag.close()

    async def execute(self, command: Command) -> None:
        """Run *command*; raise KernelRefused with the kernel's errno and words."""
        await self._requests.execute(command)

    def local_addresses(self, token: int) -> LocalAddressesRead | None:
        """Read who manages the connection and its address IDs; None if there is none such."""
        return self._requests.local_addresses(token)

    def endpoints(self) -> EndpointsRead:
        """Read the endpoints of the in-kernel path manager."""
        answer = self._requests.read_now(GetAddr())
        return EndpointsRead(answer if isinstance(answer, tuple) else ())

    def limits(self) -> LimitsRead:
        """Read the limits of the in-kernel path manager."""
        answer = self._requests.read_now(GetLimits())
        return answer if isinstance(answer, LimitsRead) else LimitsRead(0, 0)

    def settings(self) -> SettingsRead:
        """Read the sysctls of net.mptcp."""
        return sysctl.read_settings()

    def set_path_manager(self, name: str) -> None:
        """Set the path manager for connections to come; raise KernelRefused."""
        sysctl.set_path_manager(name)

    def tcp_timestamps(self) -> bool:
        """Whether TCP timestamps are on."""
        return sysctl.tcp_timestamps()

    def connection(self, token: int) -> ConnectionRead | None:
        """Look one connection up by its token."""
        return self._diag.connection(token)

    def token(self, descriptor: int) -> int:
        """Read the token of the connection behind a socket; raise where there is none."""
        return passed_socket.token(descriptor, self._namespace)

    def subflow(
        self, four_tuple: FourTuple, *, mapped: bool, interface_index: int
    ) -> SubflowRead | None:
        """Look one subflow up by its 4-tuple and the device that it is bound to."""
        return self._diag.subflow(four_tuple, mapped=mapped, interface_index=interface_index)

    def pending_joins(
        self, token: int, local_address: str, remote_address: str, remote_port: int
    ) -> list[SubflowRead]:
        """Find the joins whose SYN is not answered yet."""
        return self._diag.pending(token, local_address, remote_address, remote_port)

    def connections(self) -> Iterator[Sequence[ConnectionRead]]:
        """Dump all connections."""
        return self._diag.connections()

    def subflows(self) -> Iterator[Sequence[SubflowRead]]:
        """Dump all subflows."""
        return self._diag.subflows()

    def listeners(self) -> list[ListenerRead]:
        """Dump the MPTCP sockets that listen."""
        return [row for rows in self._diag.listeners() for row in rows]

    def statistics(self, token: int) -> dict[str, int] | None:
        """Read the counters of a connection."""
        return self._diag.statistics(token)

    def subflow_statistics(
        self, four_tuple: FourTuple, *, mapped: bool, interface_index: int
    ) -> dict[str, int] | None:
        """Read the counters of a subflow."""
        return self._diag.subflow_statistics(
            four_tuple, mapped=mapped, interface_index=interface_index
        )

    def open_listener(
        self, user: Hashable, address: str, port: int, covering: frozenset[str] = frozenset()
    ) -> int:
        """Listen for *user* unless another program does, on one of the *covering* addresses."""
        if covering:
            own = self._listeners.inodes()
            for row in self.listeners():
                # One that is bound to a device hears joins over that one only.
                others = row.interface_index == 0 and row.inode not in own
                if others and row.port == port and row.address in covering:
                    return port
        return self._listeners.open(user, address, port)

    def release_listener(self, user: Hashable, address: str, port: int) -> None:
        """Undo one opening by *user*."""
        self._listeners.release(user, address, port)

    def close_listener(self, user: Hashable) -> None:
        """Stop listening on behalf of *user*."""
        self._listeners.close(user)

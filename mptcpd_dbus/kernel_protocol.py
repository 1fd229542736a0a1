"""What the daemon asks of a kernel: the one door for the real one and for the fake one of tests."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Hashable, Iterator, Sequence
from typing import Protocol

from mptcpd_dbus.core.commands import Command
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


class Kernel(Protocol):
    """Commands are awaited; look-ups answer at once (5-40 us); dumps come in slices.

    Commands on a connection do not suspend their caller, so that nothing comes between two of them.
    """

    async def execute(self, command: Command) -> None:
        """Run *command*; raise KernelRefused with the kernel's errno and words."""

    def local_addresses(self, token: int) -> LocalAddressesRead | None:
        """Read who manages the connection and its address IDs; None if there is none such."""

    def endpoints(self) -> EndpointsRead:
        """Read the endpoints of the in-kernel path manager."""

    def limits(self) -> LimitsRead:
        """Read the limits of the in-kernel path manager."""

    def settings(self) -> SettingsRead:
        """Read the sysctls of net.mptcp."""

    def set_path_manager(self, name: str) -> None:
        """Set the path manager for connections to come; raise KernelRefused."""

    def tcp_timestamps(self) -> bool:
        """Whether TCP timestamps are on (they leave no room for an IPv6 ADD_ADDR with a port)."""

    def connection(self, token: int) -> ConnectionRead | None:
        """Look one connection up by its token."""

    def token(self, descriptor: int) -> int:
        """Read the token of the connection behind a socket; raise NotMultipath, ForeignNamespace.

        The descriptor may be anything, and stays open.
        """

    def subflow(
        self, four_tuple: FourTuple, *, mapped: bool, interface_index: int
    ) -> SubflowRead | None:
        """Look one subflow up by its 4-tuple and the device that it is bound to, or 0."""

    def pending_joins(
        self, token: int, local_address: str, remote_address: str, remote_port: int
    ) -> list[SubflowRead]:
        """Find the joins whose SYN is not answered yet."""

    def connections(self) -> Iterator[Sequence[ConnectionRead]]:
        """Dump all connections."""

    def subflows(self) -> Iterator[Sequence[SubflowRead]]:
        """Dump all subflows."""

    def listeners(self) -> list[ListenerRead]:
        """Dump the MPTCP sockets that listen."""

    def statistics(self, token: int) -> dict[str, int] | None:
        """Read the counters of a connection (struct mptcp_info, <linux/mptcp.h>)."""

    def subflow_statistics(
        self, four_tuple: FourTuple, *, mapped: bool, interface_index: int
    ) -> dict[str, int] | None:
        """Read the counters of a subflow (struct tcp_info, <linux/tcp.h>)."""

    def open_listener(
        self, user: Hashable, address: str, port: int, covering: frozenset[str] = frozenset()
    ) -> int:
        """Listen for *user* unless another program does, on one of the *covering* addresses.

        Give the port: the kernel chooses one for port 0, another one each time.  What a user opens
        twice counts twice.  Raise KernelRefused naming what to do.
        """

    def release_listener(self, user: Hashable, address: str, port: int) -> None:
        """Undo one opening by *user*; raise InvalidArgument where there is none."""

    def close_listener(self, user: Hashable) -> None:
        """Stop listening on behalf of *user*; the last user of a listener closes it."""

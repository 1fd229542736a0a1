"""Sends the commands of core/commands.py to the kernel and brings back its answers.

A netlink command runs inside the system call that sends it.  Those on endpoints take the kernel up
to 15 ms, so one worker thread sends them, in order; those on a connection take it 20 to 300 us and
are made on the spot, for a busy loop would keep a thread waiting for longer.  Knows nothing of
connections beyond their tokens.  Source: netlink(7), <linux/mptcp_pm.h>.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import errno
from concurrent.futures import ThreadPoolExecutor

from mptcpd_dbus.core.commands import Announce, Command, GetAddr, GetLimits
from mptcpd_dbus.core.errors import KernelRefused
from mptcpd_dbus.core.readings import LimitsRead, LocalAddressesRead
from mptcpd_dbus.core.types import AddressEntry
from mptcpd_dbus.kernel.family import GENL_HEADER, NETLINK_GENERIC, VERSION, find_family
from mptcpd_dbus.kernel.mptcp_pm import (
    FAMILY,
    CommandNumber,
    decode_address_entry,
    decode_limits,
    encode,
    refusal_text,
)
from mptcpd_dbus.kernel.netlink import NLM_F_ACK, NLM_F_DUMP
from mptcpd_dbus.kernel.netlink_socket import NetlinkSocket, RefusedError

# The kernel's words are all that tells these two from each other, and from anything else: EINVAL.
KERNEL_PATH_MANAGER = "userspace PM not selected"
NO_SUCH_TOKEN = "invalid token"  # noqa: S105 - no password, but the kernel's words

Answer = tuple[AddressEntry, ...] | LimitsRead | None


class RequestSocket:
    """The two sockets for commands: one of the worker, one of the loop's thread."""

    def __init__(self) -> None:
        self._slow = NetlinkSocket(NETLINK_GENERIC)
        self._quick = NetlinkSocket(NETLINK_GENERIC)
        self._worker = ThreadPoolExecutor(1, "mptcp_pm")
        try:
            self._family_id = find_family(self._quick, FAMILY).id
            self._tables = self._has_tables()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Wait for the command on its way, drop those behind it."""
        self._worker.shutdown(cancel_futures=True)
        self._slow.close()
        self._quick.close()

    async def execute(self, command: Command) -> Answer:
        """Send one command after its like before it; KernelRefused with the kernel's words."""
        if getattr(command, "token", None) is not None:
            return self._ask(self._quick, command)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self._ask, self._slow, command)

    def read_now(self, command: GetAddr | GetLimits) -> Answer:
        """Send a command that only reads, on the spot: 15-25 us."""
        return self._ask(self._quick, command)

    def local_addresses(self, token: int) -> LocalAddressesRead | None:
        """Tell who manages a connection, with its table of local IDs; None if there is none such.

        Kernels before 6.9 do not show the table: there it is empty, and who manages is learnt from
        how an announcement with ID 0, which none accepts, is refused.
        """
        probe = GetAddr(token) if self._tables else Announce(token, AddressEntry("0.0.0.0"))  # noqa: S104 - no bind
        try:
            entries = self._ask(self._quick, probe)
        except KernelRefused as refused:
            if refused.text == KERNEL_PATH_MANAGER:
                return LocalAddressesRead(token, None)
            if refused.text == NO_SUCH_TOKEN:
                return None
            if not self._tables and refused.errno == errno.EINVAL:
                return LocalAddressesRead(token, (), table=False)
            raise
        return LocalAddressesRead(token, entries if isinstance(entries, tuple) else ())

    def _has_tables(self) -> bool:
        """Whether GET_ADDR heeds a token; kernels before 6.9 give the endpoints for any."""
        try:
            self._ask(self._quick, GetAddr(0))
        except KernelRefused as refused:
            return refused.text == NO_SUCH_TOKEN
        return False

    def _ask(self, sock: NetlinkSocket, command: Command) -> Answer:
        number, payload = encode(command)
        flags = {CommandNumber.GET_ADDR: NLM_F_DUMP, CommandNumber.GET_LIMITS: 0}
        request = GENL_HEADER.pack(number, VERSION, 0) + payload
        try:
            answer = [
                reply
                for replies in sock.ask(self._family_id, flags.get(number, NLM_F_ACK), request)
                for reply in replies
            ]
        except RefusedError as refused:
            reply = refused.reply
            raise KernelRefused(number.name, reply.errno, refusal_text(reply)) from None
        match number:
            case CommandNumber.GET_ADDR:
                return tuple(decode_address_entry(reply) for reply in answer)
            case CommandNumber.GET_LIMITS:
                return decode_limits(answer[0])
            case _:
                return None

"""One command to the kernel, and what moves the state after it.

A command never edits the state.  `EVENTS` and `READ_BACK` say for each what moves it: the kernel's
events and, for what the kernel tells this side nothing of, a reading that is applied like an event.
"""
# SPDX-License-Identifier: BSD-3-Clause

import errno
from collections.abc import Callable
from typing import Any

from mptcpd_dbus.core import commands, events, readings
from mptcpd_dbus.core.errors import (
    KernelRefused,
    MptcpdError,
    NoSuchAddress,
    NoSuchConnection,
    NoSuchEndpoint,
    NoSuchSubflow,
    NotManageable,
)
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.kernel_protocol import Kernel

EVENTS: dict[type[commands.Command], tuple[type[events.Event], ...]] = {
    commands.SubflowCreate: (events.NewSubflow, events.SubflowClosed),
    commands.SubflowDestroy: (events.SubflowClosed,),
}
"""The commands whose effect the kernel tells by an event."""


def _local_addresses(kernel: Kernel, command: Any) -> readings.Reading | None:
    return kernel.local_addresses(command.token)


def _endpoints(kernel: Kernel, _: Any) -> readings.Reading:
    return kernel.endpoints()


def _flagged(kernel: Kernel, command: commands.SetFlags) -> readings.Reading | None:
    local, remote = command.local, command.remote
    if remote is None:
        return kernel.endpoints()
    four_tuple = FourTuple(local.address, local.port, remote.address, remote.port)
    return kernel.subflow(four_tuple, mapped=local.mapped, interface_index=local.interface_index)


READ_BACK: dict[type[commands.Command], Callable[[Kernel, Any], readings.Reading | None]] = {
    commands.AddAddr: _endpoints,
    commands.DelAddr: _endpoints,
    commands.FlushAddrs: _endpoints,
    commands.SetLimits: lambda kernel, _: kernel.limits(),
    commands.SetFlags: _flagged,
    commands.Announce: _local_addresses,
    commands.Remove: _local_addresses,
    commands.SubflowCreate: _local_addresses,
    commands.SubflowDestroy: _local_addresses,
}
"""What is read back after a command, also a refused one: a refused join deletes an ID."""

_REFUSALS: tuple[tuple[str, type[MptcpdError]], ...] = (
    ("invalid token", NoSuchConnection),
    ("userspace PM not selected", NotManageable),
    ("subflow not found", NoSuchSubflow),
    ("address with id", NoSuchAddress),
    ("address not found", NoSuchEndpoint),
)


class Commander:
    """Sends commands; *apply* takes readings in, *doubt* hears of a token that nobody has."""

    def __init__(
        self,
        kernel: Kernel,
        apply: Callable[[readings.Reading], None],
        doubt: Callable[[int], None],
    ) -> None:
        self._kernel = kernel
        self._apply = apply
        self._doubt = doubt

    async def execute(self, command: commands.Command) -> None:
        """Run *command* and take in what it did; a refusal gets the name of what it is about."""
        try:
            await self._kernel.execute(command)
        except KernelRefused as error:
            raise self._named(command, error) from None
        finally:
            reading = READ_BACK[type(command)](self._kernel, command)
            if reading is not None:  # else it closed meanwhile: an event or the sweep tells
                self._apply(reading)

    def _named(self, command: Any, error: KernelRefused) -> MptcpdError:
        for words, kind in _REFUSALS:
            if words in error.text:
                if kind is NoSuchConnection:
                    self._doubt(command.token)
                return kind(str(error))
        if error.errno == errno.EACCES:
            hint = "a port below 1024 needs CAP_NET_BIND_SERVICE"
            return KernelRefused(error.command, error.errno, f"{error.text}: {hint}")
        return error

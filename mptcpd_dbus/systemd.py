"""Tells the service manager how we are (sd_notify(3)); without one it does nothing."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
import os
import socket
from collections.abc import Callable

_log = logging.getLogger(__name__)


def notify(*lines: str) -> None:
    """Send *lines* to $NOTIFY_SOCKET, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, address)
        except OSError as error:
            _log.warning("the service manager was not told %s: %s", lines[0], error)


async def feed_watchdog(status: Callable[[], str], awake: Callable[[], None]) -> None:
    """Say that the loop turns, at half the time in which the service manager wants to hear it.

    That is enough: what reads the kernel and the bus runs in the loop, and ends us when it fails.
    With each goes the *status*, and *awake* is called, for which nobody need wake up then.
    """
    pause = int(os.environ.get("WATCHDOG_USEC", "0")) / 2_000_000
    while pause:
        notify("WATCHDOG=1", f"STATUS={status()}")
        awake()
        await asyncio.sleep(pause)

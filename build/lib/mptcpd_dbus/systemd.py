"""Tells the service manager how we are (sd_notify(3)); without one it does nothing."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import os
import socket


def notify(*lines: str) -> None:
    """Send *lines* to $NOTIFY_SOCKET, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto("\n".join(lines).encode(), address)


async def feed_watchdog() -> None:
    """Say that the loop turns, at half the time in which the service manager wants to hear it."""
    pause = int(os.environ.get("WATCHDOG_USEC", "0")) / 2_000_000
    while pause:
        notify("WATCHDOG=1")
        await asyncio.sleep(pause)

"""Logs what of the kernel's messages cannot be read: not all, for it may come by the thousand."""
# SPDX-License-Identifier: BSD-3-Clause

import logging
from math import inf
from time import monotonic

from mptcpd_dbus.core.errors import DecodeError

INTERVAL = 10.0

_log = logging.getLogger(__name__)


class Unread:
    """Counts all, and names one in some seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._count = 0
        self._told_at = -inf

    def report(self, data: bytes, error: DecodeError) -> None:
        """Tell of *data*, in hexadecimal, if it is time to."""
        self._count += 1
        now = monotonic()
        if now - self._told_at >= INTERVAL:
            self._told_at = now
            _log.warning(
                "dropped %s that cannot be read (%d so far): %s: %s",
                *(self._what, self._count, error, data.hex()),
            )

"""Keeps the log from filling with one fault: of lines of a kind some are let through, all counted.

What fails may do so for every connection, and with a traceback each time.  A kind is the place that
logs, the plugin that it is about, and the place that raised: what a text says can be anybody's.
Must not know what is logged, nor where to.
"""
# SPDX-License-Identifier: BSD-3-Clause

import logging
from collections.abc import Callable
from time import monotonic
from traceback import walk_tb

from mptcpd_dbus.log_fields import fields_of

LINES, SECONDS = 10, 60.0
"""So many lines of a kind, and then no more of it for the rest of so long."""

KINDS = 256
"""So many kinds are told apart; then the one that began first is forgotten."""

_Kind = tuple[object, ...]


class Repeats(logging.Filter):
    """Lets pass what is no warning, and of the rest what has not been said too often."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._now = now
        self._seen: dict[_Kind, tuple[float, int]] = {}  # since when, and how many

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether *record* is to be logged; the first after a silence says how many were not."""
        if record.levelno < logging.WARNING:
            return True
        kind = _kind(record)
        now = self._now()
        since, count = self._seen.get(kind, (now, 0))
        if now - since >= SECONDS:
            del self._seen[kind]  # it is the newest now
            if count > LINES:
                record.msg = f"{record.getMessage()} (and {count - LINES} like it before)"
                record.args = None
            since, count = now, 0
        self._seen[kind] = since, count + 1
        if len(self._seen) > KINDS:
            del self._seen[next(iter(self._seen))]
        return count < LINES


def _kind(record: logging.LogRecord) -> _Kind:
    error = record.exc_info[1] if record.exc_info else None
    raised: list[object] = [type(error).__name__]
    for frame, line in walk_tb(error.__traceback__ if error else None):
        raised = [type(error).__name__, frame.f_code.co_filename, line]
    return (record.pathname, record.lineno, fields_of(record).get("MPTCP_PLUGIN"), *raised)

"""Sends the log to the journal in its native protocol, with the fields of each line.

A journal that does not read costs lines, never time.  What a field means is not known here: see
`log_fields.py`.  Source: systemd.journal-fields(7); "Native Journal Protocol" of systemd.
"""
# SPDX-License-Identifier: BSD-3-Clause

import logging
import os
import socket
import struct
from collections.abc import Mapping

from mptcpd_dbus.log_fields import fields_of

LONGEST = 16 << 10
"""Characters of a value: more than one traceback, less than a datagram (net.core.wmem_default)."""

_SOCKET = "/run/systemd/journal/socket"
_STDERR = 2
_OURS = {"SYSLOG_IDENTIFIER": "mptcpd-dbus", "SYSLOG_FACILITY": "3"}  # LOG_DAEMON, <syslog.h>
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7
_LENGTH = struct.Struct("<Q")


def is_stderr() -> bool:
    """Whether the journal reads stderr: $JOURNAL_STREAM in systemd.exec(5)."""
    stream = os.environ.get("JOURNAL_STREAM")
    if not stream:
        return False
    found = os.fstat(_STDERR)
    return stream == f"{found.st_dev}:{found.st_ino}"


class JournalHandler(logging.Handler):
    """Sends each line as an entry; raises OSError where there is no journal at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter())
        self._lost = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.connect(_SOCKET)
        except OSError:
            self._socket.close()
            raise

    def emit(self, record: logging.LogRecord) -> None:
        """Send *record*, or count it as lost."""
        try:
            entry = self._entry(record)
        except Exception:  # noqa: BLE001  as every handler: a wrong call must not stop its caller
            self.handleError(record)
            return
        if self._lost:
            text = f"{self._lost} lines were lost here: the journal did not take them"
            if self._sent(encode(_OURS | {"PRIORITY": "4", "MESSAGE": text})):
                self._lost = 0
        if not self._sent(entry):
            self._lost += 1

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()

    def _entry(self, record: logging.LogRecord) -> bytes:
        priority = next((p for floor, p in _PRIORITIES if record.levelno >= floor), _DEBUG)
        code = {"FILE": record.pathname, "LINE": str(record.lineno), "FUNC": record.funcName or ""}
        return encode(
            {
                "MESSAGE": self.format(record),
                "PRIORITY": str(priority),
                **_OURS,
                **{f"CODE_{name}": value for name, value in code.items()},
                **fields_of(record),
            }
        )

    def _sent(self, entry: bytes) -> bool:
        try:
            # To the path: whoever listens there may be another than at the start.
            self._socket.sendto(entry, socket.MSG_DONTWAIT, _SOCKET)
        except OSError:
            return False
        return True


def encode(fields: Mapping[str, str]) -> bytes:
    """Give an entry; each value goes with its length, so that no value can be taken for a field."""
    entry = bytearray()
    for name, text in fields.items():
        value = text[:LONGEST].encode(errors="backslashreplace")
        entry += b"%s\n%s%s\n" % (name.encode("ascii"), _LENGTH.pack(len(value)), value)
    return bytes(entry)

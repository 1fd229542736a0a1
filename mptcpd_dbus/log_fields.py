"""What a line of the log is about, for those who search the journal: the `extra` of a log call.

The only place that names these fields; mptcpd-dbus(8) explains them.
"""
# SPDX-License-Identifier: BSD-3-Clause

import logging

_ATTRIBUTE = "mptcp_fields"

FIELDS = (
    *("MPTCP_TOKEN", "MPTCP_INTERFACE", "MPTCP_PLUGIN", "MPTCP_EVENT", "MPTCP_OBJECT"),
    *("MPTCP_SENDER", "MPTCP_UID", "MPTCP_METHOD", "MPTCP_RESULT"),
)


def about(
    *,
    token: int | None = None,
    interface: str = "",
    plugin: str = "",
    event: str = "",
    path: str = "",
    sender: str = "",
    uid: int | None = None,
    method: str = "",
    result: str = "",
) -> dict[str, dict[str, str]]:
    """Give the `extra` of a line about these; *event* is the event's name, or a plugin's handler's.

    *path* is that of an object on the bus.
    """
    shown = "" if token is None else f"{token:08x}"
    number = "" if uid is None else str(uid)
    values = (shown, interface, plugin, event, path, sender, number, method, result)
    return {_ATTRIBUTE: {f: v for f, v in zip(FIELDS, values, strict=True) if v}}


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    """Give the fields of a line."""
    found: dict[str, str] = getattr(record, _ATTRIBUTE, {})
    return found

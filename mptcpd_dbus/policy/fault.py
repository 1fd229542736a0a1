"""What went wrong in a plugin's code, in one line that can be shown anywhere.

A plugin's exception can fail even at saying what it is, and its text can be anything.
"""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.core.errors import MptcpdError

_LONGEST = 200


def one_line(error: BaseException) -> str:
    """Say what *error* is: our own errors in their words, others with their names before."""
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 # its author wrote that, too
        text = "(its text cannot be had)"
    if text and not isinstance(error, MptcpdError):
        text = f"{name}: {text}"
    return printable(text or name)


def printable(text: str) -> str:
    """Give the first line of *text* without what a terminal or the bus would not take."""
    first = next(iter(text.strip().splitlines()), "")[:_LONGEST]
    return "".join(letter if letter.isprintable() else "?" for letter in first)

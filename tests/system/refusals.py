"""What no journal of a machine may have: that something was not allowed, or a traceback."""
# SPDX-License-Identifier: BSD-3-Clause

import re

_FOUND = re.compile(
    r"\b(avc|apparmor|seccomp|sigsys|denied|not permitted|rejected|forbidden)\b"
    r"|traceback|needs cap_"
)
# The bus and sudo(8), in any container.
_ALLOWED = re.compile(r"Failed to set fd limit|sudo.* Could not set limit for")


def refusals(journal: str) -> list[str]:
    """Give the lines that tell of it."""
    lines = journal.splitlines()
    return [line for line in lines if _FOUND.search(line.lower()) and not _ALLOWED.search(line)]

"""How mptcpctl fails: a line that says what to do, and an exit status.

The numbers are those of LSB init scripts where they have one, as systemctl(1)'s are.
"""
# SPDX-License-Identifier: BSD-3-Clause

OK = 0
FAILED = 1
USAGE = 2
UNAVAILABLE = 3
NOT_AUTHORISED = 4
INTERRUPTED = 130
BROKEN_PIPE = 141

STATUSES = {
    OK: "all went well",
    FAILED: "the daemon refused or could not do it",
    USAGE: "the command line is wrong",
    UNAVAILABLE: "the daemon or the bus is not there",
    NOT_AUTHORISED: "you are not authorised",
    INTERRUPTED: "interrupted by Ctrl-C",
    BROKEN_PIPE: "whoever read the output has gone",
}


class Failure(Exception):
    """Ends mptcpctl with *status*; the text is for who typed the command."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Misuse(Failure):
    """What was typed cannot be meant."""

    def __init__(self, text: str) -> None:
        super().__init__(USAGE, text)

"""The kernel's table of endpoints on a host of the lab, looked at all the time, as ip(8) shows it.

It knows neither the service nor anybody else who may change the table.  See ip-mptcp(8).
"""
# SPDX-License-Identifier: BSD-3-Clause

import subprocess
import threading
from typing import NamedTuple, Self

from tests.lab.hosts import Host, Lab

EVERY = 0.005  # seconds between two looks, of which one takes less than a tenth of a millisecond


class Endpoint(NamedTuple):
    """A line of the table."""

    id: int
    flags: str
    device: str


Table = dict[str, Endpoint]
"""By address."""


class EndpointTable:
    """Every state of the table that was seen, from entering it to leaving it."""

    def __init__(self, lab: Lab, host: Host = "client") -> None:
        ip = ["stdbuf", "--output=L", "ip", "-n", lab.namespaces[host], "-batch", "-"]
        self._ip = subprocess.Popen(ip, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on)
        self.looks = 0
        self.states = [self._look()]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._ip.communicate()

    @property
    def now(self) -> Table:
        """What it was last."""
        return self.states[-1]

    def _look_on(self) -> None:
        while not self._over.wait(EVERY):
            table = self._look()
            if table != self.now:
                self.states.append(table)

    def _look(self) -> Table:
        assert self._ip.stdin is not None
        assert self._ip.stdout is not None
        # The limits are one line, always: it ends those of the table.
        self._ip.stdin.write("mptcp endpoint show\nmptcp limits show\n")
        self._ip.stdin.flush()
        table: Table = {}
        while not (line := self._ip.stdout.readline()).startswith("add_addr_accepted"):
            address, _, number, *words = line.split()
            flags, _, device = " ".join(words).partition("dev ")
            table[address] = Endpoint(int(number), flags.strip(), device)
        self.looks += 1
        return table

"""The applications of the benchmarks: many connections as fast as one process can make them.

    python -m tests.bench.load

They obey like `tests/lab/application.py`, but what is here blocks: nothing is cheaper.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import socket
import time
from dataclasses import dataclass, field

from tests.lab.application import IPPROTO_MPTCP, Application, main


@dataclass
class Load(Application):
    """What the two ends do."""

    held: list[socket.socket] = field(default_factory=list)

    async def answer(self, listener: int, count: int, *, keep: bool = False) -> None:
        """Accept so many connections, one after the other, and send a byte back on each."""
        listening = self.sockets[listener]
        listening.setblocking(True)
        for _ in range(count):
            talker, _ = listening.accept()
            talker.send(talker.recv(1))
            if keep:
                self.held.append(talker)
            else:
                talker.recv(1)  # the end
                talker.close()

    async def come_and_go(self, count: int, address: str, port: int, rate: float = 0) -> float:
        """Connect, exchange a byte and close, so many times; give the seconds that it took.

        With a rate, so many times a second if it can.
        """
        began = time.monotonic()
        for number in range(count):
            self._wait_until(began + number / rate if rate else 0)
            self._exchange(address, port).close()
        return time.monotonic() - began

    async def hold(self, count: int, address: str, port: int, rate: float = 0) -> float:
        """Connect and exchange a byte, so many times; give the seconds that it took."""
        began = time.monotonic()
        for number in range(count):
            self._wait_until(began + number / rate if rate else 0)
            self.held.append(self._exchange(address, port))
        return time.monotonic() - began

    async def let_go(self, count: int = 0) -> float:
        """Close what is held, all or so many; give the seconds that it took."""
        began = time.monotonic()
        going, self.held = (
            self.held[-count:],
            self.held[: len(self.held) - (count or len(self.held))],
        )
        for talker in going:
            talker.close()
        return time.monotonic() - began

    def _exchange(self, address: str, port: int) -> socket.socket:
        talker = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
        talker.connect((address, port))
        talker.send(b"x")
        talker.recv(1)
        return talker

    def _wait_until(self, moment: float) -> None:
        left = moment - time.monotonic()
        if left > 0:
            time.sleep(left)


if __name__ == "__main__":
    asyncio.run(main(Load))

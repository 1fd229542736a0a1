"""What applications do on a test's host: listen, connect and talk with Multipath TCP or without.

Also the commands that its administrator gives.  Knows nothing of ours.
"""
# SPDX-License-Identifier: BSD-3-Clause

import contextlib
import socket
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

IPPROTO_MPTCP = 262


@dataclass(frozen=True)
class Talk:
    """Both ends of one connection."""

    client: socket.socket
    server: socket.socket

    @property
    def four_tuple(self) -> tuple[str, int, str, int]:
        """The client's view."""
        return (*self.client.getsockname()[:2], *self.client.getpeername()[:2])


class Host:
    """A network namespace in which this thread is; its sockets die with the test."""

    def __init__(self, sockets: ExitStack) -> None:
        self._sockets = sockets

    def run(self, command: str) -> None:
        """Give the command of an administrator."""
        subprocess.run(command.split(), check=True)

    def use_path_manager(self, name: str) -> None:
        """Choose the path manager of later connections."""
        Path("/proc/sys/net/mptcp/path_manager").write_text(name)

    def make_socket(
        self, family: int = socket.AF_INET, protocol: int = IPPROTO_MPTCP
    ) -> socket.socket:
        """Make a socket that is closed after the test."""
        made = socket.socket(family, socket.SOCK_STREAM, protocol)
        made.settimeout(5)
        return self._sockets.enter_context(contextlib.closing(made))

    def listen(
        self, address: str = "127.0.0.1", port: int = 0, protocol: int = IPPROTO_MPTCP
    ) -> socket.socket:
        """Listen on an address."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = self.make_socket(family, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(4096)
        return listener

    def talk(
        self, listener: socket.socket, address: str = "127.0.0.1", protocol: int = IPPROTO_MPTCP
    ) -> Talk:
        """Connect, and exchange a byte each way: then both ends are established."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        client = self.make_socket(family, protocol)
        client.connect((address, listener.getsockname()[1]))
        server, _ = listener.accept()
        server.settimeout(5)
        self._sockets.enter_context(contextlib.closing(server))
        for sender, receiver in ((client, server), (server, client)):
            sender.sendall(b"x")
            assert receiver.recv(1) == b"x"
        return Talk(client, server)

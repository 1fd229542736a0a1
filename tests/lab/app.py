"""The test's side of an application: a process on a host, told what to do by name.

    app = lab.app("client")
    talk, port = await app.call("connect", address="10.0.9.1", port=80)

`tests/lab/application.py` lists the operations; this knows only how to ask.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import json
import socket
import subprocess
from dataclasses import dataclass
from typing import Any

from tests.lab.sandbox import readable_repository

ANSWER = 70.0  # an operation has a limit of its own, so this long means that the process is lost


class AppError(Exception):
    """What an operation failed with: the name of the exception and its text."""


class App:
    """A running application."""

    @staticmethod
    def argv() -> list[str]:
        """Return the command line of an application; anybody can run it."""
        return ["/usr/bin/python3", "-I", f"{readable_repository()}/tests/lab/application.py"]

    def __init__(self, command: list[str]) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(command, stdin=theirs.fileno())
        self._control.setblocking(False)
        self._turn = asyncio.Lock()
        self._buffer = b""

    async def call(self, op: str, **arguments: Any) -> Any:
        """Do an operation and return its result; `limit` gives it other than ten seconds."""
        request = json.dumps({"op": op, **arguments}).encode() + b"\n"
        async with self._turn, asyncio.timeout(arguments.get("limit", 0) + ANSWER):
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(self._control, request)
            while b"\n" not in self._buffer:
                data = await loop.sock_recv(self._control, 1 << 20)
                if not data:
                    raise AppError("the application has died")
                self._buffer += data
            line, _, self._buffer = self._buffer.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise AppError(answer["error"])
        return answer["ok"]

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        self.process.kill()
        self.process.wait()
        self._control.close()


@dataclass(frozen=True)
class Pair:
    """A connection seen from both ends."""

    client: int
    server: int
    local_port: int
    token: int | None
    server_token: int | None


async def exchange(client: App, client_talk: int, server: App, server_talk: int) -> None:
    """Send a byte each way; only then do both ends count the connection as established."""
    await client.call("send", talk=client_talk)
    await server.call("recv", talk=server_talk)
    await server.call("send", talk=server_talk)
    await client.call("recv", talk=client_talk)


async def converse(client: App, server: App, listener: int, **target: Any) -> Pair:
    """Connect the client to the server's listener at the target, and exchange a byte each way."""
    client_talk, local_port = await client.call("connect", **target)
    server_talk = await server.call("accept", listener=listener)
    await exchange(client, client_talk, server, server_talk)
    return Pair(
        client_talk,
        server_talk,
        local_port,
        await client.call("token", talk=client_talk),
        await server.call("token", talk=server_talk),
    )

"""Two hosts in network namespaces, a client and a server, joined by three links.

Link i is the device `link{i}` on both hosts: client 10.0.i.1 and dead:beef:i::1, server 10.0.i.2
and dead:beef:i::2.  The server also has one address on no link, 10.0.9.1 and dead:beef:9::1, to
which the client has a route over each link, link1 first.  There are no source rules: only binding
to a device chooses a link, and only the link's counters prove which one was taken.
See ip-netns(8), ip-link(8), nft(8); it must not know the daemon or the bus.
"""
# SPDX-License-Identifier: BSD-3-Clause

import contextlib
import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from tests.lab.app import App
from tests.lab.sandbox import inside
from tests.lab.users import as_user

Host = Literal["client", "server"]
HOSTS: tuple[Host, Host] = ("client", "server")
LINKS = (1, 2, 3)
SERVER = {4: "10.0.9.1", 6: "dead:beef:9::1"}

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count(1)


def address(host: Host, link: int, family: int = 4) -> str:
    """Return the address that a host has on a link."""
    side = HOSTS.index(host) + 1
    return f"10.0.{link}.{side}" if family == 4 else f"dead:beef:{link}::{side}"


class Lab:
    """A pair of hosts; leaving it ends their processes and removes them."""

    def __init__(self) -> None:
        if not inside():
            raise RuntimeError("the lab needs its sandbox: python -m tests.lab.sandbox COMMAND")
        number = next(_numbers)
        self.namespaces = {host: f"{host}{number}" for host in HOSTS}
        self._processes: list[subprocess.Popen[Any]] = []
        self._apps: list[App] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._set_up()
            undo.pop_all()
        return self

    def _set_up(self) -> None:
        names = self.namespaces
        _ip("".join(f"netns add {name}\n" for name in names.values()))
        for host in HOSTS:
            # The default is what devices start with; rp_filter would drop joins from other links,
            # and an interface that loses its carrier must keep its IPv6 addresses.
            self.sysctl(host, "net.ipv4.conf.all.rp_filter", 0)
            self.sysctl(host, "net.ipv4.conf.default.rp_filter", 0)
            self.sysctl(host, "net.ipv6.conf.all.keep_addr_on_down", 1)
            self.sysctl(host, "net.ipv6.conf.default.accept_dad", 0)
            # Ten thousand connections wait to be accepted, see listen(2).
            self.sysctl(host, "net.core.somaxconn", 65535)
        # Unequal indexes: with equal ones the kernel takes a link for its own lower device and
        # reports a lost carrier up to a second late.
        _ip(
            "".join(
                f"link add link{i} index {10 + i} netns {names['client']} type veth"
                f" peer name link{i} index {20 + i} netns {names['server']}\n"
                for i in LINKS
            )
        )
        for host in reversed(HOSTS):  # the client's links have a carrier when its routes come
            _ip(_furnishing(host), names[host])

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what runs on the hosts and remove them."""
        for app in self._apps:
            app.kill()
        for process in self._processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
        _ip("".join(f"netns delete {name}\n" for name in self.namespaces.values()))

    @contextlib.contextmanager
    def inside(self, host: Host) -> Iterator[None]:
        """Put this thread on a host: sockets opened and sysctls written here are the host's."""
        with Path("/proc/thread-self/ns/net").open() as home:
            with Path("/run/netns", self.namespaces[host]).open() as there:
                _setns(there.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def command(self, host: Host, argv: list[str], user: str | None = None) -> list[str]:
        """Return the command line that runs argv on a host, as a user if one is given."""
        return ["ip", "netns", "exec", self.namespaces[host], *as_user(user, argv)]

    def run(self, host: Host, argv: list[str], user: str | None = None, **options: Any) -> str:
        """Run a command on a host to its end and return what it printed; it must succeed."""
        options = {"stdout": subprocess.PIPE, "text": True, "timeout": 30} | options
        return str(subprocess.run(self.command(host, argv, user), check=True, **options).stdout)

    def popen(
        self, host: Host, argv: list[str], user: str | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """Start a command on a host; the lab ends it at the latest."""
        process = subprocess.Popen(self.command(host, argv, user), **options)
        self._processes.append(process)
        return process

    def app(self, host: Host, user: str | None = None, argv: list[str] | None = None) -> App:
        """Start an application on a host, or another program; the lab ends it at the latest."""
        app = App(self.command(host, argv or App.argv(), user))
        self._apps.append(app)
        return app

    def ip(self, host: Host, *arguments: object) -> str:
        """Return what `ip` says on a host."""
        words = ["ip", "-n", self.namespaces[host], *map(str, arguments)]
        return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout

    def batch(self, host: Host, lines: list[str]) -> None:
        """Have `ip` do many things on a host, in one process."""
        _ip("".join(f"{line}\n" for line in lines), self.namespaces[host])

    def ss(self, host: Host, *arguments: str) -> str:
        """Return what `ss` says on a host."""
        return self.run(host, ["ss", *arguments])

    def tokens(self, host: Host) -> set[int]:
        """Give the tokens of the live connections of a host, as ss(8) shows them."""
        words = self.ss(host, "-MinHO", "state", "established").split()
        return {int(word[6:], 16) for word in words if word.startswith("token:")}

    def sysctl(self, host: Host, key: str, value: object | None = None) -> str:
        """Write a sysctl of a host if a value is given, and read it."""
        path = Path("/proc/sys", *key.split("."))
        with self.inside(host):
            if value is not None:
                path.write_text(str(value))
            return path.read_text().strip()

    def counters(self, host: Host, link: int) -> tuple[int, int]:
        """Return the bytes that a host received and sent on a link."""
        with self.inside(host):  # read by name, so no cached listing of another host is in the way
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        fields = next(line for line in lines if line.strip().startswith(f"link{link}:")).split()
        return int(fields[1]), int(fields[9])

    def cut(self, link: int) -> None:
        """Take a link down at the server's end; the client loses the carrier."""
        self.ip("server", "link", "set", f"link{link}", "down")

    def drop(self, link: int) -> None:
        """Silence a link: whatever arrives at either end is lost, and the carrier stays."""
        device = f"link{link}"
        hook = f"type filter hook ingress device {device} priority 0; policy drop;"
        rules = f"table netdev silence-{device} {{\nchain arriving {{ {hook} }}\n}}\n"
        for host in HOSTS:
            self.run(host, ["nft", "-f", "-"], input=rules)

    def restore(self, link: int) -> None:
        """Undo cut and drop."""
        table = f"table netdev silence-link{link}"
        for host in HOSTS:  # named first, so that deleting is right whether it was there or not
            self.run(host, ["nft", "-f", "-"], input=f"{table}\ndelete {table}\n")
        self.ip("server", "link", "set", f"link{link}", "up")

    def bottleneck(self, link: int, rate: str, queue: str = "50ms") -> None:
        """Limit both directions of a link to a rate in the words of tc(8), such as 10mbit.

        The queue is as long as it takes the rate to empty it; what finds it full is dropped.
        """
        shape = ["root", "tbf", "rate", rate, "burst", "32k", "latency", queue]
        for host in HOSTS:
            self.run(host, ["tc", "qdisc", "replace", "dev", f"link{link}", *shape])


def _furnishing(host: Host) -> str:
    """Return the lines for `ip -batch` that give a host its addresses and routes."""
    lines = ["link set lo up"]
    for i in LINKS:
        lines += [
            f"link set link{i} up",
            f"address add {address(host, i)}/24 dev link{i}",
            f"address add {address(host, i, 6)}/64 dev link{i} nodad",
        ]
    for family, length in ((4, 32), (6, 128)):
        if host == "server":
            nodad = " nodad" if family == 6 else ""
            lines.append(f"address add {SERVER[family]}/{length} dev lo{nodad}")
            continue
        lines += [
            f"route add {SERVER[family]}/{length} via {address('server', i, family)}"
            f" dev link{i} metric {100 * i}"
            for i in LINKS
        ]
    return "\n".join(lines) + "\n"


def _ip(batch: str, namespace: str | None = None) -> None:
    where = ["-n", namespace] if namespace else []
    subprocess.run(["ip", *where, "-batch", "-"], input=batch, check=True, text=True)


def _setns(descriptor: int) -> None:
    """Move this thread to a network namespace; os.setns() came with Python 3.12."""
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))

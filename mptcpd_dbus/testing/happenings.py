"""What can happen to the host of a play: links, connections, what the peer says, time.

Each is a function of the `World`; write one of your own for what is not here.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from dataclasses import replace

from mptcpd_dbus.core import events
from mptcpd_dbus.core.network import Management
from mptcpd_dbus.core.readings import ManagementRead
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.testing.fake_kernel import JOINED, Answer
from mptcpd_dbus.testing.play import TOKEN, Happening, World


def link(name: str, *addresses: str, kind: str = "ether") -> Happening:
    """An interface comes, with its addresses."""

    def happen(world: World) -> None:
        index = world.names[name] = next(world.indices)
        world.engine.take(events.NewInterface(index, name, kind, up=True, running=True))
        for address in addresses:
            world.engine.take(events.NewLocalAddress(index, address, 64 if ":" in address else 24))

    return happen


def cut(name: str) -> Happening:
    """An interface loses its carrier; its addresses stay."""
    return _carrier(name, running=False)


def restore(name: str) -> Happening:
    """An interface has its carrier again."""
    return _carrier(name, running=True)


def _carrier(name: str, *, running: bool) -> Happening:
    def happen(world: World) -> None:
        index = world.names[name]
        kind = world.engine.state.network.interfaces[index].kind
        world.engine.take(events.UpdateInterface(index, name, kind, up=True, running=running))

    return happen


def managed(name: str, *, metered: str = "unknown", connectivity: str = "unknown") -> Happening:
    """NetworkManager, which manages the interface, says this of it."""

    def happen(world: World) -> None:
        said = Management(managed=True, metered=metered, connectivity=connectivity)
        others = world.engine.state.network.management
        world.engine.take(ManagementRead({**others, name: said}))

    return happen


def address(name: str, text: str) -> Happening:
    """An interface gets an address."""

    def happen(world: World) -> None:
        world.engine.take(
            events.NewLocalAddress(world.names[name], text, 64 if ":" in text else 24)
        )

    return happen


def no_address(name: str, text: str) -> Happening:
    """An interface loses an address."""

    def happen(world: World) -> None:
        world.engine.take(events.DeleteLocalAddress(world.names[name], text))

    return happen


def connect(
    local: str = "10.0.1.1",
    remote: str = "10.0.9.1",
    *,
    port: int = 443,
    server_side: bool = False,
    deny_join_id0: bool = False,
) -> Happening:
    """A connection becomes established; their tokens are 1, 2, 3, ... in order.

    *port* is the server's.
    """

    def happen(world: World) -> None:
        other = next(world.ports)
        ports = (port, other) if server_side else (other, port)
        world.kernel.connect(
            next(world.tokens),
            FourTuple(local, ports[0], remote, ports[1]),
            server_side=server_side,
            userspace=world.kernel.settings().path_manager == "userspace",
            deny_join_id0=deny_join_id0,
        )

    return happen


def close(token: int = TOKEN) -> Happening:
    """An application closes its connection."""
    return lambda world: world.kernel.close(token)


def joined(local: str, remote: str, *, remote_id: int = 1, token: int = TOKEN) -> Happening:
    """The peer makes a subflow."""

    def happen(world: World) -> None:
        own = world.kernel.open[token].row.four_tuple
        four_tuple = FourTuple(local, own.local_port, remote, next(world.ports))
        row = replace(JOINED, token=token, four_tuple=four_tuple, remote_id=remote_id)
        world.kernel.answer(row, Answer.ACCEPTED)

    return happen


def answers(answer: Answer, port: int = 443) -> Happening:
    """From now on the peer answers joins to that port so."""

    def happen(world: World) -> None:
        world.kernel.answers[port] = answer

    return happen


def announced(address_id: int, text: str, *, port: int = 443, token: int = TOKEN) -> Happening:
    """The peer announces an address."""

    def happen(world: World) -> None:
        world.engine.take(events.NewAddress(token, address_id, text, port))

    return happen


def withdrawn(address_id: int, *, token: int = TOKEN) -> Happening:
    """The peer withdraws an address."""

    def happen(world: World) -> None:
        world.engine.take(events.AddressRemoved(token, address_id))

    return happen


def subflow_lost(local: str, *, error: int = 110, token: int = TOKEN) -> Happening:
    """The first subflow from an address ends with *error*."""

    def happen(world: World) -> None:
        found = next(t for t in world.kernel.open[token].subflows if t.local_address == local)
        world.kernel.end_subflow(token, found, error)

    return happen


def reload() -> Happening:
    """The configuration is read again, and the policy's section has not changed."""
    return lambda world: world.host.follow(world.settings)


def wait(seconds: float) -> Happening:
    """Time passes."""
    return lambda _: asyncio.sleep(seconds)

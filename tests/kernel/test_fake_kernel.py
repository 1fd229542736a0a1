"""The fake kernel answers as this machine's does: same errno, same words, same tables after it."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Iterator
from typing import Any

import pytest

from mptcpd_dbus.core import commands
from mptcpd_dbus.core.errors import InvalidArgument, KernelRefused
from mptcpd_dbus.core.types import AddressEntry, AddressFlag, FourTuple
from mptcpd_dbus.kernel.live import LiveKernel
from mptcpd_dbus.kernel_protocol import Kernel
from mptcpd_dbus.testing import Answer, FakeKernel
from tests.kernel.host import Host
from tests.lab.wait import eventually

CLOSED_PORT, NO_ROUTE_PORT = 5999, 5998
SIGNAL, SUBFLOW, BACKUP, FULLMESH = (
    AddressFlag.SIGNAL,
    AddressFlag.SUBFLOW,
    AddressFlag.BACKUP,
    AddressFlag.FULLMESH,
)


def _on_a_connection(token: int, t: FourTuple) -> Iterator[commands.Command]:
    def local(address: str = "127.0.0.9", **more: Any) -> AddressEntry:
        return AddressEntry(address, **more)

    def remote(port: int = t.remote_port, address: str = "127.0.0.1") -> AddressEntry:
        return AddressEntry(address, port=port)

    yield commands.Announce(token + 1, local(id=1, flags=SIGNAL))
    yield commands.Announce(token, local(flags=SIGNAL))
    yield commands.Announce(token, local(id=3))
    yield commands.Announce(token, local(id=3, flags=SIGNAL))
    yield commands.Announce(token, local(id=4, flags=SIGNAL))
    yield commands.Announce(token, local("127.0.0.8", id=3, flags=SIGNAL))
    yield commands.Announce(token, local(id=3, flags=SIGNAL))
    yield commands.SubflowCreate(token, local(id=3, flags=SIGNAL), remote())
    yield commands.SubflowCreate(token, local(id=3), remote(address="::1"))
    yield commands.SubflowCreate(token, local(id=4), remote())
    yield commands.SubflowCreate(token, local(id=3), remote(CLOSED_PORT))
    yield commands.SubflowCreate(token, local(id=5, port=6000), remote(NO_ROUTE_PORT, "192.0.2.1"))
    yield commands.Remove(token, 3)
    yield commands.Remove(token, 99)
    here = AddressEntry(t.local_address, port=t.local_port)
    yield commands.SubflowDestroy(token, AddressEntry(t.local_address), remote())
    yield commands.SubflowDestroy(token, here, AddressEntry(t.remote_address))
    yield commands.SubflowDestroy(token, local(t.local_address, port=9), remote())
    flagged = AddressEntry(t.local_address, port=t.local_port, flags=BACKUP)
    yield commands.SetFlags(flagged, token, remote())
    yield commands.SetFlags(local("127.0.0.3", flags=BACKUP), token, remote())
    yield commands.SetFlags(flagged, token + 1, remote())


def _on_endpoints() -> Iterator[commands.Command]:
    def add(address: str, **more: Any) -> commands.AddAddr:
        return commands.AddAddr(AddressEntry(address, **more))

    yield add("10.9.0.1", flags=SUBFLOW)
    yield add("10.9.0.1", id=7, flags=SUBFLOW)
    yield add("10.9.0.2", id=1, flags=SUBFLOW)
    yield add("10.9.0.3", port=80, flags=SUBFLOW)
    yield add("10.9.0.3", flags=SIGNAL | FULLMESH)
    yield add("10.9.0.3", flags=AddressFlag.IMPLICIT)
    yield add("10.9.0.4", flags=SIGNAL)
    for address, flags in (("1", BACKUP), ("7", BACKUP), ("4", SIGNAL | FULLMESH)):
        yield commands.SetFlags(AddressEntry(f"10.9.0.{address}", flags=flags))
    for number in range(7):  # the last one is the ninth
        yield add(f"10.9.1.{number}", flags=SUBFLOW)
    yield commands.DelAddr(99)
    yield commands.DelAddr(1)
    yield commands.SetLimits(9, None)
    yield commands.SetLimits(None, 9)
    yield commands.SetLimits(5, None)
    yield commands.FlushAddrs()


async def _outcome(kernel: Kernel, command: commands.Command) -> tuple[int, str]:
    try:
        await kernel.execute(command)
    except KernelRefused as refused:
        return refused.errno, refused.text
    return 0, ""


def _tables(kernel: Kernel, token: int) -> tuple[Any, ...]:
    known = kernel.local_addresses(token)
    assert known is not None
    assert known.entries is not None
    entries = (known.entries, kernel.endpoints().endpoints)
    return (*(sorted((e.id, e.address, e.port, e.flags) for e in table) for table in entries),)


@pytest.mark.real_kernel
async def test_every_command_is_answered_as_the_real_kernel_answers(host: Host) -> None:
    """With its errno and its words, and with the same tables and limits after it."""
    host.use_path_manager("userspace")
    talk = host.talk(host.listen("0.0.0.0"))  # noqa: S104  this host is the test's own
    t = FourTuple(*talk.four_tuple)
    real = LiveKernel()
    try:
        rows = [row for found in real.connections() for row in found if row.four_tuple == t]
        token = rows[0].token
        fake = FakeKernel()
        fake.connect(token, t)
        fake.answers = {CLOSED_PORT: Answer.REFUSED, NO_ROUTE_PORT: Answer.NO_ROUTE}

        for command in (*_on_a_connection(token, t), *_on_endpoints()):
            said = await _outcome(real, command)
            assert (command, await _outcome(fake, command)) == (command, said)

            def same(command: commands.Command = command) -> bool:
                tables = _tables(fake, token), _tables(real, token)
                assert tables[0] == tables[1], command
                return True

            await eventually(same)
            assert fake.limits() == real.limits()
    finally:
        real.close()


@pytest.mark.real_kernel
async def test_listeners_are_opened_and_released_as_on_the_real_kernel(host: Host) -> None:
    place = ("127.0.0.1", 6000)
    real, fake = LiveKernel(), FakeKernel()
    host.listen(*place)
    fake.app_listeners.add(place)
    said = []
    try:
        for kernel in (real, fake):
            outcomes: list[Any] = []
            for address in ("127.0.0.1", "127.0.0.9"):
                try:
                    outcomes.append(kernel.open_listener("a", address, 6000))
                except KernelRefused as refused:
                    outcomes.append((refused.errno, refused.text))
            outcomes.append(kernel.open_listener("a", *place, frozenset({place[0]})))
            chosen = [kernel.open_listener(user, "127.0.0.9", 0) for user in "ab"]
            outcomes.append(len({*chosen, 0}))
            for user, port in (("a", 6000), ("a", 6000), ("b", chosen[0]), ("a", 0)):
                try:
                    outcomes.append(kernel.release_listener(user, "127.0.0.9", port))
                except InvalidArgument as invalid:
                    outcomes.append(str(invalid).replace(str(chosen[0]), "CHOSEN"))
            kernel.close_listener("b")
            left = {(row.address, row.port) for row in kernel.listeners()} - {place}
            outcomes.append(left == {("127.0.0.9", chosen[0])})
            said.append(outcomes)
    finally:
        real.close()

    assert said[0] == said[1]

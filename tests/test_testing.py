"""The kernel in memory answers as a real one did: each answer was recorded on Linux 6.18."""
# SPDX-License-Identifier: BSD-3-Clause

import errno

import pytest

from mptcpd_dbus.core import commands as c
from mptcpd_dbus.core.errors import KernelRefused
from mptcpd_dbus.core.types import AddressEntry as Entry
from mptcpd_dbus.core.types import AddressFlag
from mptcpd_dbus.testing import Answer, FakeKernel
from tests.world import FIRST, TOKEN

SIGNAL, BACKUP = AddressFlag.SIGNAL, AddressFlag.BACKUP
LOCAL, LOCAL_PORT, REMOTE, REMOTE_PORT = FIRST
NEARBY, NO_ROUTE = "10.0.2.1", 5998
THERE = Entry(REMOTE, port=REMOTE_PORT)
HERE = Entry(LOCAL, port=LOCAL_PORT)


def _second(address_id: int = 0, port: int = 0, flags: int = 0) -> Entry:
    return Entry(NEARBY, address_id, port, flags)


REFUSED = [
    (c.GetAddr(1), "invalid token"),
    (c.Announce(1, _second(1, flags=SIGNAL)), "invalid token"),
    (c.Announce(TOKEN, _second(flags=SIGNAL)), "invalid addr id"),
    (c.Announce(TOKEN, _second(3)), "invalid addr flags"),
    (c.Announce(TOKEN, _second(4, flags=SIGNAL)), "did not match address and id"),
    (c.Announce(TOKEN, Entry("10.0.3.1", 3, flags=SIGNAL)), "did not match address and id"),
    (c.SubflowCreate(TOKEN, _second(3, flags=SIGNAL), THERE), "invalid addr flags"),
    (c.SubflowCreate(TOKEN, _second(3), Entry("::1", port=80)), "families mismatch"),
    (c.SubflowCreate(TOKEN, _second(4), THERE), "did not match address and id"),
    (c.Remove(TOKEN, 99), "address with id 99 not found"),
    (c.SubflowDestroy(TOKEN, Entry(LOCAL), THERE), "missing local port"),
    (c.SubflowDestroy(TOKEN, HERE, Entry(REMOTE)), "missing remote port"),
    (c.SetFlags(_second(flags=BACKUP), TOKEN, THERE), "subflow not found"),
    (c.SetFlags(_second(flags=BACKUP)), "address not found"),
    (c.DelAddr(99), "address not found"),
    (c.SetLimits(9, None), "limit greater than maximum (8)"),
    (c.SetLimits(None, 9), "limit greater than maximum (8)"),
]
ACCEPTED = [
    c.GetAddr(TOKEN),
    c.GetAddr(),
    c.GetLimits(),
    c.DelAddr(0),
    c.Announce(TOKEN, _second(3, flags=SIGNAL)),
    c.SetFlags(Entry(LOCAL, flags=BACKUP), TOKEN, THERE),
    c.Remove(TOKEN, 0),
]


@pytest.fixture(name="kernel")
async def _kernel() -> FakeKernel:
    """Give a kernel with a connection that has announced the second address under ID 3."""
    kernel = FakeKernel()
    kernel.connect(TOKEN, FIRST)
    kernel.answers[NO_ROUTE] = Answer.NO_ROUTE
    await kernel.execute(c.Announce(TOKEN, _second(3, flags=SIGNAL)))
    return kernel


@pytest.mark.parametrize(("command", "text"), REFUSED, ids=str)
async def test_a_command_is_refused_in_the_kernels_words(
    kernel: FakeKernel, command: c.Command, text: str
) -> None:
    with pytest.raises(KernelRefused) as caught:
        await kernel.execute(command)

    assert (caught.value.errno, caught.value.text) == (errno.EINVAL, text)
    assert list(kernel.open[TOKEN].ids) == [3]


@pytest.mark.parametrize("command", ACCEPTED, ids=str)
async def test_a_command_that_seems_odd_is_accepted_as_the_kernel_does(
    kernel: FakeKernel, command: c.Command
) -> None:
    await kernel.execute(command)

    assert list(kernel.open[TOKEN].ids) == [3]


@pytest.mark.parametrize("mapped", [False, True])
async def test_a_subflow_is_destroyed_in_the_family_of_its_socket_only(
    kernel: FakeKernel, mapped: bool
) -> None:
    command = c.SubflowDestroy(
        TOKEN,
        Entry(LOCAL, port=LOCAL_PORT, mapped=mapped),
        Entry(REMOTE, port=REMOTE_PORT, mapped=mapped),
    )

    if mapped:
        with pytest.raises(KernelRefused, match=r"ESRCH \(subflow not found\)"):
            await kernel.execute(command)
    else:
        await kernel.execute(command)
    assert bool(kernel.open[TOKEN].subflows) is mapped


async def test_a_join_that_cannot_be_sent_deletes_the_first_entry_of_its_address(
    kernel: FakeKernel,
) -> None:
    command = c.SubflowCreate(TOKEN, _second(5, 6000), Entry("10.0.8.1", port=NO_ROUTE))

    with pytest.raises(KernelRefused, match=r"ENETUNREACH \(connect error: -101\)"):
        await kernel.execute(command)

    assert list(kernel.open[TOKEN].ids) == [5]


async def test_an_endpoint_without_an_id_gets_the_one_after_the_highest(
    kernel: FakeKernel,
) -> None:
    for entry in (Entry("10.0.5.1", 7), Entry("10.0.6.1")):
        await kernel.execute(c.AddAddr(entry))

    assert [entry.id for entry in kernel.endpoints().endpoints] == [7, 8]

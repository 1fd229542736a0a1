"""Proves on the real kernel that commands do what they say, and refusals come with their words."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import errno
from collections.abc import Iterator

import pytest

from mptcpd_dbus.core import commands as c
from mptcpd_dbus.core.errors import KernelRefused
from mptcpd_dbus.core.events import NewConnection
from mptcpd_dbus.core.readings import LimitsRead, LocalAddressesRead
from mptcpd_dbus.core.types import AddressEntry, AddressFlag
from mptcpd_dbus.kernel.event_socket import EventSocket
from mptcpd_dbus.kernel.request_socket import RequestSocket
from tests.kernel.host import Host

pytestmark = pytest.mark.real_kernel
LOCAL = AddressEntry("127.0.0.9", 9, flags=AddressFlag.SIGNAL)
REMOTE = AddressEntry("127.0.0.1", port=7)
NO_TOKEN = 0


@pytest.fixture
def requests(host: Host) -> Iterator[RequestSocket]:
    """Send commands."""
    del host  # it must only be there first
    sock = RequestSocket()
    yield sock
    sock.close()


def connect(host: Host, path_manager: str) -> NewConnection:
    """Make a connection under a path manager; return the client's end."""
    host.use_path_manager(path_manager)
    events = EventSocket()
    host.talk(host.listen())
    heard, _, _ = events.drain()
    events.close()
    return next(e for e in heard if isinstance(e, NewConnection) and not e.server_side)


@pytest.mark.parametrize(
    ("command", "name", "number", "text"),
    [
        (c.AddAddr(AddressEntry("")), "ADD_ADDR", errno.EINVAL, "missing family"),
        (c.DelAddr(99), "DEL_ADDR", errno.EINVAL, "address not found"),
        (c.GetAddr(NO_TOKEN), "GET_ADDR", errno.EINVAL, "invalid token"),
        (c.SetLimits(9), "SET_LIMITS", errno.EINVAL, "limit greater than maximum (8)"),
        (
            c.SetFlags(LOCAL, NO_TOKEN),
            "SET_FLAGS",
            errno.EINVAL,
            "missing attribute ADDR_REMOTE",
        ),
        (c.Announce(NO_TOKEN, LOCAL), "ANNOUNCE", errno.EINVAL, "invalid token"),
        (c.Remove(NO_TOKEN, 9), "REMOVE", errno.EINVAL, "invalid token"),
        (
            c.SubflowCreate(NO_TOKEN, LOCAL, REMOTE),
            "SUBFLOW_CREATE",
            errno.EINVAL,
            "invalid token",
        ),
        (
            c.SubflowDestroy(NO_TOKEN, LOCAL, REMOTE),
            "SUBFLOW_DESTROY",
            errno.EINVAL,
            "invalid token",
        ),
    ],
)
async def test_a_refusal_has_the_kernels_words(
    requests: RequestSocket, command: c.Command, name: str, number: int, text: str
) -> None:
    with pytest.raises(KernelRefused) as refused:
        await requests.execute(command)

    assert (refused.value.command, refused.value.errno, refused.value.text) == (name, number, text)


async def test_endpoints_are_added_changed_and_deleted(requests: RequestSocket) -> None:
    wanted = AddressEntry("127.0.0.5", 5, flags=AddressFlag.SUBFLOW, interface_index=1)
    other = AddressEntry("fd00::5", 6, 6000, AddressFlag.SIGNAL)

    await requests.execute(c.AddAddr(wanted))
    added = await requests.execute(c.GetAddr())
    await requests.execute(c.SetFlags(AddressEntry("", 5, flags=AddressFlag.BACKUP)))
    changed = requests.read_now(c.GetAddr())
    with pytest.raises(KernelRefused, match="create listen socket error"):
        await requests.execute(c.AddAddr(other))
    await requests.execute(c.DelAddr(5))

    assert added == (wanted,)
    assert isinstance(changed, tuple)
    assert [AddressFlag(e.flags) for e in changed] == [AddressFlag.SUBFLOW | AddressFlag.BACKUP]
    assert requests.read_now(c.GetAddr()) == ()


async def test_limits_are_set_one_by_one_and_outlive_a_flush(requests: RequestSocket) -> None:
    await requests.execute(c.SetLimits(subflows=5))
    await requests.execute(c.SetLimits(add_addr_accepted=3))
    await requests.execute(c.AddAddr(AddressEntry("127.0.0.5")))
    await requests.execute(c.FlushAddrs())

    assert await requests.execute(c.GetLimits()) == LimitsRead(5, 3)
    assert requests.read_now(c.GetLimits()) == LimitsRead(5, 3)
    assert requests.read_now(c.GetAddr()) == ()


async def test_commands_keep_their_order(requests: RequestSocket) -> None:
    addresses = [f"127.0.0.{n}" for n in (7, 3, 5, 2, 8)]

    await asyncio.gather(
        *(requests.execute(c.AddAddr(AddressEntry(address))) for address in addresses),
        requests.execute(c.DelAddr(1)),
    )

    entries = requests.read_now(c.GetAddr())
    assert isinstance(entries, tuple)
    assert [(e.id, e.address) for e in entries] == list(enumerate(addresses, 1))[1:]


async def test_a_command_on_a_connection_never_suspends_its_caller(
    host: Host, requests: RequestSocket
) -> None:
    """Not even behind one on endpoints, which does."""
    token = connect(host, "userspace").token
    slow = requests.execute(c.AddAddr(AddressEntry("127.0.0.5")))
    slow.send(None)

    with pytest.raises(StopIteration):
        requests.execute(c.Announce(token, LOCAL)).send(None)

    assert requests.local_addresses(token) == LocalAddressesRead(token, (LOCAL,))
    slow.close()


async def test_a_userspace_connection_shows_its_table(host: Host, requests: RequestSocket) -> None:
    token = connect(host, "userspace").token

    before = requests.local_addresses(token)
    await requests.execute(c.Announce(token, LOCAL))
    announced = requests.local_addresses(token)
    await requests.execute(c.Remove(token, LOCAL.id))

    assert before == LocalAddressesRead(token, ())
    assert announced == LocalAddressesRead(token, (LOCAL,))
    assert requests.local_addresses(token) == before


def test_a_kernel_connection_shows_none(host: Host, requests: RequestSocket) -> None:
    token = connect(host, "kernel").token

    assert requests.local_addresses(token) == LocalAddressesRead(token, None)


def test_a_connection_that_is_not_there_is_none(requests: RequestSocket) -> None:
    assert requests.local_addresses(NO_TOKEN) is None


def test_kernels_without_the_table_still_tell_who_manages(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, kernel = connect(host, "userspace").token, connect(host, "kernel").token
    monkeypatch.setattr(RequestSocket, "_has_tables", lambda _: False)
    requests = RequestSocket()

    assert requests.local_addresses(user) == LocalAddressesRead(user, (), table=False)
    assert requests.local_addresses(kernel) == LocalAddressesRead(kernel, None)
    assert requests.local_addresses(NO_TOKEN) is None
    requests.close()

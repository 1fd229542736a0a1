"""Proves on the real kernel that joins find the listeners, and strangers are turned away."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import errno
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mptcpd_dbus.core import commands as c
from mptcpd_dbus.core.errors import InvalidArgument, KernelRefused, LimitReached
from mptcpd_dbus.core.events import NewConnection, SubflowClosed
from mptcpd_dbus.core.types import AddressEntry, AddressFlag
from mptcpd_dbus.kernel import listeners as listeners_module
from mptcpd_dbus.kernel.event_socket import EventSocket
from mptcpd_dbus.kernel.listeners import Listeners
from mptcpd_dbus.kernel.request_socket import RequestSocket
from mptcpd_dbus.kernel.sock_diag import SockDiag
from tests.kernel.host import IPPROTO_MPTCP, Host
from tests.lab.wait import eventually

pytestmark = pytest.mark.real_kernel
ALICE, BOB = (1, 1), (2, 1)
PORT = 6000


@pytest.fixture
async def listeners(host: Host) -> AsyncIterator[Listeners]:
    """Listen for announced addresses."""
    del host  # it must only be there first
    made = Listeners()
    yield made
    made.close_all()


def listening() -> set[tuple[str, int]]:
    """Return where anybody listens."""
    diag = SockDiag()
    found = {(row.address, row.port) for rows in diag.listeners() for row in rows}
    diag.close()
    return found


async def test_a_listener_lives_as_long_as_it_has_a_user(listeners: Listeners) -> None:
    listeners.open(ALICE, "127.0.0.9", PORT)
    listeners.open(BOB, "127.0.0.9", PORT)
    listeners.open(BOB, "::1", PORT)

    assert listening() == {("127.0.0.9", PORT), ("::1", PORT)}
    listeners.close(ALICE)
    assert listening() == {("127.0.0.9", PORT), ("::1", PORT)}
    listeners.close(BOB)
    assert listening() == set()
    listeners.close(BOB)


async def test_what_one_user_opens_twice_counts_twice_for_him_alone(listeners: Listeners) -> None:
    place = ("127.0.0.9", PORT)
    for user in (ALICE, ALICE, BOB):
        assert listeners.open(user, *place) == PORT

    listeners.release(ALICE, *place)
    listeners.release(BOB, *place)
    assert listening() == {place}
    with pytest.raises(InvalidArgument, match=r"127\.0\.0\.9 port 6000 is not listened on"):
        listeners.release(BOB, *place)
    assert listening() == {place}
    listeners.release(ALICE, *place)

    assert listening() == set()
    for address, port in (place, ("127.0.0.9", 0)):
        with pytest.raises(InvalidArgument):
            listeners.release(ALICE, address, port)


async def test_a_user_is_closed_with_all_that_he_opened_and_without_what_others_did(
    listeners: Listeners,
) -> None:
    for user, address in ((ALICE, "127.0.0.9"), (ALICE, "127.0.0.9"), (ALICE, "::1")):
        listeners.open(user, address, PORT)
    listeners.open(BOB, "::1", PORT)

    listeners.close(ALICE)

    assert listening() == {("::1", PORT)}
    listeners.release(BOB, "::1", PORT)
    assert listening() == set()
    assert not any(vars(listeners).values())


@pytest.mark.parametrize("address", ["127.0.0.9", "::1"])
async def test_port_0_is_another_port_each_time(listeners: Listeners, address: str) -> None:
    ports = {listeners.open(ALICE, address, 0) for _ in range(3)}

    assert len(ports) == 3
    assert 0 not in ports
    assert listening() == {(address, port) for port in ports}
    for port in ports:
        listeners.release(ALICE, address, port)
    assert listening() == set()


async def test_own_listeners_are_known_by_their_inodes(host: Host, listeners: Listeners) -> None:
    listeners.open(ALICE, "127.0.0.9", PORT)
    other = host.listen()

    diag = SockDiag()
    rows = {row.inode: row.address for rows in diag.listeners() for row in rows}
    diag.close()

    assert [rows[inode] for inode in listeners.inodes()] == ["127.0.0.9"]
    assert set(rows.values()) == {"127.0.0.9", other.getsockname()[0]}


@pytest.mark.parametrize(("listener", "port"), [(True, PORT), (True, 0), (False, PORT)])
async def test_a_join_to_an_announced_port_needs_the_listener(
    host: Host, listeners: Listeners, listener: bool, port: int
) -> None:
    host.use_path_manager("userspace")
    events, requests, diag = EventSocket(), RequestSocket(), SockDiag()
    host.talk(host.listen())
    ends = {e.server_side: e for e in events.drain()[0] if isinstance(e, NewConnection)}
    source = AddressEntry("127.0.0.8", 8)

    if listener:
        port = listeners.open(ALICE, "127.0.0.9", port)
    announced = AddressEntry("127.0.0.9", 9, port, AddressFlag.SIGNAL)
    await requests.execute(c.Announce(ends[True].token, announced))
    await requests.execute(
        c.SubflowCreate(ends[False].token, source, AddressEntry("127.0.0.9", port=port))
    )

    def outcome() -> bool | int:
        for rows in diag.subflows():
            if any(row.fully_established and row.local_id == 8 for row in rows):
                return True
        return next((e.error for e in events.drain()[0] if isinstance(e, SubflowClosed)), 0)

    expected = True if listener else errno.ECONNREFUSED
    assert await eventually(outcome) == expected
    for sock in (events, requests, diag):
        sock.close()


@pytest.mark.parametrize("protocol", [IPPROTO_MPTCP, socket.IPPROTO_TCP])
async def test_strangers_are_turned_away_however_many(
    host: Host, listeners: Listeners, protocol: int
) -> None:
    listeners.open(ALICE, "127.0.0.9", PORT)
    loop = asyncio.get_running_loop()

    async def visit() -> bytes:
        sock = host.make_socket(protocol=protocol)
        sock.connect(("127.0.0.9", PORT))
        sock.setblocking(False)
        return await loop.sock_recv(sock, 1)

    async with asyncio.timeout(10):
        answers = await asyncio.gather(*(visit() for _ in range(300)))

    assert answers == [b""] * 300


@pytest.mark.parametrize(
    ("address", "number", "text"),
    [
        ("127.0.0.1", errno.EADDRINUSE, "127.0.0.1 port 6000: another socket listens there"),
        (
            "192.0.2.1",
            errno.EADDRNOTAVAIL,
            "192.0.2.1 port 6000: this host does not have the address",
        ),
    ],
)
async def test_why_listening_failed_is_said_in_words(
    host: Host, listeners: Listeners, address: str, number: int, text: str
) -> None:
    host.listen(port=PORT)

    with pytest.raises(KernelRefused) as refused:
        listeners.open(ALICE, address, PORT)

    assert (refused.value.errno, refused.value.text) == (number, text)
    listeners.open(ALICE, "127.0.0.9", PORT)


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("capable", [True, False])
def test_a_low_port_needs_a_capability_and_the_error_names_it(capable: bool) -> None:
    code = (
        "import asyncio\n"
        "from mptcpd_dbus.kernel.listeners import Listeners\n"
        "async def main(): Listeners().open(1, '127.0.0.1', 443)\n"
        "asyncio.run(main())"
    )
    command = [] if capable else ["setpriv", "--bounding-set=-net_bind_service"]

    done = subprocess.run([*command, sys.executable, "-c", code], capture_output=True, text=True)  # noqa: PLW1510 - a failure is expected

    assert (done.returncode == 0) is capable
    assert ("127.0.0.1 port 443: a port below 1024 needs CAP_NET_BIND_SERVICE" in done.stderr) is (
        not capable
    )


async def test_the_wildcards_of_both_families_share_a_port(listeners: Listeners) -> None:
    listeners.open(ALICE, "::", PORT)
    listeners.open(ALICE, "0.0.0.0", PORT)  # noqa: S104 - a namespace of its own

    assert listening() == {("::", PORT), ("0.0.0.0", PORT)}  # noqa: S104 - likewise


@pytest.mark.parametrize(("address", "port"), [("lo", 1), ("127.0.0.1", -1), ("::1", 65536)])
async def test_what_is_no_place_to_listen_is_an_invalid_argument(
    listeners: Listeners, address: str, port: int
) -> None:
    with pytest.raises(InvalidArgument):
        listeners.open(ALICE, address, port)


@pytest.mark.parametrize("exhausted", [errno.EMFILE, errno.ENOMEM])
async def test_a_stranger_who_cannot_be_accepted_now_is_turned_away_after_a_rest(
    host: Host, listeners: Listeners, monkeypatch: pytest.MonkeyPatch, exhausted: int
) -> None:
    loop = asyncio.get_running_loop()
    accept = socket.socket.accept
    tries: list[float] = []

    def failing_at_first(sock: socket.socket) -> tuple[socket.socket, Any]:
        tries.append(loop.time())
        if len(tries) <= 3:
            raise OSError(exhausted, "none left")
        return accept(sock)

    monkeypatch.setattr(listeners_module, "_REST", 0.05)
    monkeypatch.setattr(socket.socket, "accept", failing_at_first)
    listeners.open(ALICE, "127.0.0.9", PORT)
    stranger = host.make_socket()
    stranger.connect(("127.0.0.9", PORT))
    stranger.setblocking(False)

    async with asyncio.timeout(10):
        assert await loop.sock_recv(stranger, 1) == b""

    assert tries[3] - tries[0] >= 3 * 0.045


async def test_listeners_are_bounded_and_their_users_are_not(
    listeners: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners_module, "LISTENERS", 1)
    listeners.open(ALICE, "127.0.0.9", PORT)
    listeners.open(BOB, "127.0.0.9", PORT)

    with pytest.raises(LimitReached, match="1 listeners are open"):
        listeners.open(BOB, "127.0.0.8", PORT)

    assert listening() == {("127.0.0.9", PORT)}

"""Proves on the real kernel that what is there is found, and what is not there is not."""
# SPDX-License-Identifier: BSD-3-Clause

import os
import socket
from collections.abc import Iterator

import pytest

from mptcpd_dbus.core import commands as c
from mptcpd_dbus.core.errors import DecodeError, InvalidArgument
from mptcpd_dbus.core.events import NewConnection, NewSubflow
from mptcpd_dbus.core.readings import ConnectionRead
from mptcpd_dbus.core.types import AddressEntry, FourTuple
from mptcpd_dbus.kernel import sock_diag
from mptcpd_dbus.kernel.diag_rows import decode_connection
from mptcpd_dbus.kernel.event_socket import EventSocket
from mptcpd_dbus.kernel.request_socket import RequestSocket
from mptcpd_dbus.kernel.sock_diag import SockDiag
from tests.kernel.host import Host
from tests.lab.wait import eventually

pytestmark = pytest.mark.real_kernel
ESTABLISHED, SYN_SENT = 1, 2
LOOPBACK = 1  # its interface index, in every namespace


@pytest.fixture
def diag(host: Host) -> Iterator[SockDiag]:
    """Ask what is there."""
    del host  # it must only be there first
    asking = SockDiag()
    yield asking
    asking.close()


@pytest.fixture
def events(host: Host) -> Iterator[EventSocket]:
    """Hear the tokens; peers also accept joins only where somebody listens."""
    host.use_path_manager("userspace")
    sock = EventSocket()
    yield sock
    sock.close()


@pytest.fixture
def requests(host: Host) -> Iterator[RequestSocket]:
    """Make subflows."""
    del host  # it must only be there first
    sock = RequestSocket()
    yield sock
    sock.close()


def ends(events: EventSocket) -> tuple[NewConnection, NewConnection]:
    """Return the client's and the server's end of the connection just made."""
    heard, _, _ = events.drain()
    by_side = {e.server_side: e for e in heard if isinstance(e, NewConnection)}
    return by_side[False], by_side[True]


@pytest.mark.parametrize(
    ("bound", "target"), [("127.0.0.1",) * 2, ("::1",) * 2, ("::", "127.0.0.1")]
)
def test_a_connection_is_found_by_its_token_and_its_subflow_by_its_addresses(
    host: Host, diag: SockDiag, events: EventSocket, bound: str, target: str
) -> None:
    talk = host.talk(host.listen(bound), target)

    for end in ends(events):
        connection = diag.connection(end.token)
        subflow = diag.subflow(end.four_tuple, mapped=end.mapped)

        assert connection is not None
        assert connection.four_tuple == end.four_tuple
        assert connection.mapped == end.mapped
        assert (connection.state, connection.uid, connection.fallback) == (ESTABLISHED, 0, False)
        sockets = {False: talk.client, True: talk.server}
        assert connection.inode == inode(sockets[end.server_side])
        assert subflow is not None
        assert (subflow.token, subflow.four_tuple) == (end.token, end.four_tuple)
        assert subflow.mapped == end.mapped
        assert subflow.initial
        assert subflow.fully_established
        assert subflow.opened_here is not end.server_side


def inode(sock: socket.socket) -> int:
    """Return the number by which the system names a socket."""
    return os.fstat(sock.fileno()).st_ino


def test_what_is_not_there_is_none(host: Host, diag: SockDiag, events: EventSocket) -> None:
    host.talk(host.listen())
    _, server = ends(events)
    # The listener would take it, and the kernel answers with the listener.
    absent = server.four_tuple._replace(remote_port=1)

    assert diag.connection(server.token ^ 1) is None
    assert diag.statistics(server.token ^ 1) is None
    assert diag.subflow(absent) is None
    assert diag.subflow_statistics(absent) is None
    assert diag.subflow(server.four_tuple) is not None


async def test_a_closed_connection_loses_its_inode_and_then_is_gone(
    host: Host, diag: SockDiag, events: EventSocket
) -> None:
    talk = host.talk(host.listen())
    tokens = [end.token for end in ends(events)]
    held = [diag.connection(token) for token in tokens]

    talk.server.close()
    talk.client.close()

    assert all(row is not None and row.inode for row in held)
    rows = [row for rows in diag.connections() for row in rows if row.token in tokens]
    assert all(row.inode == 0 for row in rows)
    await eventually(lambda: None in [diag.connection(token) for token in tokens])


def test_plain_tcp_is_no_subflow_and_no_listener(host: Host, diag: SockDiag) -> None:
    listener = host.listen(protocol=socket.IPPROTO_TCP)
    talk = host.talk(listener, protocol=socket.IPPROTO_TCP)

    assert diag.subflow(FourTuple(*talk.four_tuple)) is None
    assert [row for rows in diag.subflows() for row in rows] == []
    assert [row for rows in diag.connections() for row in rows] == []
    assert [row for rows in diag.listeners() for row in rows] == []


def test_an_address_that_is_none_is_an_invalid_argument(diag: SockDiag) -> None:
    for nonsense in (FourTuple("lo", 1, "127.0.0.1", 2), FourTuple("::1", 65536, "::1", 2)):
        with pytest.raises(InvalidArgument):
            diag.subflow(nonsense)


def test_dumps_are_whole_and_let_look_ups_come_in_between(
    host: Host, diag: SockDiag, events: EventSocket
) -> None:
    listener, listener6 = host.listen(), host.listen("::1")
    for _ in range(150):
        host.talk(listener)
        host.talk(listener6, "::1")
    heard, _, _ = events.drain(10_000)
    new = {e.token: e for e in heard if isinstance(e, NewConnection)}

    connections, subflows, slices = {}, {}, 0
    for rows in diag.connections():
        slices += 1
        for row in rows:
            connections[row.token] = row.four_tuple
            assert diag.connection(row.token) == row
    for some in diag.subflows():
        slices += 1
        for subflow in some:
            subflows[subflow.token] = subflow.four_tuple
            assert diag.subflow(subflow.four_tuple) == subflow

    assert len(new) == 600
    assert connections == subflows == {token: e.four_tuple for token, e in new.items()}
    assert slices > 10


def test_an_abandoned_dump_disturbs_nothing(
    host: Host, diag: SockDiag, events: EventSocket
) -> None:
    listener = host.listen()
    for _ in range(100):
        host.talk(listener)
    dump = diag.connections()

    first = next(dump)
    dump.close()

    assert 0 < len(first) < 200
    assert sum(len(rows) for rows in diag.connections()) == 200
    assert diag.connection(ends(events)[0].token)


def test_listeners_are_found_on_all_sorts_of_addresses(host: Host, diag: SockDiag) -> None:
    expected = {
        (address, host.listen(address).getsockname()[1])
        for address in ("127.0.0.1", "::1", "0.0.0.0", "::")  # noqa: S104 - a namespace of its own
    }

    assert {(r.address, r.port) for rows in diag.listeners() for r in rows} == expected


def test_counters_grow_with_what_is_sent(host: Host, diag: SockDiag, events: EventSocket) -> None:
    talk = host.talk(host.listen())
    client, _ = ends(events)

    def sent() -> tuple[int, int]:
        connection = diag.statistics(client.token)
        subflow = diag.subflow_statistics(client.four_tuple)
        assert connection is not None
        assert subflow is not None
        return connection["bytes_sent"], subflow["bytes_sent"]

    before = sent()
    talk.client.sendall(bytes(1000))
    talk.server.recv(1000, socket.MSG_WAITALL)

    assert sent() == (before[0] + 1000, before[1] + 1000)


async def test_a_joined_subflow_is_found_by_the_device_it_is_bound_to(
    host: Host, diag: SockDiag, events: EventSocket, requests: RequestSocket
) -> None:
    host.talk(host.listen())
    client, server = ends(events)
    target = AddressEntry(client.four_tuple.remote_address, port=client.four_tuple.remote_port)

    bound = AddressEntry("127.0.0.8", 8, interface_index=LOOPBACK)
    await requests.execute(c.SubflowCreate(client.token, bound, target))

    heard, _, _ = events.drain()
    ours, theirs = sorted(
        (e for e in heard if isinstance(e, NewSubflow)), key=lambda e: e.token != client.token
    )
    found = diag.subflow(ours.four_tuple, interface_index=ours.interface_index)
    assert ours.interface_index == LOOPBACK
    assert found is not None
    assert (found.local_id, found.interface_index, found.initial) == (8, LOOPBACK, False)
    assert found.opened_here
    assert diag.subflow(ours.four_tuple) is None
    accepted = diag.subflow(theirs.four_tuple)
    assert accepted is not None
    assert (accepted.token, accepted.remote_id, accepted.opened_here) == (server.token, 8, False)


async def test_a_join_without_an_answer_is_pending_and_no_subflow(
    host: Host, diag: SockDiag, events: EventSocket, requests: RequestSocket
) -> None:
    for command in ("link add nowhere type veth peer name end", "link set nowhere up"):
        host.run(f"ip {command}")
    host.run("ip link set end up")
    host.run("ip addr add 10.0.0.1/24 dev nowhere")
    host.talk(host.listen())
    client, _ = ends(events)
    remote = AddressEntry("10.0.0.2", port=443)
    assert diag.pending(client.token, "10.0.0.1", "10.0.0.2", 443) == []

    await requests.execute(c.SubflowCreate(client.token, AddressEntry("10.0.0.1", 4), remote))

    (join,) = diag.pending(client.token, "10.0.0.1", "10.0.0.2", 443)
    assert (join.state, join.local_id, join.fully_established) == (SYN_SENT, 4, False)
    assert join.four_tuple[0::2] == ("10.0.0.1", "10.0.0.2")
    assert diag.pending(client.token ^ 1, "10.0.0.1", "10.0.0.2", 443) == []
    assert diag.pending(client.token, "10.0.0.1", "10.0.0.2", 444) == []
    assert diag.pending(client.token, "10.0.0.3", "10.0.0.2", 443) == []
    assert join.four_tuple not in [r.four_tuple for rows in diag.subflows() for r in rows]


def test_a_row_of_a_dump_that_cannot_be_read_costs_itself_only(
    host: Host,
    diag: SockDiag,
    events: EventSocket,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    host.talk(host.listen())
    client, server = ends(events)

    def all_but_one(data: bytes) -> ConnectionRead | None:
        row = decode_connection(data)
        if row is not None and row.token == client.token:
            raise DecodeError("nonsense")
        return row

    monkeypatch.setattr(sock_diag, "decode_connection", all_but_one)

    for _ in range(2):  # each sweep finds it again, and that is no news
        assert [row.token for rows in diag.connections() for row in rows] == [server.token]
    assert caplog.text.count("dropped a socket that cannot be read") == 1

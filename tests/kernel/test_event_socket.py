"""Proves on the real kernel that events are heard, in order, also after a loss."""
# SPDX-License-Identifier: BSD-3-Clause

import errno
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from mptcpd_dbus.core.errors import DecodeError
from mptcpd_dbus.core.events import (
    ConnectionClosed,
    ConnectionEstablished,
    ListenerClosed,
    ListenerCreated,
    MptcpEvent,
    NewConnection,
)
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.kernel.event_socket import EventSocket
from mptcpd_dbus.kernel.family import NETLINK_GENERIC, find_family
from mptcpd_dbus.kernel.mptcp_pm import FAMILY
from mptcpd_dbus.kernel.netlink import pack_message
from mptcpd_dbus.kernel.netlink_socket import NetlinkSocket
from tests.kernel.host import Host

pytestmark = pytest.mark.real_kernel
CLOSED_EVENT = b"\x03\x01\0\0" + b"\x08\0\x01\0\x07\0\0\0"  # of token 7


@pytest.fixture
def events(host: Host) -> Iterator[EventSocket]:
    """Listen with room for all."""
    del host  # it must only be there first
    sock = EventSocket()
    yield sock
    sock.close()


def listen_and_close(host: Host) -> int:
    """Cause two events that name a port."""
    listener = host.listen()
    port: int = listener.getsockname()[1]
    listener.close()
    return port


def ports(heard: list[MptcpEvent]) -> set[int]:
    """Return the ports of listeners that began."""
    return {event.port for event in heard if isinstance(event, ListenerCreated)}


def run_elsewhere(command: list[str]) -> str:
    """Open an event socket in another process; return what it says."""
    code = (
        "import logging; logging.basicConfig()\n"
        "from mptcpd_dbus.kernel.event_socket import EventSocket\n"
        "EventSocket().close()"
    )
    done = subprocess.run([*command, sys.executable, "-c", code], capture_output=True, text=True)  # noqa: PLW1510 - a failure is expected
    return done.stderr


def test_the_life_of_a_connection_is_heard_from_both_ends(host: Host, events: EventSocket) -> None:
    listener = host.listen()
    talk = host.talk(listener)
    talk.client.close()
    talk.server.close()
    port = listener.getsockname()[1]
    listener.close()

    heard, lost, more = events.drain()

    assert (lost, more) == (False, False)
    assert heard[0] == ListenerCreated("127.0.0.1", port)
    assert heard[-1] == ListenerClosed("127.0.0.1", port)
    new = {event.server_side: event for event in heard if isinstance(event, NewConnection)}
    local, local_port, _, _ = new[False].four_tuple
    assert new[False].four_tuple == FourTuple("127.0.0.1", local_port, "127.0.0.1", port)
    assert new[True].four_tuple == FourTuple("127.0.0.1", port, local, local_port)
    for event in new.values():
        kinds = [type(e) for e in heard if getattr(e, "token", None) == event.token]
        assert kinds == [NewConnection, ConnectionEstablished, ConnectionClosed]


def test_a_mapped_connection_is_heard_with_ipv4_addresses(host: Host, events: EventSocket) -> None:
    talk = host.talk(host.listen("::"))

    heard, _, _ = events.drain()

    new = [event for event in heard if isinstance(event, NewConnection)]
    port = talk.client.getsockname()[1]
    assert {(e.server_side, e.mapped, e.four_tuple.local_address) for e in new} == {
        (False, False, "127.0.0.1"),
        (True, True, "127.0.0.1"),
    }
    assert {p for e in new for p in e.four_tuple[1::2]} == {port, talk.client.getpeername()[1]}


def test_events_come_in_slices_and_in_order(host: Host, events: EventSocket) -> None:
    expected = [listen_and_close(host) for _ in range(4)]

    heard = []
    more, turns = True, 0
    while more:
        some, _, more = events.drain(3)
        assert len(some) <= 3
        heard += some
        turns += 1

    assert turns == 3
    assert [e.port for e in heard if isinstance(e, ListenerCreated)] == expected


def test_after_a_loss_the_kernel_is_silent_until_the_queue_was_empty(host: Host) -> None:
    events = EventSocket(receive_buffer=1)  # the kernel makes it some events
    for _ in range(100):
        listen_and_close(host)

    first = events.drain(1)
    some, again, more = events.drain(1)
    unheard = listen_and_close(host)
    rest, _, _ = events.drain()
    heard_port = listen_and_close(host)
    heard, _, _ = events.drain()

    assert first == ([], True, True)
    assert (len(some), again, more) == (1, False, True)
    assert unheard not in ports(rest)
    assert heard_port in ports(heard)
    events.close()


def test_a_read_that_fails_costs_no_event_that_was_read_before(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(socket.socket):
        reads = 0

        def recvfrom(self, size: int, flags: int = 0) -> tuple[bytes, Any]:
            self.reads += 1
            if self.type == socket.SOCK_RAW and self.reads == 2 and not self.getblocking():
                raise OSError(errno.ENOMEM, "no memory")
            return super().recvfrom(size, flags)

    monkeypatch.setattr(socket, "socket", Failing)
    events = EventSocket()
    monkeypatch.undo()
    port = listen_and_close(host)

    assert events.drain() == ([ListenerCreated("127.0.0.1", port)], True, False)
    assert events.drain() == ([ListenerClosed("127.0.0.1", port)], False, False)
    events.close()


def test_a_large_buffer_loses_nothing_of_the_same_burst(host: Host, events: EventSocket) -> None:
    expected = {listen_and_close(host) for _ in range(100)}

    heard, lost, _ = events.drain()

    assert not lost
    assert ports(heard) == expected


def test_words_of_other_processes_are_not_taken_for_the_kernels(
    host: Host, events: EventSocket
) -> None:
    asking = NetlinkSocket(NETLINK_GENERIC)
    forged = pack_message(find_family(asking, FAMILY).id, 0, 0, CLOSED_EVENT)
    asking.close()
    with (
        socket.socket(fileno=os.dup(events.fileno())) as same,
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC) as stranger,
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC) as control,
    ):
        control.bind((0, 0))
        for target in (same, control):
            stranger.sendto(forged, target.getsockname())
        port = listen_and_close(host)

        assert control.recv(100) == forged
        assert events.drain()[0] == [
            ListenerCreated("127.0.0.1", port),
            ListenerClosed("127.0.0.1", port),
        ]


def test_what_cannot_be_read_is_dropped_and_logged_once(
    host: Host,
    events: EventSocket,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(datagram: bytes) -> MptcpEvent:
        raise DecodeError(f"{len(datagram)} bytes of nonsense")

    listen_and_close(host)
    with monkeypatch.context() as patch:
        patch.setattr("mptcpd_dbus.kernel.event_socket.decode_event", fail)
        assert events.drain() == ([], False, False)
    port = listen_and_close(host)

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "44 bytes of nonsense: 2c000000" in record.getMessage()
    assert ports(events.drain()[0]) == {port}


@pytest.mark.usefixtures("host", "people")  # anybody else hears of the smaller buffer as well
def test_without_the_capability_the_error_names_it() -> None:
    error = run_elsewhere(["setpriv", "--bounding-set=-net_admin"])

    assert "CAP_NET_ADMIN" in error.splitlines()[-1]
    assert run_elsewhere([]) == ""


@pytest.mark.usefixtures("host", "people")  # as anybody else it is always smaller
def test_a_smaller_buffer_than_wished_for_is_logged() -> None:
    said = run_elsewhere(["unshare", "--user", "--map-root-user", "--net"])

    assert "a receive buffer of" in said
    assert "instead of 67108864" in said
    assert "Traceback" not in said

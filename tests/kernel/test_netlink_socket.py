"""Proves that an answer is never taken for another question's, and that none is waited for long."""
# SPDX-License-Identifier: BSD-3-Clause

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mptcpd_dbus.core.errors import NotReady
from mptcpd_dbus.kernel.family import (
    CTRL_ATTR_FAMILY_NAME,
    CTRL_CMD_GETFAMILY,
    GENL_HEADER,
    GENL_ID_CTRL,
    NETLINK_GENERIC,
    decode_family,
    find_family,
)
from mptcpd_dbus.kernel.mptcp_events import EVENT_GROUP
from mptcpd_dbus.kernel.mptcp_pm import FAMILY
from mptcpd_dbus.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLMSG_ERROR,
    S32,
    pack_attribute,
    pack_message,
)
from mptcpd_dbus.kernel.netlink_socket import NetlinkSocket, RefusedError
from tests.kernel.host import Host

pytestmark = pytest.mark.real_kernel
NLMSG_NOOP = 1
GET_FAMILY = GENL_HEADER.pack(CTRL_CMD_GETFAMILY, 1, 0)


@pytest.fixture
def sock(host: Host) -> Iterator[NetlinkSocket]:
    """Ask questions with little patience."""
    del host  # it must only be there first
    made = NetlinkSocket(NETLINK_GENERIC, time_limit=1)
    yield made
    made.close()


def question(name: str) -> bytes:
    """Ask for a family."""
    return GET_FAMILY + pack_attribute(CTRL_ATTR_FAMILY_NAME, name.encode() + b"\0")


def test_the_family_is_found_with_its_group(sock: NetlinkSocket) -> None:
    family = find_family(sock, FAMILY)

    assert family.id >= 16
    assert EVENT_GROUP in family.groups


def test_a_family_that_is_missing_is_named(sock: NetlinkSocket) -> None:
    with pytest.raises(NotReady, match="no_such_family"):
        find_family(sock, "no_such_family")


def test_an_answer_left_over_is_not_taken_for_the_next(sock: NetlinkSocket) -> None:
    other = sock.ask(GENL_ID_CTRL, NLM_F_ACK, question("nlctrl"))
    assert decode_family(next(other)[0]).id == GENL_ID_CTRL
    other.close()  # its acknowledgement stays in the queue

    family = find_family(sock, FAMILY)

    assert family.id != GENL_ID_CTRL
    assert EVENT_GROUP in family.groups


def ports() -> set[int]:
    """Return the addresses of all generic netlink sockets of this host."""
    lines = Path("/proc/net/netlink").read_text().splitlines()[1:]
    return {int(port) for _, protocol, port, *_ in map(str.split, lines) if protocol == "16"}


@pytest.mark.usefixtures("host")
def test_another_process_cannot_answer_for_the_kernel() -> None:
    before = ports()
    sock = NetlinkSocket(NETLINK_GENERIC)
    (port,) = ports() - before
    forged = pack_message(NLMSG_ERROR, 0, 1, S32.pack(-errno.EPERM))  # to the first question

    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC) as stranger:
        stranger.sendto(forged, (port, 0))
    family = find_family(sock, FAMILY)
    sock.close()

    assert EVENT_GROUP in family.groups


def test_a_dump_comes_whole(sock: NetlinkSocket) -> None:
    payloads = [p for part in sock.ask(GENL_ID_CTRL, NLM_F_DUMP, GET_FAMILY) for p in part]

    assert find_family(sock, FAMILY) in [decode_family(p) for p in payloads]


def test_silence_ends_with_a_clear_error_and_does_no_harm(sock: NetlinkSocket) -> None:
    with pytest.raises(RefusedError) as silence:
        list(sock.ask(NLMSG_NOOP, 0, b""))

    assert silence.value.reply.errno == errno.ETIMEDOUT
    assert silence.value.reply.text == "no answer within 1 s"
    assert find_family(sock, FAMILY).id

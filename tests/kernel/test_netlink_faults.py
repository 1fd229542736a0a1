"""System calls of netlink fail: that is a refusal, and the next answer is the right one."""
# SPDX-License-Identifier: BSD-3-Clause

import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from mptcpd_dbus.core.commands import GetLimits
from mptcpd_dbus.core.errors import KernelRefused
from mptcpd_dbus.core.readings import LimitsRead
from mptcpd_dbus.kernel.family import Family
from mptcpd_dbus.kernel.request_socket import RequestSocket
from tests.kernel.host import Host

pytestmark = pytest.mark.real_kernel

ERRORS = (errno.ENOBUFS, errno.ENOMEM, errno.EPERM, errno.ENODEV, errno.ECONNREFUSED)
VANISHED = 0x3FF  # no family has this number


class Failing(socket.socket):
    """A socket of which the next call fails, or is cut short."""

    fault: tuple[str, int] | None = None

    def _fail(self, call: str) -> int:
        if Failing.fault is None or Failing.fault[0] != call:
            return 0
        (_, code), Failing.fault = Failing.fault, None
        if code > 0:
            raise OSError(code, os.strerror(code))
        return code

    def send(self, data: Any, flags: int = 0) -> int:
        """Ask, or fail."""
        self._fail("send")
        return super().send(data, flags)

    def recvfrom(self, size: int, flags: int = 0) -> Any:
        """Read, or fail, or lack the last bytes."""
        short = self._fail("recvfrom")
        data, sender = super().recvfrom(size, flags)
        return data[:short] if short else data, sender


@pytest.fixture
def requests(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[RequestSocket]:
    """Ask the real kernel, on sockets that can fail."""
    del host  # it must only be there first
    monkeypatch.setattr(socket, "socket", Failing)
    made = RequestSocket()
    yield made
    Failing.fault = None
    made.close()


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["send", "recvfrom"])
def test_a_call_that_fails_is_a_refusal_with_its_error(
    call: str, code: int, requests: RequestSocket
) -> None:
    Failing.fault = (call, code)

    with pytest.raises(KernelRefused) as refused:
        requests.read_now(GetLimits())

    assert str(refused.value) == (
        f"the kernel refused GET_LIMITS: {errno.errorcode[code]} ({os.strerror(code)})"
    )
    assert isinstance(requests.read_now(GetLimits()), LimitsRead)
    assert requests.local_addresses(7) is None, "an answer of before was taken for this one's"


def test_no_answer_in_time_is_a_refusal(requests: RequestSocket) -> None:
    Failing.fault = ("recvfrom", errno.EAGAIN)

    with pytest.raises(KernelRefused, match=r"ETIMEDOUT .no answer within 5 s"):
        requests.read_now(GetLimits())

    assert isinstance(requests.read_now(GetLimits()), LimitsRead)


@pytest.mark.parametrize("missing", [1, 4, 13])
def test_an_answer_that_is_cut_is_a_refusal(missing: int, requests: RequestSocket) -> None:
    Failing.fault = ("recvfrom", -missing)

    with pytest.raises(KernelRefused, match=r"EBADMSG .netlink message of"):
        requests.read_now(GetLimits())

    assert isinstance(requests.read_now(GetLimits()), LimitsRead)


def test_a_family_that_has_vanished_is_a_refusal(
    requests: RequestSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the kernel's module could be unloaded: the number means nothing any more."""
    monkeypatch.setattr(
        "mptcpd_dbus.kernel.request_socket.find_family", lambda *_: Family(VANISHED, {})
    )
    late = RequestSocket()
    try:
        with pytest.raises(KernelRefused, match="ENOENT"):
            late.read_now(GetLimits())
    finally:
        late.close()

    assert isinstance(requests.read_now(GetLimits()), LimitsRead)

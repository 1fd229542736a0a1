"""A host for tests of the kernel edge: a network namespace of its own, with loopback up."""
# SPDX-License-Identifier: BSD-3-Clause

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kernel.host import Host
from tests.lab.sandbox import inside

CLONE_NEWNET = 0x40000000


@pytest.fixture
def host() -> Iterator[Host]:
    """Move this thread into a new network namespace; what runs in it later inherits that."""
    if not inside():
        pytest.fail("this test needs the sandbox: run `make test`", pytrace=False)
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as home:
        _check(libc.unshare, CLONE_NEWNET)
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            with ExitStack() as sockets:
                yield Host(sockets)
        finally:
            _check(libc.setns, home.fileno(), CLONE_NEWNET)


def _check(function: Callable[..., int], *arguments: int) -> None:
    if function(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

"""A fault for the fuzzer to find, behind bytes that it can guess one by one.

FAULT in the environment says of what kind.  With this the harness shows that it would find
those of the other targets.
"""
# SPDX-License-Identifier: BSD-3-Clause

import os
from collections.abc import Iterator

LENGTH = 16

FAULT = os.environ.get("FAULT")


def seeds() -> Iterator[bytes]:
    """Give none."""
    yield from ()


def check(data: bytes) -> None:
    """Fail where *data* leads to."""
    if data[:1] == b"b" and data[1:2] == b"a" and data[2:3] == b"d":
        _fail()


def _fail() -> None:
    match FAULT:
        case "error":
            raise ValueError("not what a reader may raise")
        case "time":
            while True:
                pass
        case "memory":
            print(len([bytearray(b"x") * (1 << 20) for _ in range(2000)]))
        case _:
            pass

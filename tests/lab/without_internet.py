"""Runs a command that may make no sockets of the internet, as RestrictAddressFamilies= has it.

Whoever runs it must be root, of the sandbox at least.
Source: systemd.exec(5), seccomp(2), <linux/seccomp.h>, <linux/bpf_common.h>.
"""
# SPDX-License-Identifier: BSD-3-Clause

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from pathlib import Path

SCRIPT = str(Path(__file__).resolve())

_SOCKET = {"x86_64": 41, "aarch64": 198}
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _FIRST_ARGUMENT = 0, 16  # offsets in struct seccomp_data
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_SET_SECCOMP, _FILTER = 22, 2

# Code, jump if so, jump if not, constant.
_PROGRAM = (
    (_LOAD, 0, 0, _NUMBER),
    (_IF_EQUAL, 0, 4, _SOCKET[platform.machine()]),
    (_LOAD, 0, 0, _FIRST_ARGUMENT),
    (_IF_EQUAL, 1, 0, socket.AF_INET),
    (_IF_EQUAL, 0, 1, socket.AF_INET6),
    (_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT),
    (_RETURN, 0, 0, _ALLOW),
)


def _restrict() -> None:
    packed = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *it) for it in _PROGRAM))
    program = struct.pack("@HP", len(_PROGRAM), ctypes.addressof(packed))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_SECCOMP, _FILTER, program) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


if __name__ == "__main__":
    _restrict()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell wanted

"""Fuzz target: what a daemon finds in the files that the one before it has left."""
# SPDX-License-Identifier: BSD-3-Clause

import struct
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

from mptcpd_dbus import choice, notes, own_endpoints
from mptcpd_dbus.policy.watch import Watch

LENGTH = 512

FILE = Path(gettempdir()) / "note"
HERE = str(notes.namespace()).encode()


def seeds() -> Iterator[bytes]:
    """Give a good note of each kind, and one of a plugin that was killed."""
    yield from (
        b'{"namespace":0,"endpoints":[{"id":1,"address":"10.0.1.1","port":0,"by":"uid 0"}]}',
        b'{"namespace":0,"endpoints":[{"id":9,"address":"fd00::1","port":4,"by":"\\u00e9"}]}',
        b'{"namespace":0,"before":"kernel","ours":"userspace","configured":"","put_back":true}',
        struct.pack("=dH", 1.0, 9) + b"a\0handler",
    )


def check(data: bytes) -> None:
    """Read it as each of them; a note of another namespace counts as one of this."""
    FILE.write_bytes(data.replace(b'"namespace":0', b'"namespace":' + HERE))
    for kind in (own_endpoints._Note, choice._Note):  # noqa: SLF001 - its readers look at the kernel, too
        note = notes.read(FILE, kind, "nothing is known")
        if note is not None:
            notes.write(FILE, note)
            assert notes.read(FILE, kind, "") == note
    FILE.write_bytes(data)
    suspect = Watch(FILE).suspect
    assert suspect is None or len(suspect) == 2
    FILE.unlink()

"""Reads what programs send to the journal, as journald would; knows none of them.

Source: systemd.journal-fields(7); "Native Journal Protocol" of systemd.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Iterator


def decode(entry: bytes) -> Iterator[tuple[str, str]]:
    """Give the fields of a datagram; each is `NAME=value`, or `NAME`, a length and a value."""
    while entry:
        line, _, entry = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            end = 8 + int.from_bytes(entry[:8], "little")
            value, entry = entry[8:end], entry[end + 1 :]
        yield name.decode(errors="replace"), value.decode(errors="replace")

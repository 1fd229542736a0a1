"""Fuzz target: an answer of the kernel: its framing, rows of sock_diag, replies of `mptcp_pm`."""
# SPDX-License-Identifier: BSD-3-Clause

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from mptcpd_dbus.core.errors import DecodeError
from mptcpd_dbus.core.types import AddressEntry
from mptcpd_dbus.kernel.address_entry import decode_address_nest, encode_address
from mptcpd_dbus.kernel.diag_rows import (
    CONNECTION_COUNTERS,
    SUBFLOW_COUNTERS,
    decode_connection,
    decode_information,
    decode_listener,
    decode_subflow,
)
from mptcpd_dbus.kernel.family import GENL_HEADER, decode_family
from mptcpd_dbus.kernel.mptcp_pm import (
    ATTR_ADDR,
    ATTR_RCV_ADD_ADDRS,
    ATTR_SUBFLOWS,
    decode_address_entry,
    decode_limits,
    refusal_text,
)
from mptcpd_dbus.kernel.netlink import (
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSGERR_ATTR_MISS_NEST,
    NLMSGERR_ATTR_MISS_TYPE,
    NLMSGERR_ATTR_MSG,
    S32,
    U32,
    error_reply,
    messages,
    pack_attribute,
    pack_message,
    pack_nest,
)
from tests.lab.sandbox import REPOSITORY

LENGTH = 1024

ROWS = REPOSITORY / "tests/kernel/captures/diag.json"
FAMILY = (  # of nlctrl, with one group
    pack_attribute(2, b"mptcp_pm\0")
    + pack_attribute(1, b"\x1e\0")
    + pack_nest(
        7, pack_nest(1, pack_attribute(2, U32.pack(9)) + pack_attribute(1, b"mptcp_pm_events\0"))
    )
)
DECODERS: tuple[Callable[[bytes], Any], ...] = (
    decode_connection,
    decode_subflow,
    decode_listener,
    lambda row: decode_information(row, CONNECTION_COUNTERS),
    lambda row: decode_information(row, SUBFLOW_COUNTERS),
    decode_limits,
    decode_family,
)


def seeds() -> Iterator[bytes]:
    """Give the rows that were recorded, one reply of each kind, and errors with their words."""
    for row in json.loads(ROWS.read_text())["entries"]:
        yield pack_message(20, 2, 1, bytes.fromhex(row["body"]))
    header = GENL_HEADER.pack(3, 1, 0)
    entry = encode_address(AddressEntry("fd00::1", 3, 443, 5, 2))
    limits = pack_attribute(ATTR_SUBFLOWS, U32.pack(2)) + pack_attribute(
        ATTR_RCV_ADD_ADDRS, U32.pack(1)
    )
    for payload in (pack_nest(ATTR_ADDR, entry), limits, FAMILY):
        yield pack_message(30, 2, 1, header + payload)
    words = pack_attribute(NLMSGERR_ATTR_MSG, b"invalid token\0")
    words += pack_attribute(NLMSGERR_ATTR_MISS_TYPE, U32.pack(4))
    words += pack_attribute(NLMSGERR_ATTR_MISS_NEST, U32.pack(1))
    flags = NLM_F_ACK_TLVS | NLM_F_CAPPED
    yield pack_message(NLMSG_ERROR, flags, 1, S32.pack(-22) + bytes(16) + words)
    yield pack_message(NLMSG_DONE, NLM_F_ACK_TLVS, 1, S32.pack(0) + words)


def check(data: bytes) -> None:
    """Read *data* as a datagram, and as the payload of one."""
    with suppress(DecodeError):
        for message in messages(data):
            _read(data[message.start : message.end])
            with suppress(DecodeError):
                assert "\0" not in refusal_text(error_reply(data, message))[-1:]
    _read(data)


def _read(payload: bytes) -> None:
    for decode in DECODERS:
        with suppress(DecodeError):
            decode(payload)
    with suppress(DecodeError):
        entry = decode_address_entry(payload)
        packed = encode_address(entry)
        assert decode_address_nest(packed, 0, len(packed)) == entry

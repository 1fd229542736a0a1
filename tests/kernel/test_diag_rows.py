"""Proves the reading of sock_diag rows on recorded ones, also as an older kernel sends them."""
# SPDX-License-Identifier: BSD-3-Clause

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcpd_dbus.core.errors import DecodeError
from mptcpd_dbus.core.readings import ConnectionRead, ListenerRead, SubflowRead
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.kernel.diag_rows import (
    CONNECTION_COUNTERS,
    SUBFLOW_COUNTERS,
    decode_connection,
    decode_information,
    decode_listener,
    decode_subflow,
)
from mptcpd_dbus.kernel.netlink import attributes, pack_attribute

ROWS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "captures" / "diag.json").read_text()
)["entries"]
STATES = {"ESTABLISHED": 1, "LISTEN": 10}
HEAD = 72  # struct inet_diag_msg
INFO, CGROUP_ID = 2, 21

CONNECTIONS = [r for r in ROWS if r["decoded"].get("info") and r["decoded"]["info"]["token"]]
SUBFLOWS = [r for r in ROWS if "token_loc" in r["decoded"].get("ulp", {})]
LISTENERS = [r for r in ROWS if r["decoded"].get("ulp") == {"name": "mptcp"}]


def four_tuple(decoded: dict[str, Any]) -> FourTuple:
    return FourTuple(decoded["src"], decoded["sport"], decoded["dst"], decoded["dport"])


def rewritten(row: dict[str, Any], kind: int, size: int | None) -> bytes:
    """Return a row with one attribute shortened or, without a size, left out."""
    body = bytes.fromhex(row["body"])
    parts = [body[:HEAD]]
    for found, start, end in attributes(body, HEAD, len(body)):
        payload = body[start:end]
        if found == kind:
            if size is None:
                continue
            payload = payload[:size]
        parts.append(pack_attribute(found, payload))
    return b"".join(parts)


def test_rows_of_every_sort_were_recorded() -> None:
    assert (len(ROWS), len(CONNECTIONS), len(SUBFLOWS), len(LISTENERS)) == (14, 4, 6, 2)


@pytest.mark.parametrize("row", CONNECTIONS, ids=lambda row: row["desc"])
def test_a_connection_is_read_as_recorded(row: dict[str, Any]) -> None:
    decoded = row["decoded"]

    read = decode_connection(bytes.fromhex(row["body"]))

    assert read == ConnectionRead(
        token=decoded["info"]["token"],
        four_tuple=four_tuple(decoded),
        mapped=False,
        state=STATES[decoded["state"]],
        uid=decoded["uid"],
        inode=decoded["inode"],
        cgroup=1,
        fallback=bool(decoded["info"]["flags"] & 1),
    )


@pytest.mark.parametrize("row", SUBFLOWS, ids=lambda row: row["desc"])
def test_a_subflow_is_read_as_recorded(row: dict[str, Any]) -> None:
    decoded, ulp = row["decoded"], row["decoded"]["ulp"]
    flags = set(ulp["flagnames"])

    read = decode_subflow(bytes.fromhex(row["body"]))

    assert read == SubflowRead(
        token=ulp["token_loc"],
        four_tuple=four_tuple(decoded),
        mapped=False,
        state=STATES[decoded["state"]],
        local_id=ulp["id_loc"],
        remote_id=ulp["id_rem"],
        backup="BKUP_REM" in flags,
        backup_requested="BKUP_LOC" in flags,
        interface_index=decoded["if"],
        initial=not flags & {"JOIN_REM", "JOIN_LOC"},
        opened_here=bool(flags & {"MCAP_LOC", "JOIN_LOC"}),
        fully_established="FULLY_ESTABLISHED" in flags,
    )


@pytest.mark.parametrize("row", LISTENERS, ids=lambda row: row["desc"])
def test_a_listener_is_read_as_recorded(row: dict[str, Any]) -> None:
    decoded = row["decoded"]

    read = decode_listener(bytes.fromhex(row["body"]))

    assert read == ListenerRead(
        decoded["src"], decoded["sport"], decoded["if"], decoded["uid"], decoded["inode"]
    )
    assert decode_subflow(bytes.fromhex(row["body"])) is None


@pytest.mark.parametrize("row", SUBFLOWS, ids=lambda row: row["desc"])
def test_a_plain_tcp_socket_is_neither_subflow_nor_listener(row: dict[str, Any]) -> None:
    plain = rewritten(row, 19, None)

    assert decode_subflow(plain) is None
    assert decode_listener(plain) is None


def test_a_socket_without_a_token_is_no_connection() -> None:
    tokenless = [r for r in ROWS if r["decoded"].get("info") and not r["decoded"]["info"]["token"]]

    assert len(tokenless) == 2
    assert all(decode_connection(bytes.fromhex(row["body"])) is None for row in tokenless)


@pytest.mark.parametrize("row", CONNECTIONS, ids=lambda row: row["desc"])
def test_the_shorter_information_of_linux_6_1_is_enough(row: dict[str, Any]) -> None:
    body = bytes.fromhex(row["body"])
    old = rewritten(row, INFO, 48)

    assert decode_connection(old) == decode_connection(body)
    counters, old_counters = (decode_information(b, CONNECTION_COUNTERS) for b in (body, old))
    assert counters is not None
    assert old_counters is not None
    assert counters.keys() - old_counters.keys() >= {"bytes_sent", "bytes_acked", "subflows_total"}
    assert old_counters.items() <= counters.items()


def test_a_kernel_that_does_not_tell_the_cgroup_leaves_it_zero() -> None:
    read = decode_connection(rewritten(CONNECTIONS[0], CGROUP_ID, None))

    assert read is not None
    assert read.cgroup == 0


@pytest.mark.parametrize("row", CONNECTIONS, ids=lambda row: row["desc"])
def test_the_counters_of_a_connection_have_the_recorded_values(row: dict[str, Any]) -> None:
    counters = decode_information(bytes.fromhex(row["body"]), CONNECTION_COUNTERS)

    assert counters is not None
    assert len(counters) == len(CONNECTION_COUNTERS)
    assert counters.items() <= row["decoded"]["info"].items()


def test_the_counters_of_a_subflow_are_those_of_a_healthy_connection() -> None:
    counters = decode_information(bytes.fromhex(SUBFLOWS[0]["body"]), SUBFLOW_COUNTERS)

    assert counters is not None
    assert len(counters) == len(SUBFLOW_COUNTERS)
    expected = {
        "state": 1,
        "snd_mss": 1448,
        "pmtu": 1500,
        "rtt": 45,
        "rttvar": 23,
        "snd_cwnd": 12,
        "advmss": 1448,
        "reordering": 3,
        "total_retrans": 0,
        "bytes_acked": 3,
        "bytes_received": 2,
        "segs_out": 7,
        "segs_in": 5,
        "min_rtt": 11,
        "bytes_sent": 2,
        "bytes_retrans": 0,
        "snd_wnd": 64512,
    }
    assert expected.items() <= counters.items()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["desc"])
def test_a_cut_row_raises_nothing_but_decode_errors(row: dict[str, Any]) -> None:
    body = bytes.fromhex(row["body"])
    for end in range(len(body)):
        _harmless(body[:end])


@given(st.binary(max_size=60), st.sampled_from(ROWS), st.integers(HEAD, 300))
def test_damaged_rows_raise_nothing_but_decode_errors(
    damage: bytes, row: dict[str, Any], place: int
) -> None:
    body = bytes.fromhex(row["body"])
    _harmless(body[:place] + damage + body[place + len(damage) :])


def _harmless(body: bytes) -> None:
    for decode in (decode_connection, decode_subflow, decode_listener):
        with contextlib.suppress(DecodeError):
            decode(body)
    for table in (CONNECTION_COUNTERS, SUBFLOW_COUNTERS):
        with contextlib.suppress(DecodeError):
            decode_information(body, table)

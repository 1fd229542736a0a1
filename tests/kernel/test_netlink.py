"""Proves that the framing survives whatever bytes come."""
# SPDX-License-Identifier: BSD-3-Clause

import contextlib
import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcpd_dbus.core.errors import DecodeError
from mptcpd_dbus.kernel.netlink import (
    HEADER,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSGERR_ATTR_MISS_NEST,
    NLMSGERR_ATTR_MISS_TYPE,
    NLMSGERR_ATTR_MSG,
    S32,
    U8,
    U32,
    ErrorReply,
    attribute_map,
    attributes,
    error_reply,
    messages,
    number,
    octets,
    pack_attribute,
    pack_message,
    pack_nest,
)

TLVS = (
    pack_attribute(NLMSGERR_ATTR_MSG, b"invalid token\0")
    + pack_attribute(NLMSGERR_ATTR_MISS_TYPE, U32.pack(4))
    + pack_attribute(NLMSGERR_ATTR_MISS_NEST, U32.pack(20))
)
REQUEST = pack_message(28, 5, 7, b"payload that is repeated")


def answer(kind: int, flags: int, payload: bytes) -> ErrorReply:
    datagram = pack_message(kind, flags, 7, payload)
    (message,) = messages(datagram)
    return error_reply(datagram, message)


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=8))
def test_attributes_come_back_as_they_were_packed(given: list[tuple[int, bytes]]) -> None:
    packed = b"".join(pack_attribute(kind, payload) for kind, payload in given)

    found = [(kind, packed[a:b]) for kind, a, b in attributes(packed, 0, len(packed))]

    assert len(packed) % 4 == 0
    assert found == given
    by_kind = attribute_map(packed, 0, len(packed))
    assert {kind: packed[a:b] for kind, (a, b) in by_kind.items()} == dict(given)


def test_the_mark_of_a_nest_is_not_part_of_its_type() -> None:
    nest = pack_nest(3, pack_attribute(1, b"x"))

    ((kind, start, end),) = attributes(nest, 0, len(nest))

    assert kind == 3
    assert [k for k, _, _ in attributes(nest, start, end)] == [1]


@pytest.mark.parametrize("walk", [attributes, attribute_map])
def test_a_cut_attribute_is_an_error_and_never_read_beyond_its_end(walk: object) -> None:
    assert callable(walk)
    whole = pack_attribute(1, b"abcd") + pack_attribute(2, b"efgh")
    for end in range(len(whole)):
        if end in (0, 8):
            assert len(dict.fromkeys(walk(whole, 0, end))) == end // 8
        else:
            with pytest.raises(DecodeError):
                list(walk(whole, 0, end))
    with pytest.raises(DecodeError):
        list(walk(whole, 0, len(whole) + 1))


@given(st.binary(max_size=80))
def test_arbitrary_bytes_raise_decode_errors_at_most(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        list(attributes(data, 0, len(data)))
    with contextlib.suppress(DecodeError):
        attribute_map(data, 0, len(data))
    with contextlib.suppress(DecodeError):
        for message in messages(data):
            assert message.end <= len(data)
            error_reply(data, message)


def test_a_datagram_may_hold_several_messages() -> None:
    datagram = pack_message(20, 2, 7, b"four") + pack_message(21, 2, 8, b"")

    found = list(messages(datagram))

    assert [(m.kind, m.sequence, datagram[m.start : m.end]) for m in found] == [
        (20, 7, b"four"),
        (21, 8, b""),
    ]


def test_an_error_is_read_with_the_request_repeated_or_left_out() -> None:
    expected = ErrorReply(errno.EINVAL, "invalid token", 4, 20)
    refused = S32.pack(-errno.EINVAL)

    assert answer(NLMSG_ERROR, NLM_F_ACK_TLVS, refused + REQUEST + TLVS) == expected
    capped = refused + REQUEST[: HEADER.size] + TLVS
    assert answer(NLMSG_ERROR, NLM_F_ACK_TLVS | NLM_F_CAPPED, capped) == expected


def test_a_dump_ends_with_an_error_of_its_own_form() -> None:
    refused = S32.pack(-errno.EINVAL) + TLVS

    assert answer(NLMSG_DONE, NLM_F_ACK_TLVS, refused).text == "invalid token"
    assert answer(NLMSG_DONE, 0, S32.pack(0)) == ErrorReply(0)


def test_an_error_without_words_has_only_its_number() -> None:
    assert answer(NLMSG_ERROR, 0, S32.pack(-errno.EPERM) + REQUEST) == ErrorReply(errno.EPERM)


def test_a_value_may_have_grown_but_not_shrunk() -> None:
    assert number(U8, b"\x07\xff", 0, 2) == 7
    assert octets(b"abcdef", 1, 6, 4) == b"bcde"
    with pytest.raises(DecodeError):
        number(U32, b"\x07\x00\x00\x00", 0, 3)
    with pytest.raises(DecodeError):
        octets(b"abcdef", 1, 4, 4)

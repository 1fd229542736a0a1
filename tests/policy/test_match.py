"""Which connections fit a match, and what can be written for one."""
# SPDX-License-Identifier: BSD-3-Clause

import pwd
from dataclasses import replace
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.policy.match import Match

GROUPS = {
    7: ("user.slice", "user-1000.slice", "user@1000.service", "app.slice", "app-mail-7.scope"),
    8: ("system.slice", "firefox.service"),
}
CLIENT = Connection(
    number=1,
    token=2,
    four_tuple=FourTuple("10.0.1.1", 4000, "10.0.9.1", 443),
    server_side=False,
    deny_join_id0=False,
    mapped=False,
    uid=1000,
    cgroup=7,
)
SERVER = replace(
    CLIENT, four_tuple=FourTuple("fd00::1", 443, "fd00::9", 4000), server_side=True, uid=0, cgroup=8
)


def _match(**given: object) -> Match:
    return Match.model_validate(given)


def _units(cgroup: int) -> tuple[str, ...]:
    return GROUPS.get(cgroup, ())


def _fits(connection: Connection, **given: object) -> bool:
    return _match(**given).fits(connection, _units)


def test_without_a_key_everything_fits() -> None:
    nothing_known = replace(CLIENT, uid=None, cgroup=None)

    assert all(Match().fits(c, _units) for c in (CLIENT, SERVER, nothing_known))


def test_the_port_is_the_servers_on_either_side() -> None:
    assert _fits(CLIENT, port=443)
    assert _fits(SERVER, port=443)
    assert not _fits(CLIENT, port=4000)
    assert not _fits(SERVER, port=4000)


def test_the_prefix_is_of_the_remote_address() -> None:
    assert _fits(CLIENT, prefix="10.0.8.0/23")
    assert not _fits(CLIENT, prefix="10.0.1.0/24, ::/0")
    assert _fits(SERVER, prefix="fd00::9")
    assert not _fits(SERVER, prefix="fd00::1, 0.0.0.0/0")


def test_a_mapped_prefix_means_the_ipv4_one() -> None:
    assert _match(prefix="::ffff:10.0.0.0/104").prefix == (IPv4Network("10.0.0.0/8"),)
    assert _match(prefix="::/0").prefix == (IPv6Network("::/0"),)


def test_the_user_is_the_sockets() -> None:
    assert _fits(CLIENT, uid="999, 1000")
    assert not _fits(SERVER, uid="1000")
    assert _fits(SERVER, uid="root")


def test_an_unknown_user_fits_nobody() -> None:
    assert not _fits(replace(CLIENT, uid=None), uid=(0, 1000))
    assert _fits(replace(CLIENT, uid=0), uid=(0, 1000))


def test_a_unit_is_any_of_the_groups_from_the_root_down() -> None:
    assert _fits(CLIENT, unit="app-*.scope")
    assert _fits(CLIENT, unit="user-1000.slice")
    assert _fits(SERVER, unit="app-*.scope, firefox.service")
    assert not _fits(SERVER, unit="app-*.scope, Firefox.service, fox.service")


@pytest.mark.parametrize("cgroup", [None, 0, 9])
def test_an_unknown_unit_fits_no_glob(cgroup: int | None) -> None:
    assert not _fits(replace(CLIENT, cgroup=cgroup), unit="*")
    assert _fits(CLIENT, unit="*")


def test_the_units_are_asked_for_only_if_a_glob_and_a_group_are_there() -> None:
    asked: list[int] = []

    def ask(cgroup: int) -> tuple[str, ...]:
        asked.append(cgroup)
        return ()

    _match(port=443, uid=1000).fits(CLIENT, ask)
    _match(unit="*").fits(replace(CLIENT, cgroup=0), ask)
    assert asked == []

    _match(unit="*").fits(CLIENT, ask)
    assert asked == [7]


def test_the_side_is_ours() -> None:
    assert _fits(CLIENT, side="client")
    assert not _fits(CLIENT, side="server")
    assert _fits(SERVER, side="server")
    assert not _fits(SERVER, side="client")


def test_all_keys_must_fit() -> None:
    keys = {"port": 443, "prefix": "10.0.0.0/8", "uid": 1000, "unit": "app*", "side": "client"}
    others = {"port": 80, "prefix": "10.1.0.0/16", "uid": 1, "unit": "b*", "side": "server"}

    assert _fits(CLIENT, **keys)
    assert [key for key, other in others.items() if _fits(CLIENT, **(keys | {key: other}))] == []


def test_text_with_commas_lists_and_single_values_mean_the_same() -> None:
    assert _match(port="443, 8443") == _match(port=[443, "8443"]) == _match(port=(443, 8443))
    assert _match(port="443") == _match(port=443) == _match(port={443})
    assert _match(unit="a.service,b*") == _match(unit=("a.service", "b*"))
    assert _match(prefix="10.0.0.0/8") == _match(prefix=IPv4Network("10.0.0.0/8"))
    assert hash(_match(uid="root")) == hash(_match(uid=0))


def test_a_users_name_is_looked_up_once() -> None:
    name = pwd.getpwall()[1].pw_name

    assert _match(uid=f"root,{name}, 7").uid == (0, pwd.getpwnam(name).pw_uid, 7)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"port": 0}, "greater than or equal to 1"),
        ({"port": "65536"}, "less than or equal to 65535"),
        ({"port": "443,"}, "valid integer"),
        ({"port": ""}, "valid integer"),
        ({"port": list(range(1, 258))}, "at most 256 items"),
        ({"prefix": "10.0.0.1/8"}, "10.0.0.1/8 has host bits set"),
        ({"prefix": "10.0.0.0/8, home"}, "'home' does not appear to be an IPv4 or IPv6 network"),
        ({"prefix": 5}, "'5' does not appear"),
        ({"uid": "root, nosuch"}, "there is no user 'nosuch' on this machine"),
        ({"uid": "a\0b"}, "there is no user"),
        ({"uid": -1}, "greater than or equal to 0"),
        ({"uid": 0xFFFFFFFF}, "less than or equal to 4294967294"),
        ({"unit": "/system.slice/a.service"}, "without slashes"),
        ({"unit": ["a", ""]}, "at least 1 character"),
        ({"unit": 5}, "valid string"),
        ({"unit": "a" * 256}, "at most 255 characters"),
        ({"side": "both"}, "'client' or 'server'"),
        ({"sides": "client"}, "Extra inputs are not permitted"),
    ],
)
def test_what_has_no_meaning_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _match(**given)

    (error,) = caught.value.errors()
    assert words in error["msg"]
    assert error["loc"][0] == next(iter(given))


def test_a_match_does_not_change() -> None:
    match = _match(port=443)

    with pytest.raises(ValidationError, match="frozen"):
        match.port = (80,)


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        ({}, False),
        ({"port": 443, "prefix": "::/0", "side": "client"}, False),
        ({"uid": 0}, True),
        ({"unit": "*"}, True),
    ],
)
def test_the_user_is_needed_for_a_uid_and_for_a_unit(
    given: dict[str, object], needed: bool
) -> None:
    assert _match(**given).needs_user is needed


# Any match and any connection, against a plain model

PORTS = st.sampled_from([80, 443, 4000])
ADDRESSES = st.sampled_from(["10.0.1.1", "10.0.9.1", "10.1.0.1", "fd00::1", "fd01::1"])
PREFIXES = st.sampled_from(["10.0.0.0/16", "10.0.9.1", "10.1.0.0/24", "fd00::/16", "::/0"])
UIDS = st.sampled_from([0, 1000, 1001])
GLOBS = st.sampled_from(["*.service", "user.slice", "app-*", "nothing", "?"])
KEYS = st.fixed_dictionaries(
    {},
    optional={
        "port": st.lists(PORTS, max_size=2),
        "prefix": st.lists(PREFIXES, max_size=2),
        "uid": st.lists(UIDS, max_size=2),
        "unit": st.lists(GLOBS, max_size=2),
        "side": st.sampled_from(["client", "server", None]),
    },
)
CONNECTIONS = st.builds(
    Connection,
    number=st.just(1),
    token=st.just(2),
    four_tuple=st.builds(FourTuple, ADDRESSES, PORTS, ADDRESSES, PORTS),
    server_side=st.booleans(),
    deny_join_id0=st.booleans(),
    mapped=st.booleans(),
    uid=st.none() | UIDS,
    cgroup=st.sampled_from([None, 0, 7, 8, 9]),
)


def _model(keys: dict[str, Any], connection: Connection) -> bool:
    """Say the same in other words: collect what does not fit."""
    t = connection.four_tuple
    wrong = []
    if keys.get("port"):
        wrong.append(
            (t.local_port if connection.server_side else t.remote_port) not in keys["port"]
        )
    if keys.get("prefix"):
        remote = ip_address(t.remote_address)
        wrong.append(not [p for p in keys["prefix"] if remote in ip_network(p)])
    if keys.get("uid"):
        wrong.append(connection.uid is None or connection.uid not in keys["uid"])
    if keys.get("unit"):
        names = GROUPS.get(connection.cgroup or 0, ())
        wrong.append(not [1 for n in names for g in keys["unit"] if fnmatchcase(n, g)])
    if keys.get("side"):
        wrong.append(keys["side"] != ("server" if connection.server_side else "client"))
    return not any(wrong)


@given(KEYS, CONNECTIONS)
def test_any_match_agrees_with_the_model(keys: dict[str, Any], connection: Connection) -> None:
    assert _match(**keys).fits(connection, _units) == _model(keys, connection)

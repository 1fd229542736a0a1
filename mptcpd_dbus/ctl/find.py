"""From what people call a connection, a subflow or a plugin to the path of its object."""
# SPDX-License-Identifier: BSD-3-Clause

import re
from collections.abc import Collection, Mapping
from typing import Any

from mptcpd_dbus.bus.names import MANAGER, ROOT
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.ctl import things
from mptcpd_dbus.ctl.daemon import Daemon
from mptcpd_dbus.ctl.failure import FAILED, Failure, Misuse

_NUMBER = re.compile(rf"(?:{ROOT}/)?(connection/[1-9][0-9]*)", re.ASCII)
_TOKEN = re.compile(r"(?:0x)?([0-9a-f]{1,8})|[0-9]{1,10}", re.ASCII)
_SUBFLOW = re.compile(r"(.+?)/(?:subflow/)?([1-9][0-9]*)", re.ASCII)
_END = re.compile(r"(?:\[([^]]+)\]|([^]:]+)):([0-9]{1,5})", re.ASCII)


async def connection(daemon: Daemon, text: str) -> str:
    """Give the path of the connection that is called so."""
    return named(text, await daemon.read(ROOT, MANAGER, "ListConnections", "a{sv}uu", {}, 0, 0))


async def subflow(daemon: Daemon, text: str) -> str:
    """Give the path of the subflow that is called so."""
    name = read_subflow(text)
    if not isinstance(name, FourTuple):
        whose, number = name
        return f"{await connection(daemon, whose)}/subflow/{number}"
    for found in things.connections(await daemon.objects()):
        for its in found["subflows"]:
            if four_tuple(its) == name:
                return str(its["path"])
    raise Failure(FAILED, f"there is no subflow {text}; see `mptcpctl show`")


def named(text: str, connections: Collection[tuple[str, int]]) -> str:
    """Give the path of the only connection that is called so."""
    number, token = _NUMBER.fullmatch(text), _TOKEN.fullmatch(text.lower())
    if number:
        found = [(path, its) for path, its in connections if path == f"{ROOT}/{number[1]}"]
    elif token:
        digits = token[1]
        found = [
            (path, its)
            for path, its in connections
            if (digits and (f"{its:08x}".startswith(digits) or int(digits, 16) == its))
            or str(its) == text
        ]
    else:
        raise Misuse(
            f"{text!r} names no connection: give its token, as `mptcpctl list` shows it, or"
            " connection/17"
        )
    if not found:
        raise Failure(FAILED, f"there is no connection {text}; see `mptcpctl list`")
    if len(found) > 1:
        first = " or ".join(f"{its:08x}" for _, its in found[:3])
        more = ", ..." if len(found) > 3 else ""
        raise Failure(FAILED, f"{text} may be {first}{more}: type more of it")
    return found[0][0]


def read_subflow(text: str) -> tuple[str, str] | FourTuple:
    """Read what a subflow is called: the connection's name and its number, or its 4-tuple."""
    if (found := _SUBFLOW.fullmatch(text)) and not found[1].endswith("connection"):
        return found[1], found[2]
    for cut in (at for at, letter in enumerate(text) if letter == "-"):
        ends = [_END.fullmatch(end.strip()) for end in (text[:cut], text[cut + 1 :])]
        if ends[0] and ends[1]:
            local, remote = ((end[1] or end[2], int(end[3])) for end in ends if end)
            return FourTuple(*local, *remote)
    raise Misuse(
        f"{text!r} names no subflow: give CONNECTION/2 for the connection's number 2, or"
        " 10.0.1.1:4000-10.0.9.1:80"
    )


def four_tuple(thing: Mapping[str, Any]) -> FourTuple:
    """Give the ends of a connection or subflow."""
    return FourTuple(
        thing["local_address"], thing["local_port"], thing["remote_address"], thing["remote_port"]
    )


def plugin_path(name: str) -> str:
    """Give the path of a plugin, as the documentation of its property Name says."""
    if re.fullmatch(r"[A-Za-z0-9_]+", name):
        return f"{ROOT}/plugin/{name}"
    raw = name.encode()
    spelt = re.sub(rb"[^A-Za-z0-9]", lambda found: b"_%02x" % ord(found[0]), raw)
    return f"{ROOT}/plugin/_/{spelt.decode() or '_'}"

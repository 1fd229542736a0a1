"""Which connections a policy wants: one model for plugins, configuration, rules and the bus.

Every key that is given must fit, and of a key's values one; without any key everything fits.  What
is not known of a connection fits nothing.  Must not know where users and groups are read.
"""
# SPDX-License-Identifier: BSD-3-Clause

import pwd
from collections.abc import Callable
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from mptcpd_dbus.core.connections import Connection

T = TypeVar("T")
_MAX_VALUES = 256
_MAX_UID = (1 << 32) - 2  # the last number means "no user"
_MAPPED = 96  # bits of ::ffff:0:0, RFC 4291, section 2.5.5.2


def _several(given: object) -> object:
    """Read "443, 8443" as two values and a single value as one."""
    if isinstance(given, str):
        return [word.strip() for word in given.split(",")]
    return given if isinstance(given, list | tuple | set | frozenset) else [given]


def _network(given: object) -> IPv4Network | IPv6Network:
    network = ip_network(str(given))
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped and network.prefixlen >= _MAPPED:
        # An IPv4 peer of an IPv6 socket is shown as IPv4, so this would never fit.
        return IPv4Network((mapped, network.prefixlen - _MAPPED))
    return network


def _number(given: object) -> object:
    if isinstance(given, bool):
        raise ValueError("give a number")  # noqa: TRY004 # pydantic passes a TypeError on
    return given


def _user(given: object) -> object:
    if not isinstance(given, str) or given.isdecimal():
        return given
    try:
        return pwd.getpwnam(given).pw_uid
    except (KeyError, ValueError):
        raise ValueError(f"there is no user {given!r} on this machine") from None


def _glob(given: str) -> str:
    if "/" in given:
        raise ValueError(f"{given!r}: give the name of a unit or control group, without slashes")
    return given


_Several = Annotated[tuple[T, ...], BeforeValidator(_several), Field(max_length=_MAX_VALUES)]
_Port = Annotated[int, Field(ge=1, le=65535), BeforeValidator(_number)]
_Prefix = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
_Uid = Annotated[int, Field(ge=0, le=_MAX_UID), BeforeValidator(_number), BeforeValidator(_user)]
_Unit = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_glob)]


class Match(BaseModel):
    """What is asked of a connection; lists may be given as text with commas.

    `port` is the server's: of the remote end on the client side, of ours on the server side.
    `prefix` is of the remote address.  `uid` is the socket's owner, a user's name is looked up at
    once.  `unit` is a glob (fnmatch(3)) for the name of the socket's control group or of one above
    it: firefox.service, app-*.scope, user-1000.slice.  `side` is ours.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    port: _Several[_Port] = ()
    prefix: _Several[_Prefix] = ()
    uid: _Several[_Uid] = ()
    unit: _Several[_Unit] = ()
    side: Literal["client", "server"] | None = None

    @property
    def needs_user(self) -> bool:
        """Whether the connection's uid and control group must have been read before `fits`."""
        return bool(self.uid or self.unit)

    def fits(self, connection: Connection, unit_of: Callable[[int], tuple[str, ...]]) -> bool:
        """Whether *connection* is wanted; *unit_of* gives a control group's path by its ID."""
        return (
            (self.side is None or (self.side == "server") == connection.server_side)
            and (not self.port or _server_port(connection) in self.port)
            and (not self.uid or connection.uid in self.uid)
            and (not self.prefix or self._fits_prefix(connection))
            and (not self.unit or self._fits_unit(connection, unit_of))
        )

    def _fits_prefix(self, connection: Connection) -> bool:
        remote = ip_address(connection.four_tuple.remote_address)
        return any(remote in network for network in self.prefix)

    def _fits_unit(self, connection: Connection, unit_of: Callable[[int], tuple[str, ...]]) -> bool:
        if not connection.cgroup:
            return False
        names = unit_of(connection.cgroup)
        return any(fnmatchcase(name, glob) for name in names for glob in self.unit)


def _server_port(connection: Connection) -> int:
    t = connection.four_tuple
    return t.local_port if connection.server_side else t.remote_port

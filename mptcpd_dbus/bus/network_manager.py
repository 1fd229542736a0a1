"""What NetworkManager says of interfaces, on this bus: read again whenever some of it has changed.

It may come, go and hang: it is never started by us.  Only who owns its name is heard, for anybody
may send a signal, and only root is believed, should a bus let others have that name.  Its devices
are asked one by one, as all its objects in one answer would hold the loop.  Must not know what is
done with what it says.  Source: nm-dbus-interface.h, and
org.freedesktop.NetworkManager, .Device and .Connection.Active in its D-Bus reference.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from mptcpd_dbus.bus.error_names import ACCESS_DENIED, NAME_HAS_NO_OWNER, BusError
from mptcpd_dbus.bus.message import Incoming
from mptcpd_dbus.bus.names import DEVICES
from mptcpd_dbus.bus.signatures import is_path
from mptcpd_dbus.bus.transport import DBUS, DBUS_PATH, Transport
from mptcpd_dbus.core.network import Management
from mptcpd_dbus.core.readings import ManagementRead

SETTLE_SECONDS = 0.15
"""One activation is some 45 signals: they are waited for, and read as one."""

CALL_SECONDS, AGAIN_SECONDS = 5.0, 5.0
"""How long an answer may take, and when it is asked again after that."""

FIRST_SECONDS = 1.0
"""How long plugins wait for its first answer: it may hang, and hosts without it do not wait."""

NAME = "org.freedesktop.NetworkManager"
_PATH = "/org/freedesktop/NetworkManager"
_DEVICE = f"{NAME}.Device"
_ACTIVE = f"{NAME}.Connection.Active"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_RULES = (
    (
        f"type='signal',sender='{DBUS}',path='{DBUS_PATH}',interface='{DBUS}',"
        f"member='NameOwnerChanged',arg0='{NAME}'"
    ),
    *(
        f"type='signal',sender='{NAME}',interface='{_PROPERTIES}',"
        f"member='PropertiesChanged',arg0='{interface}'"
        for interface in (NAME, _DEVICE, _ACTIVE)
    ),
)
_NONE = "/"  # the path of no object
_LONGEST = 256  # characters of a text; the rest is cut off
_METERED = ("unknown", "yes", "no", "guess-yes", "guess-no")
_CONNECTIVITY = ("unknown", "none", "portal", "limited", "full")
_TYPES = (
    *("", "ethernet", "wifi", "3", "4", "bt", "olpc-mesh", "wimax", "modem", "infiniband", "bond"),
    *("vlan", "adsl", "bridge", "generic", "team", "tun", "ip-tunnel", "macvlan", "vxlan", "veth"),
    *("macsec", "dummy", "ppp", "ovs-interface", "ovs-port", "ovs-bridge", "wpan", "6lowpan"),
    *("wireguard", "wifi-p2p", "vrf", "loopback", "hsr"),
)

_log = logging.getLogger(__name__)
_T = TypeVar("_T", str, int, list[Any])


class NetworkManager:
    """Gives *take* what NetworkManager says, from the connection to the bus on until `stop`."""

    def __init__(self, transport: Transport, take: Callable[[ManagementRead], object]) -> None:
        self._transport = transport
        self._take = take
        self._owner = ""
        self._answers = True
        self._changed = asyncio.Event()
        self._asked = asyncio.Event()
        transport.on_signal(DBUS, "NameOwnerChanged", self._on_owner_changed)
        transport.on_signal(_PROPERTIES, "PropertiesChanged", self._on_properties_changed)
        self._following = asyncio.ensure_future(self._follow())

    async def asked(self) -> None:
        """Return when it has answered for the first time, will not, or takes too long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_SECONDS):
                await self._asked.wait()

    def stop(self) -> None:
        """Ask and tell nothing any more; what was said last stands until another bus says more."""
        self._following.cancel()

    def _on_owner_changed(self, message: Incoming) -> None:
        if message.sender == DBUS:
            name, _, owner = message.values()
            if name == NAME:
                self._owner = owner
                self._changed.set()

    def _on_properties_changed(self, message: Incoming) -> None:
        if message.sender == self._owner:
            self._changed.set()

    async def _watch(self) -> str:
        """Hear of it from now on, however long the bus takes for that; give who it is."""
        while True:
            try:
                for rule in _RULES:
                    await self._transport.call(DBUS, DBUS_PATH, DBUS, "AddMatch", "s", rule)
                return await self._present_owner()
            except TimeoutError:
                _log.info("the bus did not answer for NetworkManager, which is tried again")

    async def _follow(self) -> None:
        try:
            owner = await self._watch()
        except BusError as error:
            _log.warning("NetworkManager cannot be watched: %s", error)
            self._asked.set()
            return
        if not self._changed.is_set():  # else a signal has told who, and later
            self._owner = owner
        while not self._transport.disconnected.done():
            self._changed.clear()
            try:
                await self._read()
                self._answers = True
            except (BusError, TimeoutError) as error:
                if self._answers:
                    _log.info("NetworkManager does not answer: %r", error)
                self._answers = False
                asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._changed.set)
            self._asked.set()
            await self._changed.wait()
            await asyncio.sleep(SETTLE_SECONDS)

    async def _present_owner(self) -> str:
        try:
            (owner,) = await self._transport.call(DBUS, DBUS_PATH, DBUS, "GetNameOwner", "s", NAME)
        except BusError as error:
            if error.name != NAME_HAS_NO_OWNER:
                raise
            return ""
        return str(owner)

    async def _read(self) -> None:
        owner, found = self._owner, dict[str, Management]()
        if owner:
            await self._check_root(owner)
            manager = await self._properties(owner, _PATH, NAME)
            primary = _get(manager, "PrimaryConnection", _NONE)
            for path in _get(manager, "Devices", [])[:DEVICES]:
                with suppress(BusError):  # it is gone, and a signal tells
                    device = await self._properties(owner, path, _DEVICE)
                    name = _get(device, "IpInterface", "") or _get(device, "Interface", "")
                    found[name] = await self._management(owner, device, primary)
        if owner == self._owner:
            self._take(ManagementRead(found))

    async def _check_root(self, owner: str) -> None:
        (uid,) = await self._transport.call(
            DBUS, DBUS_PATH, DBUS, "GetConnectionUnixUser", "s", owner
        )
        if uid != 0:
            self._take(ManagementRead({}))
            raise BusError(ACCESS_DENIED, f"only root is believed, and uid {uid} has its name")

    async def _management(self, owner: str, device: dict[str, Any], primary: str) -> Management:
        active = _get(device, "ActiveConnection", _NONE)
        profile = {} if active == _NONE else await self._properties(owner, active, _ACTIVE)
        reached = (_get(device, f"Ip{family}Connectivity", 0) for family in (4, 6))
        kind = _get(device, "DeviceType", 0)
        return Management(
            managed=device.get("Managed") is True,
            metered=_word(_METERED, _get(device, "Metered", 0), "unknown"),
            connectivity=_word(_CONNECTIVITY, max(reached), "unknown"),
            primary=active == primary != _NONE,
            device_type=_word(_TYPES, kind, str(kind)),
            connection_id=_get(profile, "Id", ""),
        )

    async def _properties(self, owner: str, path: object, interface: str) -> dict[str, Any]:
        if not isinstance(path, str) or not is_path(path):
            return {}
        answer = await self._transport.call(
            owner, path, _PROPERTIES, "GetAll", "s", interface, timeout=CALL_SECONDS
        )
        return answer[0] if answer and isinstance(answer[0], dict) else {}


def _get(values: dict[str, Any], key: str, default: _T) -> _T:
    """Give a value if it has the type of the *default*, and no more of a text than we keep."""
    value = values.get(key)
    if type(value) is not type(default):
        return default
    return value[:_LONGEST] if isinstance(value, str) else value


def _word(words: tuple[str, ...], number: int, default: str) -> str:
    return words[number] if 0 <= number < len(words) else default

"""One object as the bus sees it: its interfaces compiled, its last published values, its bytes.

InterfacesAdded has in its body what GetManagedObjects has in its array for the object, and both
are aligned alike, so one marshalling serves both until a property changes.
"""
# SPDX-License-Identifier: BSD-3-Clause

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

from mptcpd_dbus.bus.flat import encode_entries
from mptcpd_dbus.bus.interface import Interface, Method, Property
from mptcpd_dbus.bus.signatures import WireError
from mptcpd_dbus.bus.wire import (
    PackAll,
    align8,
    begin_array,
    encode,
    end_array,
    entry_prefix,
)

_log = logging.getLogger(__name__)


class _Missing:
    """The value of a property whose getter failed: it is left out."""

    def __bool__(self) -> bool:
        raise TypeError("it is not known")  # or it would be packed as true


_MISSING = _Missing()
_pack_path = encode("o")
_pack_text = encode("s")


class CompiledMethod:
    """A method with its signatures ready."""

    __slots__ = ("interface", "method", "pack_results", "result_signature", "signature")

    def __init__(self, interface: str, method: Method) -> None:
        self.interface = interface
        self.method = method
        self.signature = method.signature
        self.result_signature = method.result_signature
        self.pack_results: PackAll = encode(self.result_signature)


class CompiledInterface:
    """An interface with its packers and tables ready."""

    def __init__(self, interface: Interface) -> None:
        self.interface = interface
        self.name = interface.name
        self.properties = {prop.name: prop for prop in interface.properties}
        self.methods = {
            method.name: CompiledMethod(interface.name, method) for method in interface.methods
        }
        self._packers = [
            (prop.name, entry_prefix(prop.name, prop.signature), encode(prop.signature))
            for prop in interface.properties
        ]
        self._pack_all = encode_entries(
            [(prop.name, prop.signature) for prop in interface.properties]
        )
        self._changing = [
            index for index, prop in enumerate(interface.properties) if prop.changes == "true"
        ]
        self._complained: set[str] = set()
        self.volatile = any(prop.changes == "false" for prop in interface.properties)

    def read(self, target: object) -> list[Any]:
        """Read all properties; a getter that fails costs its own property only."""
        return [self._read_one(prop, target) for prop in self.interface.properties]

    def _read_one(self, prop: Property, target: object) -> Any:
        try:
            return prop.getter(target)
        except Exception as error:  # noqa: BLE001  a getter must not break its neighbours
            self._complain(prop.name, error)
            return _MISSING

    def _complain(self, name: str, error: Exception) -> None:
        """Say once what is wrong with a property: whoever reads it must not fill the log."""
        if name not in self._complained:
            self._complained.add(name)
            _log.error("property %s.%s is left out", self.name, name, exc_info=error)

    def pack_properties(
        self, buf: bytearray, values: Sequence[Any], indices: Sequence[int]
    ) -> None:
        """Pack `a{sv}` of the properties at *indices*."""
        at = begin_array(buf)
        self._pack_some(buf, values, indices)
        end_array(buf, at)

    def pack_entries(self, buf: bytearray, values: Sequence[Any]) -> None:
        """Pack the entries of all properties without their array."""
        try:
            packed = self._pack_all(values)
        except WireError:  # one of them is not to be had, or is not what it should be
            self._pack_some(buf, values, range(len(values)))
        else:
            if packed:
                align8(buf)
                buf += packed

    def _pack_some(self, buf: bytearray, values: Sequence[Any], indices: Sequence[int]) -> None:
        for index in indices:
            if values[index] is _MISSING:
                continue
            name, prefix, pack = self._packers[index]
            before = len(buf)
            align8(buf)
            buf += prefix
            try:
                pack(buf, (values[index],))
            except WireError as error:
                self._complain(name, error)
                del buf[before:]

    def changed(self, old: Sequence[Any], new: Sequence[Any]) -> list[int]:
        """Which properties, of those that are announced at all, differ."""
        return [index for index in self._changing if old[index] != new[index]]


@cache
def compiled(interface: Interface) -> CompiledInterface:
    """Return the tables of *interface*, which are made once."""
    return CompiledInterface(interface)


class Published:
    """An object of ours on the bus."""

    __slots__ = ("announced", "entry", "interfaces", "path", "size", "target", "values")

    def __init__(self, path: str, target: object, interfaces: Sequence[Interface]) -> None:
        self.path = path
        self.target = target
        self.interfaces = tuple(compiled(interface) for interface in interfaces)
        self.announced = False
        self.values: list[list[Any]] = []
        self.entry = b""  # not built yet
        self.size = 0

    @property
    def volatile(self) -> bool:
        """Whether a property changes without a word, so that the entry cannot be kept."""
        return any(interface.volatile for interface in self.interfaces)

    def refresh(self) -> None:
        """Take the present values for the published ones."""
        self.values = [interface.read(self.target) for interface in self.interfaces]
        self.entry = b""

    def marshal(self) -> bytes:
        """Return the entry of this object: `o` and `a{sa{sv}}` in `size` bytes, then padding."""
        if not self.entry:
            buf = bytearray()
            _pack_path(buf, (self.path,))
            at = begin_array(buf)
            for interface, values in zip(self.interfaces, self.values, strict=True):
                align8(buf)
                _pack_text(buf, (interface.name,))
                entries_at = begin_array(buf)
                interface.pack_entries(buf, values)
                end_array(buf, entries_at)
            end_array(buf, at)
            self.size = len(buf)
            align8(buf)
            self.entry = bytes(buf)
        return self.entry

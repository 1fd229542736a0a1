"""A client in memory, which knows of objects what the signals have told, and a bus to it.

It believes nothing: what cannot be, as an object that goes and was never there, fails the test.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable, Sequence
from typing import Any

from mptcpd_dbus.bus.message import Incoming, parse, read_head
from mptcpd_dbus.bus.names import ROOT

Objects = dict[str, dict[str, dict[str, Any]]]


class Replay:
    """What a client that has read all objects once makes of the signals after that."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.deaf = False
        """Whether signals were dropped: it believes none until it has read all objects again."""
        self.told = False
        """Whether it was told so."""

    def hear(self, data: bytes) -> None:
        """Take one message in."""
        head = read_head(data, 0)
        assert head.total == len(data)
        signal = parse(head, data)
        match signal.member:
            case "SignalsDropped":
                self.told = True
            case _ if self.deaf:
                pass
            case "InterfacesAdded":
                path, interfaces = signal.values()
                assert path not in self.objects, f"{path} came twice"
                self.objects[path] = interfaces
            case "PropertiesChanged":
                self._change(signal)
            case "InterfacesRemoved":
                path, names = signal.values()
                assert sorted(self.objects.pop(path)) == sorted(names)
            case _:
                assert signal.path == ROOT

    def _change(self, signal: Incoming) -> None:
        interface, changed, invalidated = signal.values()
        assert changed
        assert not invalidated
        if signal.path != ROOT:
            known = self.objects[signal.path][interface]
            assert all(known.get(name) != value for name, value in changed.items())
            known |= changed


class Wire:
    """In the place of `Transport`: what is sent is heard at once, or dropped while it is `full`."""

    def __init__(self) -> None:
        self.full = False
        self.signals_dropped = self.ignored = 0
        self.muted: dict[bytes, bool] = {}
        self.on_call: Callable[[Incoming], None] | None = None
        self.client: Replay | None = None
        self._serial = 0

    def on_signal(self, *_: object) -> None:
        """Hear nothing from the bus."""

    async def taken(self) -> None:
        """Have taken everything."""

    def next_serial(self) -> int:
        """Count."""
        self._serial += 1
        return self._serial

    def send_signals(self, signals: Sequence[bytes | bytearray]) -> None:
        """Hear them."""
        if self.full:
            self.signals_dropped += len(signals)
            if self.client is not None:
                self.client.deaf = True
            return
        for data in signals:
            self.send(data)

    def send(self, data: bytes | bytearray) -> None:
        """Hear it: this is never dropped."""
        if self.client is not None:
            self.client.hear(bytes(data))

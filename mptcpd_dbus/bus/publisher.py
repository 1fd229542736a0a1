"""From changes of the state to signals and objects on the bus; it decides nothing."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Mapping

from mptcpd_dbus.bus.interface import Interface
from mptcpd_dbus.bus.objects import ObjectTree
from mptcpd_dbus.bus.paths import path_of
from mptcpd_dbus.bus.signals import SIGNALS, SIGNALS_DROPPED
from mptcpd_dbus.core import events
from mptcpd_dbus.core.state import Change, State, Thing


class Publisher:
    """Shows every thing of the state with the interface of its kind."""

    def __init__(
        self, tree: ObjectTree, state: State, interfaces: Mapping[type, Interface]
    ) -> None:
        self._tree = tree
        self._interfaces = {kind: (interface,) for kind, interface in interfaces.items()}
        self._manager = manager = interfaces[State]
        self._signals = {
            kind: tree.event_signal(manager, signal, values)
            for kind, (signal, values) in SIGNALS.items()
        }
        for thing in state.everything():
            self._add(thing)

    def tell(self, event: events.Event, change: Change) -> None:
        """Queue *event*'s signal."""
        self._signals[type(event)](event, change)

    def show(self, change: Change) -> None:
        """Make the objects what *change* made the things."""
        tree = self._tree
        for thing in change.removed:
            tree.remove(path_of(thing))
        for thing in change.added:
            self._add(thing)
        for thing in change.changed:
            tree.changed(path_of(thing))

    def dropped(self, count: int) -> None:
        """Tell that the bus got *count* signals less so far; it gets the next ones again."""
        self._tree.tell_now(self._manager, SIGNALS_DROPPED, count)

    def flush(self) -> None:
        """Send what has come together."""
        self._tree.flush()

    def _add(self, thing: Thing) -> None:
        self._tree.add(path_of(thing), thing, self._interfaces[type(thing)])

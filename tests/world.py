"""An engine on the kernel in memory, and a publisher that writes down what it hears."""
# SPDX-License-Identifier: BSD-3-Clause

from typing import TypeVar

from mptcpd_dbus.core import events
from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.state import Change, State
from mptcpd_dbus.core.subflow_wish import SubflowWish
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.engine import Engine
from mptcpd_dbus.testing import FakeKernel

T = TypeVar("T")

TOKEN = 0xA889FAD4
FIRST = FourTuple("10.0.1.1", 4000, "10.0.9.1", 80)
SECOND_ADDRESS = "10.0.2.1"
WISH = SubflowWish(local_address=SECOND_ADDRESS)


class World:
    """What happens on `kernel` passes the engine at once, as if its socket were always read."""

    def __init__(self, settle_time: float = 0) -> None:
        self.kernel = FakeKernel()
        self.state = State()
        self.engine = Engine(self.state, self.kernel, settle_time)
        self.pm = self.engine.pm
        self.kernel.on_event = self.engine.take
        self.engine.attach(self)
        self.heard: list[events.Event] = []
        self.shown: list[Change] = []
        self.flushes = 0

    def tell(self, event: events.Event, _: Change) -> None:
        """Write down a signal."""
        self.heard.append(event)

    def show(self, change: Change) -> None:
        """Write down what became of objects."""
        self.shown.append(change)

    def flush(self) -> None:
        """Count."""
        self.flushes += 1

    def connect(
        self,
        token: int = TOKEN,
        four_tuple: FourTuple = FIRST,
        *,
        server_side: bool = False,
        userspace: bool = True,
        deny_join_id0: bool = False,
        mapped: bool = False,
    ) -> Connection:
        """Let an application connect; give the connection as the state has it, complete."""
        self.kernel.connect(
            token,
            four_tuple,
            server_side=server_side,
            userspace=userspace,
            deny_join_id0=deny_join_id0,
            mapped=mapped,
        )
        self.engine.settle()
        return self.state.connections[token]

    def link(self, index: int, name: str, *addresses: str, kind: str = "ether") -> None:
        """Give the host an interface with addresses."""
        self.engine.take(events.NewInterface(index, name, kind, up=True, running=True))
        for address in addresses:
            self.engine.take(events.NewLocalAddress(index, address, 24))

    def executed(self, kind: type[T]) -> list[T]:
        """Give the commands of one kind that reached the kernel."""
        return [command for command in self.kernel.executed if isinstance(command, kind)]

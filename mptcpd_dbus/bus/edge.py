"""The bus edge as a whole: put together, shown the state, and put together anew when the bus goes.

Path management does not stop without a bus, and the bus does not stop for ever: it is restarted, or
(dbus-daemon) it reads nothing more of a service once 127 MiB of its messages wait for clients that
do not read; a new connection cures that.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
from collections.abc import Callable
from itertools import chain, repeat
from typing import Any, NoReturn

from mptcpd_dbus.bus.authority import Authority
from mptcpd_dbus.bus.contract import contract
from mptcpd_dbus.bus.error_names import ACCESS_DENIED, DISCONNECTED, BusError
from mptcpd_dbus.bus.interface import Call
from mptcpd_dbus.bus.names import BUS_NAME
from mptcpd_dbus.bus.network_manager import NetworkManager
from mptcpd_dbus.bus.objects import ObjectTree
from mptcpd_dbus.bus.paths import connection_number
from mptcpd_dbus.bus.peers import Peers
from mptcpd_dbus.bus.polkit import Polkit
from mptcpd_dbus.bus.programs import Programs
from mptcpd_dbus.bus.publisher import Publisher
from mptcpd_dbus.bus.service_manager import comes_back
from mptcpd_dbus.bus.transport import Transport
from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.errors import NotReady
from mptcpd_dbus.engine import Engine
from mptcpd_dbus.policy_protocol import Policies

_TAKEN = f"the name {BUS_NAME} is taken: is another mptcpd-dbus running?"
_RETRIES = (0.1, 0.2, 0.5)  # seconds between attempts, the last one again and again
_FORMER_ATTEMPTS = 20  # while the name is still that of our former connection

_log = logging.getLogger(__name__)


class BusEdge:
    """One connection after another to the bus at *address*, each showing all of the state."""

    def __init__(
        self,
        address: str,
        engine: Engine,
        features: tuple[str, ...],
        policies: Policies,
        *,
        by_socket: Callable[[int], Connection],
        catch_up: Callable[[], None],
        signal_budget: int,
    ) -> None:
        self._address = address
        self._signal_budget = signal_budget
        self._engine = engine
        self._features = features
        self._policies = policies
        self._by_socket = by_socket
        self._catch_up = catch_up
        self._owner = ""
        """What we were called when the name was last ours."""
        self._transport: Transport
        self._peers: Peers
        self._programs: Programs
        self._tree: ObjectTree
        self._network_manager: NetworkManager

    async def connect(self) -> None:
        """Connect, and show everything; nobody finds us before `claim`."""
        try:
            transport = Transport(self._address, signal_budget=self._signal_budget)
            await transport.connect()
        except (OSError, ValueError) as error:
            raise NotReady(
                f"cannot reach the bus {self._address!r}: {error}; is dbus running?"
            ) from error
        state = self._engine.state
        self._transport = transport
        self._peers = Peers(transport)
        engine = self._engine
        self._programs = programs = Programs(
            transport, self._peers, self._policies, state.network.index_of, self._programs_told
        )
        authority = Authority(Polkit(transport, self._peers), programs)
        self._tree = ObjectTree(transport, self._peers, authority.check, self._prepare)
        self._tree.at_end = programs.flush
        self._tree.before_all = engine.announce_all

        def own(call: Call, descriptor: int) -> Connection:
            connection = self._by_socket(descriptor)
            authority.prove(call, connection)
            engine.announce_now(connection.number)
            return connection

        interfaces = contract(
            state,
            engine.pm,
            self._policies,
            programs,
            features=self._features,
            counters=self.counters,
            own=own,
            announce=engine.announce_all,
        )
        publisher = Publisher(self._tree, state, interfaces)
        transport.on_dropped = lambda: publisher.dropped(transport.signals_dropped)
        self._engine.attach(publisher)
        self._network_manager = NetworkManager(transport, self._engine.take)

    def _prepare(self, path: str) -> None:
        """Let a caller see what has happened before the call, and the connection it is about."""
        self._catch_up()
        self._engine.announce_now(connection_number(path))

    def _programs_told(self, pictures: tuple[Any, ...]) -> None:
        """Show the objects what programs are told, before they hear of it."""
        number = getattr(pictures[0], "number", 0) if pictures else 0
        if number:
            self._engine.announce(number)
        else:
            self._engine.settle_soon()

    async def look_around(self) -> None:
        """Raise NotReady if another daemon has the name already, and hear what NetworkManager says.

        What plugins do at their start may depend on it.
        """
        try:
            taken = await self._transport.name_has_owner(BUS_NAME)
        except TimeoutError as error:
            raise BusError(DISCONNECTED, "the bus does not answer") from error
        if taken:
            raise NotReady(_TAKEN)
        await self._network_manager.asked()

    async def claim(self) -> None:
        """Own the name: whoever sees it sees all objects."""
        self._tree.start()
        try:
            ours = await self._own()
        except TimeoutError as error:
            raise BusError(DISCONNECTED, f"the bus does not answer for {BUS_NAME}") from error
        except BusError as error:
            if error.name != ACCESS_DENIED:
                raise
            raise NotReady(
                f"the bus does not let us own {BUS_NAME}; is {BUS_NAME}.conf installed in its"
                " system.d?"
            ) from error
        if not ours:
            raise NotReady(_TAKEN)
        self._owner = self._transport.unique_name

    async def _own(self) -> bool:
        """Own the name unless it is another's; ours is let go when the bus sees that we have left.

        One that has hung looks at who comes first and at who has gone later.
        """
        for pause in chain(_RETRIES, repeat(_RETRIES[-1], _FORMER_ATTEMPTS)):
            if await self._transport.request_name(BUS_NAME):
                return True
            if await self._transport.name_owner(BUS_NAME) not in ("", self._owner):
                return False
            await asyncio.sleep(pause)
        return False

    async def comes_back(self) -> bool:
        """Whether the service manager stops us only to start us again."""
        return await comes_back(self._transport)

    async def keep(self) -> NoReturn:
        """Connect again whenever the bus has gone; raise NotReady if the name is another's then."""
        while True:
            why = await asyncio.shield(self._transport.disconnected)
            _log.warning("the bus went (%s); path management goes on without it", why)
            self.close()
            self._programs.stop()
            for pause in chain(_RETRIES, repeat(_RETRIES[-1])):
                await asyncio.sleep(pause)
                try:
                    await self.connect()
                except NotReady as error:
                    _log.debug("%s", error)
                else:
                    break
            try:
                await self.claim()
            except BusError as error:
                self._transport.disconnect(str(error))  # so once more from the beginning
            else:
                _log.info("back on the bus as %s", BUS_NAME)

    def close(self) -> None:
        """Leave the bus."""
        self._engine.attach(None)
        self._network_manager.stop()
        self._tree.stop()
        self._peers.stop()
        self._transport.disconnect()

    def counters(self) -> dict[str, int]:
        """Give the daemon's own counters."""
        state = self._engine.state
        return {
            "connections": len(state.connections),
            "connections_seen": state.connections_seen,
            "events_lost": state.events_lost,
            "sweeps": self._engine.sweeps,
            "signals_dropped": self._transport.signals_dropped,
            "calls_refused": self._peers.refused,
        }

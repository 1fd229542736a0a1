"""Wires the two edges to the engine, starts them in the order that loses nothing, and stops them.

Whoever sees the bus name sees complete state: the event socket is opened first, then everything is
read, then the events that came meanwhile, then the name is claimed.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
import signal
from contextlib import AsyncExitStack

from mptcpd_dbus import __version__, systemd
from mptcpd_dbus.bus.edge import BusEdge
from mptcpd_dbus.bus.names import BUS_NAME
from mptcpd_dbus.config import Settings
from mptcpd_dbus.core.state import State
from mptcpd_dbus.engine import Engine
from mptcpd_dbus.event_reader import EventReader
from mptcpd_dbus.kernel.event_socket import EventSocket
from mptcpd_dbus.kernel.features import features
from mptcpd_dbus.kernel.live import LiveKernel
from mptcpd_dbus.kernel.rtnl import RouteMonitor
from mptcpd_dbus.reconciler import Reconciler

_log = logging.getLogger(__name__)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; raise NotReady when the daemon cannot start or go on."""
    async with AsyncExitStack() as stack:
        ending: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        _end_on_signals(ending)

        socket = EventSocket(settings.netlink_buffer)
        stack.callback(socket.close)
        kernel = LiveKernel()
        stack.callback(kernel.close)
        engine = Engine(State(), kernel)
        reader = EventReader(socket, engine)
        reconciler = Reconciler(engine, reader.drain)
        reader.on_lost = reconciler.events_lost

        routes = RouteMonitor(engine.take, settings.netlink_buffer)
        await routes.start()
        stack.push_async_callback(routes.close)
        await reconciler.compare()
        reader.start()
        stack.callback(reader.stop)
        for refused in engine.pm.adopt_announced():
            _log.warning("joins to an announced address will fail: %s", refused)
        reader.drain()  # our own listeners are no news to who asks after the start

        found = features(kernel.settings())
        for feature in (name for name, there in found.items() if not there):
            _log.warning("this kernel has no %s", feature)
        bus = BusEdge(settings.bus, engine, tuple(name for name, there in found.items() if there))
        await bus.connect()
        stack.callback(bus.close)
        await bus.claim()
        count = len(engine.state.connections)
        _log.info("mptcpd-dbus %s serves %s; %d connections", __version__, BUS_NAME, count)
        systemd.notify("READY=1", f"STATUS=Serving {BUS_NAME}")

        for work in (reconciler.run(), bus.keep(), systemd.feed_watchdog()):
            task: asyncio.Future[None] = asyncio.ensure_future(work)
            stack.callback(task.cancel)
            task.add_done_callback(lambda task: _end_on_failure(task, ending))
        why = await ending
        systemd.notify("STOPPING=1")
        _log.info("stopping (%s); connections live on, and the next start finds them", why)


def _end_on_signals(ending: asyncio.Future[str]) -> None:
    def end(why: str) -> None:
        if not ending.done():
            ending.set_result(why)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end, number.name)


def _end_on_failure(task: asyncio.Future[None], ending: asyncio.Future[str]) -> None:
    if not task.cancelled() and not ending.done():
        error = task.exception()
        if error is not None:
            ending.set_exception(error)

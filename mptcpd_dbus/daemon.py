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
from mptcpd_dbus.bus.error_names import BusError
from mptcpd_dbus.bus.names import BUS_NAME
from mptcpd_dbus.config import Settings
from mptcpd_dbus.core.errors import NotReady
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
    loop = asyncio.get_running_loop()
    serving = asyncio.ensure_future(_serve(settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel, number.name)
    try:
        await serving
    except asyncio.CancelledError as stopped:
        why = ", ".join(map(str, stopped.args)) or "cancelled"
        _log.info("stopped (%s); connections live on, and the next start finds them", why)


async def _serve(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        socket = EventSocket(settings.netlink_buffer)
        stack.callback(socket.close)
        kernel = LiveKernel()
        stack.callback(kernel.close)
        engine = Engine(State(), kernel)
        reader = EventReader(socket, engine)
        reconciler = Reconciler(engine, reader.drain)
        reader.on_lost = reconciler.events_lost

        routes = RouteMonitor(engine.take, settings.netlink_buffer)
        stack.push_async_callback(routes.close)
        await routes.start()
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
        try:
            await bus.claim()
        except BusError as error:
            raise NotReady(f"the bus failed while we started: {error}") from error
        count = len(engine.state.connections)
        _log.info("mptcpd-dbus %s serves %s; %d connections", __version__, BUS_NAME, count)
        systemd.notify("READY=1", f"STATUS=Serving {BUS_NAME}")
        stack.callback(systemd.notify, "STOPPING=1")
        work = (reconciler.run(), bus.keep(), systemd.feed_watchdog())
        tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
        for task in tasks:
            stack.callback(task.cancel)
        await asyncio.gather(*tasks)

"""Wires the two edges to the engine, starts them in the order that loses nothing, and stops them.

Whoever sees the bus name sees complete state: the event socket is opened first, then everything is
read, then the events that came meanwhile, then the name is claimed.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
import os
import signal
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import NoReturn

from mptcpd_dbus import __version__, systemd
from mptcpd_dbus.bus.edge import BusEdge
from mptcpd_dbus.bus.error_names import BusError
from mptcpd_dbus.bus.names import BUS_NAME
from mptcpd_dbus.choice import Choice
from mptcpd_dbus.config import Settings
from mptcpd_dbus.core.errors import MptcpdError, NotReady
from mptcpd_dbus.core.state import State
from mptcpd_dbus.engine import Engine
from mptcpd_dbus.event_reader import EventReader
from mptcpd_dbus.kernel import sysctl
from mptcpd_dbus.kernel.event_socket import EventSocket
from mptcpd_dbus.kernel.features import features
from mptcpd_dbus.kernel.listeners import may_listen
from mptcpd_dbus.kernel.live import LiveKernel
from mptcpd_dbus.kernel.rtnl import RouteMonitor
from mptcpd_dbus.policy.host import PolicyHost
from mptcpd_dbus.policy.source import open_source
from mptcpd_dbus.policy.watch import Watch
from mptcpd_dbus.reconciler import Reconciler
from mptcpd_dbus.summary import summary

_LISTENS = {
    True: "it may listen on announced addresses",
    False: "it may not listen: announce with Listener=false",
}

_log = logging.getLogger(__name__)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; raise NotReady when the daemon cannot start or go on."""
    loop = asyncio.get_running_loop()
    reload = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    serving = asyncio.ensure_future(_serve(settings, reload))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel, number.name)
    try:
        await serving
    except asyncio.CancelledError as stopped:
        why = ", ".join(map(str, stopped.args)) or "cancelled"
        _log.info("stopped (%s); connections live on, and the next start finds them", why)


async def _serve(settings: Settings, reload: asyncio.Event) -> None:
    async with AsyncExitStack() as stack:
        socket = EventSocket(settings.netlink_buffer)
        stack.callback(socket.close)
        kernel = LiveKernel()
        stack.callback(kernel.close)
        if not kernel.settings().enabled:
            raise NotReady("MPTCP is off in this network namespace: sysctl net.mptcp.enabled=1")
        engine = Engine(State(), kernel, settings.settle_time / 1000)
        stack.push(partial(_give_up, engine.pm.choice))
        engine.pm.choice.recall(_kept("path-manager"))
        reader = EventReader(socket, engine)
        reconciler = Reconciler(engine, reader.drain)
        reader.on_lost = reconciler.events_lost

        routes = RouteMonitor(engine.take, settings.netlink_buffer)
        stack.push_async_callback(routes.close)
        await routes.start()
        await reconciler.compare()
        if (file := _kept("own-endpoints")) is not None:
            engine.pm.own_endpoints.recall(file)
        reader.start()
        stack.callback(reader.stop)
        for refused in engine.pm.adopt_announced():
            _log.warning("joins to an announced address will fail: %s", refused)
        reader.drain()  # our own listeners are no news to who asks after the start

        watch = Watch(_kept("plugin-at-work"))
        policies = PolicyHost(engine, settings, lambda s: open_source(s, watch), watch)
        found = features(kernel.settings())
        for feature in (name for name, there in found.items() if not there):
            _log.info("this kernel has no %s", feature)
        there = tuple(name for name, there in found.items() if there)
        bus = BusEdge(
            settings.bus,
            engine,
            there,
            policies,
            by_socket=reconciler.by_socket,
            catch_up=reader.catch_up,
            signal_budget=settings.signal_budget,
        )
        try:
            await bus.connect()
            stack.callback(bus.close)
            await bus.look_around()  # before plugins do anything
            stack.push_async_callback(_hand_over, engine.pm.choice, bus)
            engine.pm.choice.follow(settings.kernel_path_manager)
            engine.steer_by(policies)
            stack.push_async_callback(policies.stop)
            await policies.start()
            await bus.claim()
        except BusError as error:
            raise NotReady(f"the bus failed while we started: {error}") from error
        status = partial(summary, engine.state)
        _log.info(
            "mptcpd-dbus %s serves %s; %s; %s",
            __version__,
            BUS_NAME,
            status(),
            _LISTENS[may_listen()],
        )
        systemd.notify("READY=1", f"STATUS={status()}")
        stack.callback(systemd.notify, "STOPPING=1")
        work = (
            *(reconciler.run(), bus.keep()),
            *(systemd.feed_watchdog(status, reconciler.awake), _reload(policies, reload)),
        )
        tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
        for task in tasks:
            stack.callback(task.cancel)
        await asyncio.gather(*tasks)


def _give_up(choice: Choice, kind: type[BaseException] | None, *_: object) -> None:
    """Put the kernel's path manager back."""
    if kind is asyncio.CancelledError:
        choice.stop()
    else:
        choice.fail()


async def _hand_over(choice: Choice, bus: BusEdge) -> None:
    """Leave the kernel's path manager as it is if we are stopped to be started again."""
    if choice.is_ours and await bus.comes_back():
        choice.leave()


def put_back() -> None:
    """Put the kernel's path manager back, which another daemon has left to one that failed."""
    choice = Choice(sysctl.read_settings, sysctl.set_path_manager)
    choice.recall(_kept("path-manager"))
    choice.fail()


def _kept(name: str) -> Path | None:
    """Give a file that outlives the daemon until the next boot, if the service manager keeps any.

    See RuntimeDirectory= in systemd.exec(5).
    """
    directory = os.environ.get("RUNTIME_DIRECTORY")
    return Path(directory, name) if directory else None


async def _reload(policies: PolicyHost, wanted: asyncio.Event) -> NoReturn:
    """Read the configuration again whenever that is *wanted*, and tell the service manager."""
    while True:
        await wanted.wait()
        wanted.clear()
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        systemd.notify("RELOADING=1", f"MONOTONIC_USEC={now}")
        try:
            await policies.reload_configuration()
            _log.info("the configuration was read again")
        except MptcpdError as error:
            _log.error("the old configuration stays in force: %s", error)
        finally:
            systemd.notify("READY=1")

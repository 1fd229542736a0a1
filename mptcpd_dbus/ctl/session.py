"""One command from beginning to end: its module is found, the bus connected, errors explained."""
# SPDX-License-Identifier: BSD-3-Clause

from importlib import import_module

from mptcpd_dbus.bus.error_names import BusError
from mptcpd_dbus.ctl.daemon import Daemon
from mptcpd_dbus.ctl.explain import explain
from mptcpd_dbus.ctl.output import Output
from mptcpd_dbus.ctl.parser import Call


async def run(call: Call) -> None:
    """Run the command; whatever goes wrong is a Failure."""
    module, _, function = call.command.run.partition(":")
    command = getattr(import_module(f"mptcpd_dbus.ctl.{module}"), function)
    out = Output(as_json="json" in call.given)
    bus, ask = call.given.get("bus", "system"), "no-ask-password" not in call.given
    try:
        async with Daemon.at(bus, ask_password=ask) as daemon:
            await command(daemon, call.given, out)
    except (BusError, TimeoutError) as error:
        raise explain(error) from error

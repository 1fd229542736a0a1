"""The command run-plugin: a plugin's file as a program that decides for connections."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from mptcpd_dbus.bus.error_names import BusError
from mptcpd_dbus.config import read_settings
from mptcpd_dbus.core.errors import MptcpdError
from mptcpd_dbus.ctl.daemon import Daemon
from mptcpd_dbus.ctl.failure import FAILED, Failure, Misuse
from mptcpd_dbus.ctl.output import Output
from mptcpd_dbus.remote.program import Program, load


async def run_plugin(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Decide until interrupted or let go."""
    if out.as_json:
        raise Misuse("run-plugin: it prints a log, which is no JSON")
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="mptcpctl: %(levelname)s: %(message)s"
    )
    arguments = ["--bus", given.get("bus", "system")]
    if "config" in given:
        arguments += ["--config", given["config"]]
    try:
        settings = read_settings(arguments)
        file = Path(given["FILE"])
        policy = load(file, settings)
        program = Program(policy, settings, file.parent, interactive=daemon.may_ask())
        running = asyncio.ensure_future(program.run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
        try:
            await running
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if this is None or this.cancelling():  # by Ctrl-C
                raise
    except MptcpdError as error:
        if isinstance(error.__cause__, BusError):
            raise error.__cause__ from None
        raise Failure(FAILED, str(error)) from error

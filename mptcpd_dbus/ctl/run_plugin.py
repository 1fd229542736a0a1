"""The command run-plugin: a plugin's file as a program that decides for connections."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from mptcpd_dbus.bus.error_names import BusError
from mptcpd_dbus.config import read_settings
from mptcpd_dbus.core.errors import MptcpdError
from mptcpd_dbus.ctl.daemon import Daemon
from mptcpd_dbus.ctl.failure import FAILED, Failure
from mptcpd_dbus.ctl.output import Output
from mptcpd_dbus.remote.program import Program, load


async def run_plugin(daemon: Daemon, given: dict[str, Any], _: Output) -> None:
    """Decide until interrupted or let go."""
    del daemon  # that it is there is enough: the program has a connection of its own
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="mptcpctl: %(levelname)s: %(message)s"
    )
    arguments = ["--bus", given.get("bus", "system")]
    if "config" in given:
        arguments += ["--config", given["config"]]
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        settings = read_settings(arguments)
        with suppress(asyncio.CancelledError):  # by SIGTERM: it has stopped in good order
            await Program(load(Path(given["FILE"]), settings), settings).run()
    except MptcpdError as error:
        if isinstance(error.__cause__, BusError):
            raise error.__cause__ from None
        raise Failure(FAILED, str(error)) from error

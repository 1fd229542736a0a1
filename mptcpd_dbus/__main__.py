"""The command mptcpd-dbus: settings, log, the daemon, and an exit status of <sysexits.h>."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import gc
import logging
import logging.handlers
import os
import sys
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from mptcpd_dbus.config import Settings, read_settings
from mptcpd_dbus.core.errors import ConfigurationError, KernelRefused, NotReady
from mptcpd_dbus.daemon import put_back, serve
from mptcpd_dbus.journal import JournalHandler, is_stderr
from mptcpd_dbus.repeats import Repeats

LAST_SECONDS = 2.0
"""Tasks that plugins have left running have so long to end."""

_LOG_SOCKET = "/dev/log"
EX_OK, EX_UNAVAILABLE, EX_SOFTWARE, EX_CONFIG = 0, 69, 70, 78

_log = logging.getLogger("mptcpd_dbus")


# Connections are freed by their reference counts.  A collection of the oldest generation would
# hold the loop for 50 ms with 10,000 of them, so it comes when a great many young ones have been.
COLLECTOR_THRESHOLDS = (2_000, 10, 100_000)


def main() -> int:
    """Run the daemon; give its exit status."""
    try:
        settings = read_settings(sys.argv[1:])
    except ConfigurationError as error:
        sys.stderr.write(f"mptcpd-dbus: {error}\n")  # where else to log is what it says
        return EX_CONFIG
    try:
        _log_to(settings)
    except OSError as error:
        sys.stderr.write(f"mptcpd-dbus: cannot log to {settings.log}: {error}\n")
        return EX_UNAVAILABLE
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    try:
        _run(serve(settings))
    except (NotReady, KernelRefused) as error:
        _log.error("%s", error)
        return EX_UNAVAILABLE
    except ConfigurationError as error:
        _log.error("%s", error)
        return EX_CONFIG
    except Exception:  # noqa: BLE001 # the last place that can log it
        _log.exception("internal error")
        return EX_SOFTWARE
    return EX_OK


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Do as asyncio.run, but do not wait for ever for what plugins have left running."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(coroutine)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=LAST_SECONDS))
        loop.close()


def run() -> NoReturn:
    """Be the command; threads that plugins have left are not waited for, either."""
    logging.raiseExceptions = False  # what a full disk refuses need not be told on that disk
    try:
        status = main()
    except SystemExit as ended:
        if ended.code:  # a wrong option; else it was asked for its help
            put_back()
        raise
    if status != EX_OK:
        put_back()
    logging.shutdown()
    os._exit(status)


def _log_to(settings: Settings) -> None:
    handler: logging.Handler
    match settings.log:
        case "stderr":
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("mptcpd-dbus: %(levelname)s: %(message)s"))
            if is_stderr():  # the journal takes levels and fields, too
                with suppress(OSError):  # where it does not let us, it still reads stderr
                    handler = JournalHandler()
        case "journal":
            handler = JournalHandler()
        case "syslog":
            # The handler would connect, and fail, later.
            Path(_LOG_SOCKET).stat()
            handler = logging.handlers.SysLogHandler(
                _LOG_SOCKET, logging.handlers.SysLogHandler.LOG_DAEMON
            )
            handler.ident = "mptcpd-dbus: "
        case "null":
            handler = logging.NullHandler()
    handler.addFilter(Repeats())
    logging.basicConfig(level=logging.DEBUG if settings.debug else logging.INFO, handlers=[handler])
    for noisy in ("asyncio", "pyroute2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


if __name__ == "__main__":
    run()

"""Asks the service manager on this bus why it stops us.

The signal is the same for a stop and a restart; the job that it is done for is not.  Must not know
what depends on it.  Source: org.freedesktop.systemd1(5).
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import logging
from typing import Any

from mptcpd_dbus.bus.error_names import BusError
from mptcpd_dbus.bus.message import NO_AUTO_START
from mptcpd_dbus.bus.transport import Transport

ANSWER_SECONDS = 2.0

_NAME = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_OURSELVES = 0

_log = logging.getLogger(__name__)


async def comes_back(transport: Transport) -> bool:
    """Whether we are stopped only to be started again; not where nobody answers."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            manager = f"{_NAME}.Manager"
            unit = await _ask(transport, _PATH, manager, "GetUnitByPID", "u", _OURSELVES)
            number, path = await _get(transport, unit, "Unit", "Job")
            return bool(number) and await _get(transport, path, "Job", "JobType") == "restart"
    except (BusError, TimeoutError, TypeError, ValueError) as error:
        _log.debug("the service manager does not say why it stops us: %r", error)
        return False


async def _get(transport: Transport, path: str, interface: str, name: str) -> Any:
    which = f"{_NAME}.{interface}", name
    return await _ask(transport, path, "org.freedesktop.DBus.Properties", "Get", "ss", *which)


async def _ask(transport: Transport, path: str, interface: str, member: str, *given: Any) -> Any:
    (answer,) = await transport.call(_NAME, path, interface, member, *given, flags=NO_AUTO_START)
    return answer

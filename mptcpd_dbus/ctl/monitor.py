"""The command monitor: what the daemon signals, as it comes, over restarts of the daemon."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from mptcpd_dbus.bus.error_names import DISCONNECTED, BusError
from mptcpd_dbus.bus.message import Incoming
from mptcpd_dbus.bus.names import BUS_NAME, MANAGER, ROOT
from mptcpd_dbus.bus.transport import DBUS, DBUS_PATH
from mptcpd_dbus.ctl.daemon import Daemon
from mptcpd_dbus.ctl.events import (
    DAEMON_RUNNING,
    DAEMON_STARTED,
    DAEMON_STOPPED,
    SIGNALS,
    event_view,
)
from mptcpd_dbus.ctl.output import Output

_OWNER_CHANGED = "NameOwnerChanged"
_RULES = (
    f"type='signal',sender='{DBUS}',interface='{DBUS}',member='{_OWNER_CHANGED}',arg0='{BUS_NAME}'",
    f"type='signal',sender='{BUS_NAME}',path='{ROOT}',interface='{MANAGER}'",
)


async def monitor(daemon: Daemon, given: dict[str, Any], out: Output) -> None:
    """Print events until interrupted, or until the bus goes."""
    del given
    transport = daemon.transport
    heard: asyncio.Queue[Incoming | None] = asyncio.Queue()
    for name in SIGNALS:
        transport.on_signal(MANAGER, name, heard.put_nowait)
    transport.on_signal(DBUS, _OWNER_CHANGED, heard.put_nowait)
    transport.disconnected.add_done_callback(lambda _: heard.put_nowait(None))
    for rule in _RULES:
        await transport.call(DBUS, DBUS_PATH, DBUS, "AddMatch", "s", rule)
    await daemon.properties(ROOT, MANAGER)  # have the bus start it, or fail
    _show(out, DAEMON_RUNNING)
    (owner,) = await transport.call(DBUS, DBUS_PATH, DBUS, "GetNameOwner", "s", BUS_NAME)
    while message := await heard.get():
        if message.sender == DBUS:
            _, old, owner = message.values()
            if old:
                _show(out, DAEMON_STOPPED)
            if owner:
                _show(out, DAEMON_STARTED)
        elif message.sender == owner:  # anybody may send a signal
            _show(out, message.member, message.values())
    raise BusError(DISCONNECTED, transport.disconnected.result())


def _show(out: Output, name: str, body: Sequence[Any] = ()) -> None:
    out.show(event_view(datetime.now().astimezone(), name, body))

"""Says on the bus, in the place of systemd, for which job it stops the service.

The real one needs a whole system.  It must not know the daemon.
Source: org.freedesktop.systemd1(5).
"""
# SPDX-License-Identifier: BSD-3-Clause

from pathlib import Path
from typing import Any

from dbus_next import Message, MessageType, Variant

from tests.lab.client import BusClient

NAME = "org.freedesktop.systemd1"
BUS_POLICY = Path(f"/usr/share/dbus-1/system.d/{NAME}.conf")

_UNIT, _JOB = f"/{NAME.replace('.', '/')}/unit/a", f"/{NAME.replace('.', '/')}/job/7"


class ServiceManager(BusClient):
    """Has the name from `come` on; `job` is what it has for the service, or ""."""

    job = ""

    async def come(self, job: str) -> None:
        """Be found."""
        self.job = job
        self._bus.add_message_handler(self._answer)
        await self.bus_call("RequestName", "su", NAME, 0)

    def _answer(self, message: Message) -> Message | None:
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        match message.path, message.member, message.body:
            case _, "GetUnitByPID", [0]:
                return Message.new_method_return(message, "o", [_UNIT])
            case path, "Get", ["org.freedesktop.systemd1.Unit", "Job"] if path == _UNIT:
                return _value(message, "(uo)", [7, _JOB] if self.job else [0, "/"])
            case path, "Get", ["org.freedesktop.systemd1.Job", "JobType"] if path == _JOB:
                return _value(message, "s", self.job)
            case _:
                return Message.new_error(message, "org.freedesktop.DBus.Error.Failed", "")


def _value(message: Message, signature: str, value: Any) -> Message:
    return Message.new_method_return(message, "v", [Variant(signature, value)])

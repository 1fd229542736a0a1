"""A program that decides for connections, and tells what it was called with.

    python -m tests.e2e.policy_program NAME PRIORITY

A line of JSON for each call: the monotonic time, the method, its arguments.  It registers again
whenever the daemon is back, as every such program should.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import json
import sys
import time
from typing import Any

from dbus_next import Variant

from tests.lab.client import NAME, ROOT, BusClient


def tell(member: str, body: list[Any]) -> None:
    """Write a line."""
    print(json.dumps([time.monotonic(), member, body]), flush=True)


async def main(name: str, priority: int) -> None:
    """Register, and again, until the end."""
    options = {"Priority": Variant("i", priority)}
    client = await BusClient.connect()
    client.serve(tell)
    rule = f"type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{NAME}'"
    await client.listen(rule)
    while True:
        client.signals.clear()
        await client.call(
            ROOT, f"{NAME}.Manager", "RegisterPolicy", "osa{sv}", "/policy", name, options
        )
        tell("registered", [client.name])
        await client.signal(lambda s: s.member == "NameOwnerChanged" and s.body[2], within=1e6)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))

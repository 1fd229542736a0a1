"""Policies: who decides for connections, as far as everybody may know it.

Nothing here knows how a policy is found or run, nor which file it came from: the policy host says
what there is, by readings.
"""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import dataclass
from enum import Enum


class PolicyState(Enum):
    """What has become of a policy; the values are the words of the D-Bus property."""

    LOADED = "loaded"
    RUNNING = "running"
    DISABLED = "disabled"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class Policy:
    """A plugin of the daemon, or a program on the bus (then `on_bus` is its unique name).

    `steers` is "kernel", "userspace" or "both"; `problem` is one line for the administrator, ""
    when all is well; `connections` counts those that have its name as their owner.
    """

    name: str
    description: str
    version: str
    priority: int
    steers: str
    state: PolicyState
    problem: str
    errors: int
    on_bus: str = ""
    connections: int = 0

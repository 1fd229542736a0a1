"""How the daemon is doing, in a line."""
# SPDX-License-Identifier: BSD-3-Clause

import pytest

from mptcpd_dbus.core.policies import PolicyState
from mptcpd_dbus.core.readings import EndpointsRead, PolicyRead
from mptcpd_dbus.core.types import AddressEntry
from mptcpd_dbus.summary import summary
from tests.world import World

ENDPOINT = AddressEntry("10.0.1.1", 1)


def _policy(name: str, steers: str, state: PolicyState = PolicyState.RUNNING) -> PolicyRead:
    return PolicyRead(name, "", "1", 0, steers, state, "", 0, "")


RULES, SSPI = _policy("rules", "both"), _policy("sspi", "userspace")
ADDR_ADV, FAILED = (
    _policy("addr_adv", "kernel"),
    _policy("fullmesh", "userspace", PolicyState.FAILED),
)


@pytest.mark.parametrize(
    ("path_manager", "policies", "words"),
    [
        ("kernel", (SSPI,), "the kernel path manager: the kernel decides, by 1 endpoint"),
        ("userspace", (RULES, SSPI, FAILED), "the userspace path manager: decided by rules, sspi"),
        (
            *("userspace", (ADDR_ADV, FAILED)),
            "the userspace path manager: nobody decides, no plugin for it runs",
        ),
    ],
)
async def test_it_says_who_decides(
    path_manager: str, policies: tuple[PolicyRead, ...], words: str
) -> None:
    world = World()
    world.engine.batch((EndpointsRead((ENDPOINT,)), *policies))
    world.pm.set_path_manager(path_manager)

    assert summary(world.state) == f"0 connections; new ones get {words}"
    world.connect()
    assert summary(world.state) == f"1 connection; new ones get {words}"

"""What an unprivileged reader learns on the bus is what the kernel would have told them.

All but what peers have announced, which the kernel tells to CAP_NET_ADMIN only; see
`docs/security.md`.
"""
# SPDX-License-Identifier: BSD-3-Clause

import re

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import ENDPOINT, MANAGER, SUBFLOW
from tests.lab.client import ROOT, BusClient

pytestmark = pytest.mark.usefixtures("people")


async def test_a_reader_sees_what_ss_and_ip_show_them(stage: MakeStage) -> None:
    play = await stage()
    await play.many(await play.listener(), 2)
    await play.agreed()
    await play.command(ROOT, MANAGER, "AddEndpoint", "sasa{sv}", "10.0.2.1", ["subflow"], {})
    tools = {
        "connections": play.lab.run("client", ["ss", "-MinHO"], user="alice"),
        "subflows": play.lab.run("client", ["ss", "-tinHO"], user="alice"),
        "endpoints": play.lab.run("client", ["ip", "mptcp", "endpoint", "show"], user="alice"),
    }

    async with await BusClient.connect("alice") as alice:
        listed = await alice.call(ROOT, MANAGER, "ListConnections", "a{sv}uu", {}, 0, 0)
        objects = (await alice.managed_objects()).values()

    tokens = {int(token, 16) for token in re.findall(r"token:(\w+)", tools["connections"])}
    assert {token for _, token in listed} == tokens
    assert len(tokens) == 2
    subflows = [p[SUBFLOW] for p in objects if SUBFLOW in p]
    assert len(subflows) == 2
    for p in subflows:
        ends = rf"{p['LocalAddress']}:{p['LocalPort']} +{p['RemoteAddress']}:{p['RemotePort']} "
        [line] = [line for line in tools["subflows"].splitlines() if re.search(ends, line)]
        assert f"(id:{p['LocalId']})" in line
    [endpoint] = [p[ENDPOINT] for p in objects if ENDPOINT in p]
    assert tools["endpoints"].split()[0] == endpoint["Address"]

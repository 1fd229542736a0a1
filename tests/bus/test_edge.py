"""The daemon's name, when the bus believes that it is ours already."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections.abc import AsyncIterator

import pytest

from mptcpd_dbus.bus.edge import BusEdge
from mptcpd_dbus.bus.names import BUS_NAME
from mptcpd_dbus.bus.transport import Transport
from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.errors import NotReady
from tests.bus.fake_policies import FakePolicies
from tests.lab.wait import eventually
from tests.world import World


@pytest.fixture
async def edge(bus_address: str) -> AsyncIterator[BusEdge]:
    """Give an edge that has the name."""

    def by_socket(_: int) -> Connection:
        raise NotImplementedError

    edge = BusEdge(
        bus_address,
        World().engine,
        (),
        FakePolicies(),
        catch_up=lambda: None,
        by_socket=by_socket,
        signal_budget=0,
    )
    await edge.connect()
    await edge.claim()
    yield edge
    edge.close()


async def test_a_name_that_our_former_connection_still_has_is_waited_for(
    edge: BusEdge, transport: Transport
) -> None:
    """As after a hang of the bus, which hears of the new connection before the old one's end."""
    former = edge._transport  # noqa: SLF001  the bus has yet to see that it is closed
    await edge.connect()

    claiming = asyncio.ensure_future(edge.claim())
    await asyncio.sleep(0.05)
    assert not claiming.done()
    assert await transport.name_owner(BUS_NAME) == former.unique_name
    former.disconnect()
    await claiming

    assert await transport.name_owner(BUS_NAME) == edge._transport.unique_name  # noqa: SLF001  ours


async def test_a_name_that_somebody_else_has_taken_meanwhile_is_not(
    edge: BusEdge, transport: Transport
) -> None:
    edge.close()
    await eventually(lambda: transport.request_name(BUS_NAME))
    await edge.connect()

    with pytest.raises(NotReady, match="is taken"):
        await asyncio.wait_for(edge.claim(), 1)

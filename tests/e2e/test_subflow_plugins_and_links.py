"""sspi, fullmesh and ndiffports follow what happens: links that come and go, joins that fail."""
# SPDX-License-Identifier: BSD-3-Clause

import time

import pytest

from mptcpd_dbus.core.events import SubflowClosed
from tests.e2e.conftest import MakeStage
from tests.e2e.observer import Observer
from tests.e2e.stage import SUBFLOW
from tests.e2e.subflows import (
    both_families,
    carriers,
    connect,
    every_plugin,
    exactly,
    new_link,
    stage_with,
    star,
    that_use_all_links,
    welcome,
    without_carrier,
)
from tests.lab.app import exchange
from tests.lab.hosts import LINKS, SERVER, address
from tests.lab.wait import eventually

MANY = 30

pytestmark = pytest.mark.both_ways

REFUSAL = """
table inet refusal {
    chain arriving {
        type filter hook input priority 0
        tcp flags syn tcp option mptcp subtype 1 reject with tcp reset
    }
}
"""
"""Of every MP_JOIN (RFC 8684, section 3.2)."""


# Links that come and go


@both_families
@that_use_all_links
async def test_a_link_that_comes_is_used_and_one_that_goes_is_given_up(
    stage: MakeStage, name: str, family: int
) -> None:
    it = await stage_with(stage, name)
    welcome(it)
    it.lab.cut(3)
    listener = await it.listener(SERVER[family])
    pair = await connect(it, listener, SERVER[family])
    await exactly(it, pair, star(family, [1, 2]))

    it.lab.restore(3)
    await exactly(it, pair, star(family))
    assert await carriers(it, pair) == [(address("client", i, family), i) for i in LINKS]
    it.lab.cut(1)  # that of the first subflow
    await exactly(it, pair, star(family, [2, 3]))
    it.lab.restore(1)
    await exactly(it, pair, star(family))
    it.lab.cut(2)
    await exactly(it, pair, star(family, [1, 3]))


@both_families
@that_use_all_links
async def test_a_device_that_is_new_is_used(stage: MakeStage, name: str, family: int) -> None:
    it = await stage_with(stage, name)
    welcome(it)
    listener = await it.listener(SERVER[family])
    pair = await connect(it, listener, SERVER[family])
    await exactly(it, pair, star(family))

    new_link(it, 4)

    links = (*LINKS, 4)
    await exactly(it, pair, star(family, links))
    over = await carriers(it, pair, links)
    assert over == [(address("client", i, family), i) for i in links]


@that_use_all_links
async def test_an_address_that_comes_is_used_and_one_that_goes_is_given_up(
    stage: MakeStage, name: str
) -> None:
    it = await stage_with(stage, name)
    listener = await it.listener()
    pair = await connect(it, listener, SERVER[4])
    await exactly(it, pair, star(4))

    it.lab.ip("client", "address", "del", "10.0.3.1/24", "dev", "link3")
    await exactly(it, pair, star(4, [1, 2]))
    it.lab.ip("client", "address", "add", "10.0.3.7/24", "dev", "link3")
    await exactly(it, pair, star(4, [1, 2]) | {("10.0.3.7", SERVER[4])})


async def test_each_peer_hears_of_each_address_of_a_lost_link(stage: MakeStage) -> None:
    it = await stage_with(stage, "fullmesh")
    welcome(it)
    it.lab.ip("client", "address", "add", "10.0.2.9/24", "dev", "link2")
    listener = await it.listener()
    pairs = [await connect(it, listener, SERVER[4]) for _ in range(MANY)]
    for pair in pairs:
        await exactly(it, pair, star(4) | {("10.0.2.9", SERVER[4])})

    it.lab.cut(2)

    for pair in pairs:
        await exactly(it, pair, star(4, [1, 3]))
    counted = it.lab.run("server", ["nstat", "-asz", "MPTcpExtRmAddr", "MPTcpExtRmAddrDrop"])
    heard, dropped = (line.split()[1] for line in counted.splitlines()[1:])
    assert (heard, dropped) == (str(2 * MANY), "0")


async def test_without_them_a_link_that_goes_is_not_given_up(stage: MakeStage) -> None:
    it = await stage_with(stage, "foo")
    listener = await it.listener()
    pair = await connect(it, listener, SERVER[4])
    await it.create_subflow(await it.path(pair.token or 0), Interface="link2")
    await exactly(it, pair, star(4, [1, 2]))

    it.lab.cut(2)

    await without_carrier(it, 2)
    waited = time.monotonic() + 1  # twenty times what it takes them
    await eventually(lambda: time.monotonic() > waited)
    await exactly(it, pair, star(4, [1, 2]))


@that_use_all_links
async def test_the_last_subflow_outlives_the_loss_of_its_link(stage: MakeStage, name: str) -> None:
    it = await stage_with(stage, name)
    welcome(it)
    listener = await it.listener()
    pair = await connect(it, listener, SERVER[4])
    await exactly(it, pair, star(4))
    for link in (3, 2):
        it.lab.cut(link)
        await exactly(it, pair, star(4, range(1, link)))

    it.lab.cut(1)

    await without_carrier(it, 1)
    await exactly(it, pair, star(4, [1]))
    it.lab.restore(2)
    await exactly(it, pair, star(4, [2]))
    await exchange(it.client, pair.client, it.server, pair.server)


# What is lost, refused, or too much


async def test_sspi_closes_a_second_subflow_on_an_interface(stage: MakeStage) -> None:
    it = await stage_with(stage, "sspi")
    welcome(it)
    listener = await it.listener()
    pair = await connect(it, listener, SERVER[4])
    await exactly(it, pair, star(4))
    before = it.sockets()

    await it.create_subflow(await it.path(pair.token or 0), Interface="link2", LocalPort=50000)

    await it.heard("SubflowClosed", lambda body: 50000 in body)
    await eventually(lambda: it.sockets() == before)


async def test_ndiffports_makes_a_lost_subflow_anew(stage: MakeStage) -> None:
    it = await stage_with(stage, "ndiffports")
    listener = await it.listener()
    pair = await connect(it, listener, SERVER[4])
    await exactly(it, pair, 2 * [*star(4, [1])])
    await it.agreed()
    objects = await it.viewer.managed_objects()
    first = next(path for path, o in objects.items() if SUBFLOW in o)

    await it.command(first, SUBFLOW, "Destroy", "a{sv}", {})

    await exactly(it, pair, star(4, [1]))
    await exactly(it, pair, 2 * [*star(4, [1])])


@every_plugin
async def test_refused_joins_are_tried_again_after_longer_and_longer_waits(
    stage: MakeStage, name: str
) -> None:
    it = await stage_with(stage, name)
    it.lab.run("server", ["nft", "-f", "-"], input=REFUSAL)
    listener = await it.listener()
    local = address("client", 1 if name == "ndiffports" else 2)

    with Observer(it.lab) as observer:
        pair = await connect(it, listener, SERVER[4])

        def refused() -> list[float]:
            ended = observer.of(SubflowClosed)
            return [when for when, event in ended if event.four_tuple.local_address == local]

        await eventually(lambda: len(refused()) == 3)
        it.lab.run("server", ["nft", "delete", "table", "inet", "refusal"])
        links = [1, 1] if name == "ndiffports" else LINKS
        await exactly(it, pair, [(address("client", i), SERVER[4]) for i in links])
    first, second, third = refused()
    assert 1 <= second - first < 1.5
    assert 2 <= third - second < 2.5

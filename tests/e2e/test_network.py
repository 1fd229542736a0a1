"""The network on the bus follows the real one: flaps, names, lost links, deprecated addresses."""
# SPDX-License-Identifier: BSD-3-Clause

from typing import Any

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import INTERFACE, MANAGER, Stage
from tests.lab.wait import eventually

pytestmark = pytest.mark.also_booted


async def _interface(play: Stage, name: str) -> tuple[str, dict[str, Any]]:
    """Give path and properties of the interface called *name*."""
    objects = await play.viewer.managed_objects()
    found = [
        (path, interfaces[INTERFACE])
        for path, interfaces in objects.items()
        if interfaces.get(INTERFACE, {}).get("Name") == name
    ]
    assert len(found) == 1
    return found[0]


def _signals(play: Stage, *members: str) -> list[tuple[str, list[Any]]]:
    return [
        (s.member, s.body)
        for s in play.viewer.signals
        if s.interface == MANAGER and s.member in members
    ]


async def test_a_carrier_that_comes_back_finds_the_addresses_still_there(stage: MakeStage) -> None:
    play = await stage()
    path, before = await _interface(play, "link1")
    assert before["Running"]

    play.lab.cut(1)
    await play.heard("UpdateInterface", lambda body: body[2] == "link1" and body[5] is False)
    assert await play.viewer.get(path, INTERFACE, "Running") is False
    assert await play.viewer.get(path, INTERFACE, "Addresses") == before["Addresses"]
    play.lab.restore(1)
    await play.heard("UpdateInterface", lambda body: body[2] == "link1" and body[5] is True)

    assert (await _interface(play, "link1")) == (path, before)
    assert _signals(play, "DeleteLocalAddress", "DeleteInterface", "NewInterface") == []


async def test_a_lost_link_takes_its_addresses_along_first(stage: MakeStage) -> None:
    play = await stage()
    path, properties = await _interface(play, "link3")

    play.lab.ip("client", "link", "del", "link3")
    await play.heard("DeleteInterface")

    told = _signals(play, "DeleteLocalAddress", "DeleteInterface")
    assert told[-1] == ("DeleteInterface", [path, properties["Index"], "link3"])
    gone = [body[3] for member, body in told if member == "DeleteLocalAddress"]
    assert sorted(gone) == sorted(a.partition("/")[0] for a in properties["Addresses"])
    assert path not in await play.viewer.managed_objects()


async def test_a_new_name_is_followed_on_the_same_object(stage: MakeStage) -> None:
    play = await stage()
    path, before = await _interface(play, "link2")

    play.lab.ip("client", "link", "set", "link2", "name", "renamed")
    await play.heard("UpdateInterface", lambda body: body[2] == "renamed")

    assert await _interface(play, "renamed") == (path, before | {"Name": "renamed"})


async def test_the_loss_of_preference_is_no_new_address(stage: MakeStage) -> None:
    """The one signal that follows is the control: nothing was in its way."""
    play = await stage()
    _, before = await _interface(play, "link1")

    change = ("address", "change", "10.0.1.1/24", "dev", "link1", "preferred_lft")
    play.lab.ip("client", *change, 0)
    play.lab.ip("client", *change, "forever")
    play.lab.ip("client", "address", "add", "10.0.1.99/24", "dev", "link1")
    await play.heard("NewLocalAddress", lambda body: body[3] == "10.0.1.99")

    assert len(_signals(play, "NewLocalAddress", "DeleteLocalAddress")) == 1
    _, after = await _interface(play, "link1")
    assert sorted(after["Addresses"]) == sorted([*before["Addresses"], "10.0.1.99/24"])


async def test_our_end_of_a_point_to_point_link_is_published_and_not_the_peers(
    stage: MakeStage,
) -> None:
    play = await stage()

    peer = ("10.9.9.1", "peer", "10.9.9.254/32", "dev", "link1")
    play.lab.ip("client", "address", "add", *peer)
    await play.heard("NewLocalAddress", lambda body: body[3] == "10.9.9.1")
    play.lab.ip("client", "address", "del", *peer)
    await play.heard("DeleteLocalAddress", lambda body: body[3] == "10.9.9.1")

    assert "10.9.9.254" not in str(play.viewer.signals)


async def test_ports_of_a_bridge_stay_interfaces(stage: MakeStage) -> None:
    play = await stage()
    path, before = await _interface(play, "link3")

    play.lab.batch("client", ["link add bridge0 type bridge", "link set link3 master bridge0"])
    play.lab.ip("client", "link", "set", "bridge0", "up")

    async def running() -> bool:
        _, bridge = await _interface(play, "bridge0")
        return bool(bridge["Up"] and bridge["Running"] and bridge["Kind"] == "bridge")

    await eventually(running)
    play.lab.ip("client", "link", "del", "bridge0")
    await play.heard("DeleteInterface", lambda body: body[2] == "bridge0")

    after = await _interface(play, "link3")
    assert after[0] == path
    assert after[1]["Name"] == before["Name"]

"""Proves of the private bus what other tests take for granted: its policy, polkit, who asks."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from dbus_next import Variant

from tests.lab.bus import Agent, PrivateBus, installed_kinds
from tests.lab.client import BUS, BusClient, BusError, busctl
from tests.lab.users import as_user
from tests.lab.wait import eventually

POLKIT = "org.freedesktop.PolicyKit1"
AUTHORITY = ("/org/freedesktop/PolicyKit1/Authority", f"{POLKIT}.Authority")
NAME = "org.example.Lab"
ACTION = "org.example.lab.act"
ACTIONS = f"""\
<!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/PolicyKit/1/policyconfig.dtd">
<policyconfig><action id="{ACTION}">
  <description>Act</description><message>Prove yourself to act</message>
  <defaults><allow_any>auth_admin</allow_any></defaults>
</action></policyconfig>
"""
OWNERS = f"""\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><policy user="carol"><allow own="{NAME}"/></policy></busconfig>
"""


@pytest.fixture(params=installed_kinds())
def system(request: pytest.FixtureRequest, people: None, tmp_path: Path) -> Iterator[PrivateBus]:
    """Give each kind of bus, with polkit, an action and a name that only carol may own."""
    del people  # they must only be there
    actions, owners = tmp_path / "lab.policy", tmp_path / "lab.conf"
    actions.write_text(ACTIONS)
    owners.write_text(OWNERS)
    with PrivateBus(kind=request.param, policies=[owners], polkit=True, actions=[actions]) as bus:
        yield bus


@pytest.mark.usefixtures("bus")
async def test_a_bus_of_any_user_carries_calls_and_signals() -> None:
    async with await BusClient.connect() as client:
        await client.listen(f"type='signal',sender='{BUS}',member='NameOwnerChanged'")
        async with await BusClient.connect() as other:
            signal = await client.signal(lambda signal: signal.body[0] == other.name)

            assert signal.body == [other.name, "", other.name]
            assert await client.owns(other.name)
            assert busctl("call", BUS, "/", BUS, "NameHasOwner", "s", other.name) == [True]
        await eventually(lambda: client.signals[-1].body == [other.name, other.name, ""])


@pytest.mark.usefixtures("system")
async def test_the_bus_sees_a_client_as_the_user_that_it_is() -> None:
    async with await BusClient.connect() as root, await BusClient.connect("alice") as alice:
        uids = [await root.bus_call("GetConnectionUnixUser", "s", c.name) for c in (root, alice)]

    assert uids == [0, 64010]


@pytest.mark.usefixtures("system")
async def test_the_policy_lets_only_whom_it_names_own_the_name() -> None:
    async with await BusClient.connect("alice") as alice, await BusClient.connect("carol") as carol:
        with pytest.raises(BusError) as refusal:
            await alice.bus_call("RequestName", "su", NAME, 0)
        taken = await carol.bus_call("RequestName", "su", NAME, 0)

    assert refusal.value.name == "org.freedesktop.DBus.Error.AccessDenied"
    assert taken == 1


@pytest.mark.usefixtures("system")
async def test_polkit_refuses_anybody_and_allows_the_group_of_the_rule() -> None:
    async with await BusClient.connect("alice") as alice, await BusClient.connect("carol") as carol:
        assert not await may_act(alice)
        assert await may_act(carol)


@pytest.mark.usefixtures("system")
async def test_an_administrator_who_approves_makes_it_allowed_and_one_who_denies_does_not() -> None:
    async with await BusClient.connect("alice") as alice:
        async with Agent("deny", "alice", os.getpid()) as agent:
            denied = await may_act(alice, interactive=True)
            await agent.expect(f"asked {ACTION} 'Prove yourself to act'")
        async with Agent("approve", "alice", os.getpid()) as agent:
            approved = await may_act(alice, interactive=True)
            await agent.expect(f"asked {ACTION}")

    assert (denied, approved) == (False, True)


@pytest.mark.usefixtures("system")
async def test_an_administrator_who_does_not_answer_keeps_it_waiting_until_it_is_cancelled() -> (
    None
):
    async with (
        await BusClient.connect("alice") as alice,
        await BusClient.connect() as root,
        Agent("hang", "alice", os.getpid()) as agent,
    ):
        waiting = asyncio.create_task(may_act(alice, interactive=True, asking=root, id_="1"))
        await agent.expect("asked")
        assert not waiting.done()
        cancel = ("CancelCheckAuthorization", "s", "1")
        await root.call(*AUTHORITY, *cancel, destination=POLKIT)

        assert not await waiting
        await agent.expect("cancelled")


@pytest.mark.usefixtures("system")
def test_a_command_runs_as_the_user_and_finds_the_bus() -> None:
    asked = (BUS, "/", BUS, "GetConnectionCredentials", "s", BUS)

    told = busctl("call", *asked, prefix=tuple(as_user("alice", [])))

    assert told


async def may_act(
    client: BusClient, *, interactive: bool = False, asking: BusClient | None = None, id_: str = ""
) -> bool:
    """Ask polkit as root whether a client may do the action."""
    if asking is None:
        async with await BusClient.connect() as root:
            return await may_act(client, interactive=interactive, asking=root, id_=id_)
    subject = ["system-bus-name", {"name": Variant("s", client.name)}]
    flag = int(interactive)  # AllowUserInteraction
    member = ("CheckAuthorization", "(sa{sv})sa{ss}us")
    answer = await asking.call(
        *AUTHORITY, *member, subject, ACTION, {}, flag, id_, destination=POLKIT
    )
    return bool(answer[0])

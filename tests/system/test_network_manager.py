"""A real NetworkManager beside the installed service: whose endpoints there are, for a whole run.

NetworkManager makes endpoints on the links that it manages; nothing says that it should, it is its
default.  What is its own doing shows in the same run without the service.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from tests import figures
from tests.lab.app import converse
from tests.lab.hosts import LINKS, SERVER, Lab, address
from tests.lab.traffic import Meter
from tests.lab.wait import eventually
from tests.system.conftest import MakeMachine
from tests.system.endpoint_table import EndpointTable
from tests.system.machine import Machine
from tests.system.managed_links import DEVICES, leave_links
from tests.system.product import UNIT, Installed

NETWORK_MANAGER = "NetworkManager.service"
CONFIGURATION = "etc/mptcpd-dbus/mptcpd-dbus.conf"
ENDPOINTS = {link: {address("client", link, family) for family in (4, 6)} for link in LINKS}
RATE, AMOUNT = "10mbit", 2_000_000
BOTH = (1, 2)
OURS = {("link3", "mptcpd"): 2}
SHARED = OURS | {("link1", "networkmanager"): 2, ("link2", "networkmanager"): 2}

Line = tuple[str, str, str]
"""An endpoint: its address, its flags, its device."""


@dataclass
class Step:
    """What happened to the table meanwhile, and what it was then."""

    changes: Counter[tuple[str, *Line]]
    after: set[Line]


@dataclass
class Run:
    """A machine that is the lab's client, with the service or without it."""

    lab: Lab
    machine: Machine
    table: EndpointTable
    has_service: bool
    steps: dict[str, Step] = field(default_factory=dict)
    told: int = 0
    """The last state of the table that a step had."""

    async def step(
        self, name: str, happens: Callable[["Run"], object], links: tuple[int, ...] = BOTH
    ) -> None:
        """Have something happen, and wait until these managed links have endpoints."""
        happening = happens(self)
        if isinstance(happening, Awaitable):
            await happening
        wanted = set[str]().union(*(ENDPOINTS[link] for link in links))
        wanted |= ENDPOINTS[3] if self.has_service else set()

        def settled() -> bool:
            assert self.table.now.keys() == wanted
            return True

        await eventually(settled, within=20)
        states = [set(table.items()) for table in self.table.states[self.told :]]
        self.told += len(states) - 1
        changes = [
            (what, at, it.flags, it.device)
            for old, new in itertools.pairwise(states)
            for what, those in (("deleted", old - new), ("added", new - old))
            for at, it in those
        ]
        after = {(at, it.flags, it.device) for at, it in states[-1]}
        self.steps[name] = Step(Counter(changes), after)

    def all_changes(self) -> Counter[tuple[str, *Line]]:
        """Give what has happened to the table in all steps."""
        return sum((step.changes for step in self.steps.values()), Counter())

    def origins(self) -> Counter[tuple[str, str]]:
        """Give how many endpoints each has on each link, as the service says."""
        shown = json.loads(self.machine.run("mptcpctl", "--json", "endpoint", "show"))["endpoints"]
        return Counter((it["interface"], it["origin"]) for it in shown)


def _typed(*argv: str) -> Callable[[Run], object]:
    return lambda run: run.machine.run(*argv)


def _nmcli(*words: str) -> Callable[[Run], object]:
    return _typed("nmcli", "--wait", "20", *words)


def _systemctl(*words: str) -> Callable[[Run], object]:
    return _typed("systemctl", *words)


def _reapply_another_setting(run: Run) -> None:
    _nmcli("connection", "modify", "lab1", "connection.metered", "yes")(run)
    _nmcli("device", "reapply", "link1")(run)


async def _flap(run: Run) -> None:
    run.lab.cut(1)
    await eventually(lambda: "NO-CARRIER" in run.lab.ip("client", "link", "show", "link1"))
    run.lab.restore(1)


async def _transfer(run: Run) -> None:
    """Send what no link can carry alone; the initial subflow is on link3, as the lab's route is."""
    client, server = run.lab.app("client"), run.lab.app("server")
    listener, port = await server.call("listen", address=SERVER[4])
    pair = await converse(client, server, listener, address=SERVER[4], port=port)

    def joined() -> bool:
        lines = run.lab.ss("client", "-tnHO", "state", "established").splitlines()
        local = [line.split()[2].rpartition(":")[0].partition("%")[0] for line in lines]
        assert sorted(local) == [address("client", link) for link in LINKS]
        return True

    await eventually(joined)
    for link in LINKS:
        run.lab.bottleneck(link, RATE)
    meter = Meter(run.lab)
    sending = asyncio.ensure_future(client.call("send", talk=pair.client, count=AMOUNT))
    await server.call("recv", talk=pair.server, count=AMOUNT)
    await sending
    carried = meter.carried()
    assert min(carried.values()) > AMOUNT / 10, carried
    await client.call("close", number=pair.client)
    await server.call("close", number=pair.server)


async def _play(boot: MakeMachine, lab: Lab, table: EndpointTable, *, service: bool) -> Run:
    """Do all that may make either of them look at the endpoints again."""

    def prepare(machine: Machine) -> None:
        leave_links(lab, machine)
        if not service:
            (machine.root / "etc/systemd/system" / UNIT).symlink_to("/dev/null")

    run = Run(lab, boot(prepare, namespace=lab.namespaces["client"]), table, service)
    await run.step("boot", lambda _: None)
    await run.step("activation", _nmcli("connection", "up", "lab1"))
    await run.step("reapplication", _nmcli("device", "reapply", "link2"))
    await run.step("another setting", _reapply_another_setting)
    await run.step("flap of the carrier", _flap)
    await run.step("loss of the carrier", lambda run: run.lab.cut(1), (2,))
    await run.step("return of the carrier", lambda run: run.lab.restore(1))
    await run.step("restart of NetworkManager", _systemctl("restart", NETWORK_MANAGER))
    if service:
        await run.step("restart of the service", _systemctl("restart", UNIT))
        await run.step("reload of the service", _systemctl("reload", UNIT))
        await run.step("crash of the service", _crash)
    await run.step("transfer", _transfer)
    await run.step("profile down", _nmcli("connection", "down", "lab2"), (1,))
    await run.step("profile up", _nmcli("connection", "up", "lab2"))
    return run


async def _crash(run: Run) -> None:
    before = run.machine.shown("MainPID", UNIT)
    run.machine.run("systemctl", "kill", "--signal=KILL", UNIT)

    def back() -> bool:
        shown = (run.machine.shown(name, UNIT) for name in ("MainPID", "ActiveState"))
        return before not in (state := list(shown)) and state[1] == "active"

    await eventually(back, within=20)


async def test_what_networkmanager_does_is_what_it_does_without_us(
    boot: MakeMachine, installed: Installed
) -> None:
    """The same endpoints come, go and are there after each step; ours are on the third link."""
    with Lab() as lab, EndpointTable(lab) as table:
        control = await _play(boot, lab, table, service=False)
    with Lab() as lab, EndpointTable(lab) as table:
        run = await _play(boot, lab, table, service=True)
        await eventually(lambda: run.origins() == SHARED)
        status = run.machine.run("mptcpctl", "status")
        warnings = run.machine.journal("--priority=warning", "--identifier=mptcpd-dbus")

    for name, step in run.steps.items():
        alone = control.steps.get(name)
        theirs = Counter({it: n for it, n in step.changes.items() if it[-1] in DEVICES})
        assert theirs == (alone.changes if alone else Counter()), name
        ours = {(at, "subflow", "link3") for at in ENDPOINTS[3]}
        assert step.after == (alone.after | ours if alone else step.after | ours), name
    changes = run.all_changes()
    assert sum(n for (*_, device), n in changes.items() if device == "link3") == 2
    assert "by its endpoints (2 of mptcpd, 4 of networkmanager)" in status
    assert warnings == ""
    figures.tell(
        f"NetworkManager beside the service, {installed.release}:"
        f" {changes.total()} changes of endpoints in {len(run.steps)} steps,"
        f" {control.all_changes().total()} without it; looked at {run.table.looks} times"
    )


@pytest.mark.parametrize("managed", ["leave", "use"])
async def test_links_of_networkmanager_are_ours_only_if_somebody_says_so(
    boot: MakeMachine, managed: str
) -> None:
    """Somebody deletes all endpoints: until an activation nobody has any there, unless it is us.

    The two are each other's control.  Told to use those links we say that there is a conflict, and
    what is whose there is then a question of who comes first.
    """
    use = managed == "use"
    with Lab() as lab, EndpointTable(lab) as table:

        def prepare(machine: Machine) -> None:
            leave_links(lab, machine)
            file = machine.root / CONFIGURATION
            text = file.read_text()
            assert "\nmanaged=leave\n" in text
            file.write_text(text.replace("\nmanaged=leave\n", f"\nmanaged={managed}\n"))

        run = Run(lab, boot(prepare, namespace=lab.namespaces["client"]), table, True)
        await run.step("boot", lambda _: None)
        lab.ip("client", "mptcp", "endpoint", "flush")
        await run.step("restart", _systemctl("restart", UNIT), BOTH if use else ())
        ours = {(f"link{link}", "mptcpd"): 2 for link in LINKS} if use else OURS
        await eventually(lambda: run.origins() == ours)
        await run.step("activation", _nmcli("connection", "up", "lab1"))
        changes = run.steps["activation"].changes
        assert any(what == "deleted" for what, *_ in changes) is use
        conflict = "NetworkManager has endpoints on"
        if use:
            await eventually(lambda: conflict in run.machine.run("mptcpctl", "status"))
        else:
            await eventually(lambda: run.origins() == SHARED)
            assert conflict not in run.machine.run("mptcpctl", "status")

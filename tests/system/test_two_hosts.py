"""Two booted hosts joined by three links, with the service as the README has it installed and set.

Counted are the bytes of each link; a link is cut under a ping-pong.  Both as the installed
configuration has it, and by the README's example; the controls are without the service.
"""
# SPDX-License-Identifier: BSD-3-Clause

import re
import time
from dataclasses import dataclass

import pytest

from tests.documents import README, blocks, typed
from tests.figures import tell
from tests.lab.app import App, Pair, converse
from tests.lab.carrier import Carrier
from tests.lab.hosts import HOSTS, LINKS, SERVER, Host, Lab
from tests.lab.traffic import Kind, Meter, Stall, Traffic
from tests.lab.wait import eventually
from tests.system.conftest import MakeMachine
from tests.system.machine import Machine
from tests.system.product import UNIT, follow

PORT = 443
RATE = "20mbit"
QUEUE = "400ms"  # a fresh path overruns a short one
LIMIT = 0.15
OUTAGE = 1.0
CUTS = 3
BULK: tuple[Kind, ...] = ("bulk up", "bulk down")
BULK_SECONDS = 3.0

CONFIGURATION: dict[Host, str] = {
    "client": "etc/mptcpd-dbus/mptcpd-dbus.conf",
    "server": "etc/mptcpd-dbus/mptcpd-dbus.conf.d/ours.conf",
}
"""Both places that the README names."""
_LIMITS = ("subflows", "2", "add_addr_accepted", "0")


@dataclass
class Hosts:
    """Two machines on the lab's hosts, and an application on each."""

    lab: Lab
    machines: dict[Host, Machine]
    client: App
    server: App
    listener: int

    def follow(self, *lines: str) -> list[str]:
        """Have the admins of both type lines; give what was printed on each."""
        said = (follow(machine, [*lines]) for machine in self.machines.values())
        return ["".join(each.values()) for each in said]

    def configure(self) -> None:
        """Do on both what the README says to configure, with its example."""
        (example,) = blocks(README, "ini", "## Configure")
        (then,) = blocks(README, "console", "## Configure")
        for host, machine in self.machines.items():
            machine.write(CONFIGURATION[host], example)
        self.follow(*typed(then))

    def stop(self, *hosts: Host) -> None:
        """Stop the service there."""
        for host in hosts:
            self.machines[host].run("systemctl", "stop", UNIT)

    def forget(self, *hosts: Host) -> None:
        """Have the kernel there be as after a boot without the service."""
        for host in hosts:
            self.machines[host].run("ip", "mptcp", "endpoint", "flush")
            self.machines[host].run("ip", "mptcp", "limits", "set", *_LIMITS)

    async def connect(self, paths: int = len(LINKS)) -> Pair:
        """Connect, and wait until there are so many subflows."""
        pair = await converse(self.client, self.server, self.listener, address=SERVER[4], port=PORT)
        assert pair.token, "the connection is not Multipath TCP"
        subflow = re.compile(rf"tcp-ulp-mptcp .*/{pair.token:x}\(")

        def there() -> bool:
            return len(subflow.findall(self.lab.ss("client", "-tinHO"))) == paths

        await eventually(there)
        return pair

    async def transfers(
        self, title: str, paths: int = len(LINKS)
    ) -> list[tuple[float, dict[int, int]]]:
        """Send up and down as much as possible; give bit/s that arrived, and bytes of each link."""
        seen = []
        for kind in BULK:
            pair = await self.connect(paths)
            running = Traffic(kind, self.client, self.server, pair)
            meter, began = Meter(self.lab), time.monotonic()
            await running.start()
            await _until(began + BULK_SECONDS)
            rate = await running.received() * 8 / (time.monotonic() - began)
            await running.stop()
            seen.append((rate, meter.carried()))
            tell(f"{title}, {kind}: {rate / 1e6:.0f} Mbit/s; {_told(seen[-1][1])}")
            for app, talk in ((self.client, pair.client), (self.server, pair.server)):
                await app.call("abort", talk=talk)  # what is queued would count for the next
        return seen


class PingPong:
    """A ping-pong over a connection, and what each link carries of it."""

    def __init__(self, hosts: Hosts, pair: Pair, carrier: Carrier) -> None:
        self._lab, self._carrier = hosts.lab, carrier
        self._running = Traffic("ping-pong", hosts.client, hosts.server, pair)
        self._meter = Meter(hosts.lab)
        self.seen: list[tuple[str, dict[int, int]]] = []

    async def start(self) -> None:
        """Have it run."""
        await self._running.start()

    async def goes_over(self, link: int, when: str) -> None:
        """Wait until one link carries it, and note that."""

        async def alone() -> bool:
            await self._moves()
            self._meter.carried()
            await self._moves(100_000)
            carried = self._meter.carried()
            assert carried[link] > 0.9 * sum(carried.values()), carried
            self.seen.append((when, carried))
            return True

        await eventually(alone)

    async def outage(self, *, when: str) -> Stall:
        """Cut link1 for a while, and give the longest stall since its carrier was lost."""
        self._meter.carried()
        lost = await self._carrier.change(self._lab.cut, 1, up=False)
        await _until(lost + OUTAGE)
        self.seen.append((when, self._meter.carried()))
        stall = await self._running.stall(lost)
        await self._carrier.change(self._lab.restore, 1, up=True)
        await self._moves()
        return stall

    async def stop(self) -> None:
        """Have it end."""
        await self._running.stop()

    def tell(self, title: str) -> None:
        """Have what was seen printed."""
        tell(title)
        for when, carried in self.seen:
            tell(f"    {when:28} {_told(carried)}")

    async def _moves(self, count: int = 0) -> None:
        before = await self._running.received()

        async def more() -> bool:
            return await self._running.received() > before + count

        await eventually(more, within=10)


@pytest.fixture
async def hosts(lab: Lab, boot: MakeMachine) -> Hosts:
    """Give two hosts with the package; NetworkManager leaves their links alone."""
    machines = {host: boot(namespace=lab.namespaces[host]) for host in HOSTS}
    for link in LINKS:
        lab.bottleneck(link, RATE, queue=QUEUE)
    client, server = lab.app("client"), lab.app("server")
    listener, _ = await server.call("listen", address=SERVER[4], port=PORT)
    return Hosts(lab, machines, client, server, listener)


async def test_as_it_is_installed_a_transfer_uses_all_links_at_once(hosts: Hosts) -> None:
    """Also when only the client has the service; the control is that nobody has: one link."""
    for said in hosts.follow("mptcpctl status"):
        assert f"Steered by: the kernel, by its endpoints ({2 * len(LINKS)} of mptcpd)" in said
    both = await hosts.transfers("as installed")
    hosts.stop("server")
    hosts.forget("server")
    one = await hosts.transfers("on the client only")
    hosts.stop("client")
    hosts.forget("client")
    none = await hosts.transfers("without the service", paths=1)

    for rate, carried in (*both, *one):
        assert all(count > 0.2 * sum(carried.values()) for count in carried.values())
        assert rate > 1.5 * max(alone for alone, _ in none)
    assert all(carried[1] > 0.9 * sum(carried.values()) for _, carried in none)


async def test_as_it_is_installed_a_lost_link_is_survived(hosts: Hosts) -> None:
    with Carrier(hosts.lab, 1) as carrier:
        play = PingPong(hosts, await hosts.connect(), carrier)
        await play.start()
        await play.goes_over(1, "before")
        stall = await play.outage(when="while link1 was cut")
    play.tell(f"ping-pong as installed: stalled {stall}")
    assert stall.own < LIMIT


async def test_by_the_readmes_example_another_link_takes_over_when_one_is_lost(
    hosts: Hosts,
) -> None:
    """The controls: that connection when the service is stopped, and one of a host without it."""
    hosts.configure()
    for said in hosts.follow("mptcpctl status"):
        assert "Steered by: active_backup;" in said

    with Carrier(hosts.lab, 1) as carrier:
        play = PingPong(hosts, await hosts.connect(), carrier)
        await play.start()
        stalls = []
        for number in range(1, CUTS + 1):
            await play.goes_over(1, f"before cut {number}")
            stalls.append(await play.outage(when=f"while cut {number}"))
            *_, (_, carried) = play.seen
            assert carried[2] > 10 * carried[1]
        await play.goes_over(1, "after it")
        hosts.stop(*HOSTS)
        stopped = await play.outage(when="while cut, service stopped")
        await play.stop()
        play.tell(f"ping-pong by the README's example: stalled {', '.join(map(str, stalls))}")

        hosts.forget(*HOSTS)
        alone = PingPong(hosts, await hosts.connect(paths=1), carrier)
        await alone.start()
        await alone.goes_over(1, "before")
        without = await alone.outage(when="while link1 was cut")
        alone.tell(f"    when the service was stopped {stopped}, never there {without}")

    assert max(stall.own for stall in stalls) < LIMIT
    assert stopped.own > LIMIT
    assert without.seconds > 0.9 * OUTAGE


async def _until(moment: float) -> None:
    await eventually(lambda: time.monotonic() > moment, within=10)


def _told(carried: dict[int, int]) -> str:
    return ", ".join(f"link{link} {count / 1e3:.1f} kB" for link, count in carried.items())

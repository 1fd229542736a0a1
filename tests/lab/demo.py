"""The demo: a plugin steers a real connection over two links, and one link is cut meanwhile.

It plays on the lab, asks and commands over D-Bus alone, and compares what it saw with what it
promises: the exit status is 0 only if every step really happened.  It must not know how the daemon
works, and it does not touch the machine: everything dies with the sandbox.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import contextlib
import shlex
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.app import converse
from tests.lab.bus import PrivateBus
from tests.lab.client import NAME, ROOT, BusClient, Signal
from tests.lab.daemon import Daemon
from tests.lab.hosts import SERVER, Lab
from tests.lab.plugin_files import shipped_plugins, write_configuration
from tests.lab.sandbox import SCRATCH, initial_root, readable_repository
from tests.lab.wait import eventually

PORT = 4242
PLUGIN = "active_backup"
CONFIGURATION = f"""[core]
plugin-dir = {{}}
load-plugins = {PLUGIN}

[plugin {PLUGIN}]
interfaces = link1, link2
prefer = link1
"""
RATE, QUEUE = "40mbit", "200ms"  # so slow that the transfer fills the link
TRANSFER = 2 << 20  # this many bytes must pass for a transfer to be called running
LONGEST_PAUSE = 10.0  # seconds; the kernel needs well below one

# How a signal is told in a line; the numbers are the positions of its arguments.
_SIGNALS = {
    "NewConnection": "{0}  token {1:08x}  {2}:{3} -> {4}:{5}",
    "ConnectionEstablished": "{0}  token {1:08x}",
    "ConnectionClosed": "{0}  token {1:08x}",
    "NewSubflow": "{1}  {3}:{4} -> {5}:{6}  on {11}",
    "SubflowClosed": "{1}  {3}:{4} -> {5}:{6}  error {12}",
    "UpdateInterface": "{0}  {2}  up {4}  running {5}",
}


@dataclass
class Scene:
    """What was seen; `missing` tells what should have been."""

    tree: str = ""
    owner: str = ""
    subflows: set[str] = field(default_factory=set)
    before: dict[int, int] = field(default_factory=dict)
    carrier_lost: bool = False
    pause: float = 0.0
    after: dict[int, int] = field(default_factory=dict)
    returned: dict[int, int] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)

    def missing(self) -> list[str]:
        """Name what did not happen."""
        steps = {
            "the tree has no connection": "/connection/" in self.tree,
            "the plugin does not decide for the connection": PLUGIN in self.owner,
            "there are not two subflows": len(self.subflows) == 2,
            "the standby carried something before the cut": _over(self.before, 1),
            "the lost carrier was not told": self.carrier_lost,
            "no pause was measured": 0 < self.pause < LONGEST_PAUSE,
            "the transfer did not go on over link2": _over(self.after, 2),
            "the transfer did not return to link1": _over(self.returned, 1),
            "a signal did not come": self.heard
            >= {"NewConnection", "ConnectionEstablished", "NewSubflow", "UpdateInterface"},
        }
        return [words for words, happened in steps.items() if not happened]


def _over(carried: dict[int, int], link: int) -> bool:
    """Whether a transfer went over that link and no other."""
    others = [count for number, count in carried.items() if number != link]
    return carried.get(link, 0) > TRANSFER and all(count < TRANSFER // 8 for count in others)


class Teller:
    """Prints lines for people; in colour only on a terminal."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty()
        self._step = 0

    def step(self, words: str) -> None:
        """Begin a step."""
        self._step += 1
        self._print("1", f"\n{self._step}. {words}")

    def say(self, words: str) -> None:
        """Say a line of the step."""
        self._print("0", f"   {words}")

    def command(self, argv: list[str]) -> None:
        """Show what is run on the client, as one would type it."""
        lines = textwrap.wrap(shlex.join(argv), 85, break_on_hyphens=False, break_long_words=False)
        self._print("36", "   client$ " + " \\\n           ".join(lines))

    def signal(self, it: Signal) -> None:
        """Tell of a signal."""
        words = _SIGNALS[it.member].format(*it.body).replace(f"{ROOT}/", "").lower()
        self._print("33", f"   signal| {it.member}  {words}")

    def _print(self, colour: str, line: str) -> None:
        sys.stdout.write(f"\033[{colour}m{line}\033[0m\n" if self._colour else f"{line}\n")
        sys.stdout.flush()


class Tour:
    """The steps, on a lab with a running daemon and an application on each host."""

    def __init__(self, lab: Lab, client: BusClient, tell: Teller) -> None:
        self._lab, self._client, self._tell = lab, client, tell
        self._here, self._there = lab.app("client"), lab.app("server")
        self.scene = Scene()

    async def play(self) -> None:
        """Go through all steps."""
        here, there = await self._connect()
        await self._transfer(here, there)
        await self._cut(there)
        await self._restore(there)

    async def _connect(self) -> tuple[int, int]:
        self._tell.step("An application connects to the server, as any program would")
        listener, _ = await self._there.call("listen", address=SERVER[4], port=PORT)
        pair = await converse(self._here, self._there, listener, address=SERVER[4], port=PORT)
        await self._heard("ConnectionEstablished")
        self._tell.step("The plugin decides for it, and joins over link2, as a backup")
        await self._heard("NewSubflow")
        self.scene.owner = await self._shown(
            *("busctl", "get-property", NAME, f"{ROOT}/connection/1", f"{NAME}.Connection"),
            "Owner",
        )
        self._tell.step("All of it is on the bus")
        self.scene.tree = await self._shown("busctl", "tree", "--list", NAME)
        objects = await self._client.managed_objects()
        self.scene.subflows = {path for path, its in objects.items() if f"{NAME}.Subflow" in its}
        return pair.client, pair.server

    async def _transfer(self, here: int, there: int) -> None:
        self._tell.step(f"The client sends without end; each link is limited to {RATE}")
        for link in (1, 2):
            self._lab.bottleneck(link, RATE, QUEUE)
        sent = self._sent()
        start = time.monotonic()
        await self._there.call("drain", talk=there)
        await self._here.call("stream", talk=here)
        await self._received(there, 2 * TRANSFER)
        self.scene.before = self._told_since(sent, start)

    async def _cut(self, there: int) -> None:
        self._tell.step("The cable of link1 is cut during the transfer")
        await self._there.call("progress", talk=there)  # forget the pauses until now
        self._lab.cut(1)
        await self._carrier(running=False)
        self.scene.carrier_lost = True
        sent, start = self._sent(), time.monotonic()
        self.scene.pause = await self._received(there, 2 * TRANSFER)
        self.scene.after = self._told_since(sent, start)
        self._tell.say(f"the longest pause at the server: {self.scene.pause * 1000:.0f} ms")
        self._tell.say("The plugin withdrew the address of link1, so the server gave it up, too.")

    async def _restore(self, there: int) -> None:
        self._tell.step(
            "The cable is back: the plugin joins over link1, and link2 is a backup again"
        )
        self._lab.restore(1)
        await self._carrier(running=True)
        await self._heard("NewSubflow")

        async def returned() -> bool:
            sent, start = self._sent(), time.monotonic()
            await self._received(there, 2 * TRANSFER)
            since = {link: now - sent[link] for link, now in self._sent().items()}
            if _over(since, 1):
                self.scene.returned = self._told_since(sent, start)
            return bool(self.scene.returned)

        await eventually(returned, within=10)

    async def _carrier(self, *, running: bool) -> None:
        """Wait until the daemon has told of the carrier of link1."""
        await self._client.signal(
            lambda it: (
                (it.member, it.body[2:3], it.body[5:6]) == ("UpdateInterface", ["link1"], [running])
            )
        )

    async def _received(self, talk: int, count: int) -> float:
        """Wait until that many bytes more have come; give the longest pause meanwhile."""
        progress = await self._there.call("progress", talk=talk)
        goal, longest = progress["received"] + count, progress["pause"]

        async def enough() -> bool:
            nonlocal longest
            progress = await self._there.call("progress", talk=talk)
            longest = max(longest, progress["pause"])
            return bool(progress["received"] >= goal)

        await eventually(enough, within=30)
        return float(longest)

    async def _heard(self, member: str) -> None:
        self._client.signals.remove(await self._client.signal(lambda it: it.member == member))

    async def _shown(self, *argv: str) -> str:
        """Run a command on the client, show it and what it says."""
        self._tell.command(list(argv))
        said = await asyncio.to_thread(self._lab.run, "client", list(argv))
        for line in said.splitlines():
            self._tell.say(line)
        return said

    def _sent(self) -> dict[int, int]:
        return {link: self._lab.counters("client", link)[1] for link in (1, 2)}

    def _told_since(self, sent: dict[int, int], start: float) -> dict[int, int]:
        """Tell and give what the client has sent on each link since."""
        since = {link: now - sent[link] for link, now in self._sent().items()}
        seconds = time.monotonic() - start
        for link, count in since.items():
            self._tell.say(f"link{link} has carried {count / 1e6:5.1f} MB in {seconds:.1f} s")
        return since


async def _watch(viewer: BusClient, tell: Teller, scene: Scene) -> None:
    """Tell of the manager's signals as they come."""
    while True:
        it = await viewer.signal(lambda _: True, within=3600)
        viewer.signals.remove(it)
        scene.heard.add(it.member)
        if it.member in _SIGNALS:
            tell.signal(it)


@contextlib.contextmanager
def _shown_on_failure(log: Path) -> Iterator[None]:
    try:
        yield
    except Exception:
        sys.stderr.write(f"the daemon's log:\n{log.read_text()}")
        raise


async def play() -> int:
    """Set the stage, go through the steps, and say whether all of it happened."""
    tell = Teller()
    policies = sorted((readable_repository() / "dbus").glob("*.conf")) if initial_root() else ()
    tell.step("Two hosts with links, the client with a bus of its own and the daemon")
    log = SCRATCH / "demo.log"
    with Lab() as lab, PrivateBus(policies=policies), _shown_on_failure(log):
        lab.sysctl("client", "net.mptcp.path_manager", "userspace")
        configuration = write_configuration(CONFIGURATION.format(shipped_plugins()))
        await Daemon(lab, "client", log).start("--config", str(configuration))
        tell.say(f"The daemon owns {NAME} and runs the plugin {PLUGIN}:")
        for line in configuration.read_text().split("\n\n")[-1].splitlines():
            tell.say(f"  {line}")
        async with await BusClient.connect() as client, await BusClient.connect() as viewer:
            for one in (client, viewer):
                await one.listen(f"type='signal',sender='{NAME}',interface='{NAME}.Manager'")
            tour = Tour(lab, client, tell)
            watcher = asyncio.ensure_future(_watch(viewer, tell, tour.scene))
            await tour.play()
            watcher.cancel()
    missing = tour.scene.missing()
    tell.step("That was all" if not missing else "It did not work: " + "; ".join(missing))
    return 1 if missing else 0


def main() -> int:
    """Play; an interrupt ends it tidily.

    The interrupt is taken from a thread and blocked everywhere else, so the programs of the lab,
    which inherit that, do not die of it with complaints of their own.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    async def until_interrupted() -> int:
        loop, playing = asyncio.get_running_loop(), asyncio.ensure_future(play())

        def wait() -> None:
            signal.sigwait({signal.SIGINT})
            loop.call_soon_threadsafe(playing.cancel)

        threading.Thread(target=wait, daemon=True).start()
        try:
            return await playing
        except asyncio.CancelledError:
            sys.stdout.write("\ninterrupted; nothing is left\n")
            return 128 + signal.SIGINT

    return asyncio.run(until_interrupted())


if __name__ == "__main__":
    sys.exit(main())

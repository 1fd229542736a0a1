"""System calls of the daemon fail under load: at worst that costs a line, and then all is right."""
# SPDX-License-Identifier: BSD-3-Clause

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import MANAGER, PORT, Stage
from tests.lab.client import ROOT, BusError
from tests.lab.faults import faults
from tests.lab.hosts import SERVER, address
from tests.lab.wait import eventually

ROUNDS = 8
SWEPT_WITHIN = 10  # seconds: a sweep mends what a fault has cost, and retries after a second
ERRORS = re.compile(r"org\.(mptcpd1|freedesktop\.DBus)\.Error\.\w+")

FAULTS = {
    # Netlink: events, look-ups, dumps, commands
    "reading is interrupted": ("recvfrom:error=EINTR:when=3+5",),
    "reading finds nothing": ("recvfrom:error=EAGAIN:when=3+7",),
    "reading finds an overflow": ("recvfrom:error=ENOBUFS:when=5+11",),
    "reading finds no memory": ("recvfrom:error=ENOMEM:when=5+11",),
    "asking finds no memory": ("sendto:error=ENOBUFS:when=5+11",),
    "asking is interrupted": ("sendto:error=EINTR:when=3+5",),
    "the bus goes while it is written to": ("sendto:error=EPIPE:when=60",),
    "no descriptor is left": ("socket:error=EMFILE:when=1+2",),
    "options cannot be set": ("setsockopt:error=EPERM:when=1+3",),
    # The bus
    "reading from the bus is interrupted": ("recvmsg:error=EINTR:when=2+3",),
    "reading from the bus finds nothing": ("recvmsg:error=EAGAIN:when=2+3",),
    # The loop, files
    "waiting is interrupted": ("epoll_wait:error=EINTR:when=3+5",),
    "no file can be opened": ("openat:error=EMFILE:when=1+2",),
    "the log is on a full disk": ("write:error=ENOSPC:when=1+1",),
}


@pytest.fixture
async def play(stage: MakeStage) -> AsyncIterator[Stage]:
    made = await stage("--debug")
    yield made
    assert await made.daemon.stop() == 0


async def _live(play: Stage, listener: int) -> int:
    """Have connections come, be commanded and go; give how many commands were done."""
    done = 0
    for number in range(ROUNDS):
        talks, accepted = await play.many(listener, 5)
        for command in (_list, _join, _read_settings):
            try:
                await command(play)
            except BusError as error:
                _look_at(error)
            else:
                done += 1
        for talk, other in list(zip(talks, accepted, strict=True))[number % 2 :]:
            await play.client.call("close", number=talk)
            await play.server.call("close", number=other)
    return done


def _look_at(error: BusError) -> None:
    assert ERRORS.fullmatch(error.name), error
    assert str(error).isprintable(), error


async def _right(play: Stage) -> None:
    async def right() -> bool:
        try:
            await play.agreed()
        except BusError:  # the daemon may have had to join the bus again
            return False
        return True

    await eventually(right, within=SWEPT_WITHIN)


async def _list(play: Stage) -> None:
    await play.viewer.managed_objects()


async def _join(play: Stage) -> None:
    listed = await play.viewer.call(ROOT, MANAGER, "ListConnections", "a{sv}uu", {}, 0, 0)
    if listed:
        await play.create_subflow(listed[-1][0], SERVER[4], PORT, LocalAddress=address("client", 2))


async def _read_settings(play: Stage) -> None:
    await play.viewer.get(ROOT, MANAGER, "Version")


@pytest.mark.parametrize("injections", FAULTS.values(), ids=FAULTS)
async def test_a_call_that_fails_costs_a_line_and_nothing_else(
    injections: tuple[str, ...], play: Stage, tmp_path: Path
) -> None:
    listener = await play.listener()
    async with faults(play.daemon.pid, tmp_path / "strace", *injections) as suffered:
        done = await _live(play, listener)
        await eventually(lambda: suffered.count, within=SWEPT_WITHIN)

    await _right(play)
    assert await _live(play, listener) == 3 * ROUNDS
    await _right(play)
    text = play.daemon.log.read_text()
    assert "Traceback" not in text, text[text.index("Traceback") - 300 :][:3500]
    print(f"{suffered.count} faults, {done} of {3 * ROUNDS} commands done")

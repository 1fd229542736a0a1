"""The pattern of our policies: one mend at a time, and nothing that a peer can pile up."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio

from mptcpd_dbus.plugin import Connection, Mender
from mptcpd_dbus.policy.backoff import REMEMBERED
from mptcpd_dbus.testing import (
    Answer,
    World,
    announced,
    answers,
    connect,
    cut,
    joined,
    link,
    play,
    restore,
    wait,
)

ETH, WWAN = link("eth0", "10.0.1.1"), link("wwan0", "10.0.2.1")


class Slow(Mender):
    """Counts its mends, which take long."""

    mends = 0

    async def mend(self, connection: Connection) -> None:
        """Take long."""
        del connection
        Slow.mends += 1
        await asyncio.sleep(10)


def _together(*happenings: object) -> object:
    def happen(world: World) -> None:
        for happening in happenings:
            happening(world)  # type: ignore[operator] # none of these waits

    return happen


def test_what_happens_during_a_mend_is_one_more_mend() -> None:
    Slow.mends = 0
    crowd = _together(*(announced(i, f"10.0.9.{i}") for i in range(2, 50)))

    play(Slow, ETH, connect(), crowd)  # type: ignore[arg-type] # see above

    assert Slow.mends == 2


class Eager(Mender):
    """Joins once to wherever it may."""

    async def mend(self, connection: Connection) -> None:
        """Join."""
        there = {s.remote_address for s in connection.subflows if s.local_address == "10.0.2.1"}
        for remote, port in connection.destinations:
            if remote not in there and self.may_join(connection, "10.0.2.1", remote, port):
                await self.join(connection, "10.0.2.1", remote, port)


def test_a_peer_cannot_have_ever_new_addresses_tried() -> None:
    """It announces another address under the same ID again and again, and refuses all joins."""
    moves = [announced(1, f"10.9.{n // 250}.{n % 250 + 1}") for n in range(REMEMBERED + 100)]

    played = play(Eager, ETH, WWAN, answers(Answer.REFUSED), connect(), *moves)

    tried = {line.rpartition(" -> ")[2] for line in played.commands}
    assert len(tried) == REMEMBERED


def test_a_server_notes_no_failures_of_its_peers_subflows() -> None:
    """Each has another port, and none would ever be tried from here."""
    seen: list[int] = []

    class Server(Mender):
        """Does nothing."""

        async def mend(self, connection: Connection) -> None:
            """Look."""
            del connection
            seen.append(len(self._backoff._failures))  # noqa: SLF001 # what no property shows

    def end(world: World) -> None:
        found = next(t for t in world.kernel.open[1].subflows if t.local_address == "10.0.2.1")
        world.kernel.end_subflow(1, found, 110)

    cycle = (joined("10.0.2.1", "10.0.9.1"), end)
    play(Server, ETH, WWAN, connect(server_side=True), *cycle, *cycle)

    assert len(seen) >= 3
    assert set(seen) == {0}


def test_a_path_that_is_back_before_its_turn_is_not_given_up() -> None:
    """So many are given up that they take turns; the link comes back in between."""
    flap = _together(cut("eth0"), restore("eth0"))

    def over_both(world: World) -> None:
        for happening in [connect("10.0.1.1")] * 40:
            happening(world)

    made = (ETH, WWAN, over_both, wait(1))
    lost = play(Eager, *made, cut("eth0"), wait(1))
    kept = play(Eager, *made, flap, wait(1))  # type: ignore[arg-type] # see above

    assert sum(line.startswith("remove") for line in lost.commands) == 40
    assert sum(line.startswith("remove") for line in kept.commands) == 0


def test_a_mend_comes_in_time_for_what_failed() -> None:
    """The earliest path decides, and the later ones still get their turn."""
    played = play(Eager, ETH, WWAN, answers(Answer.REFUSED), connect(), wait(7.5))

    assert len(played.commands) == 4  # at 0, 1, 3 and 7 seconds

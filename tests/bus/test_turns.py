"""Large answers go one at a time, and a user who wants many does not keep the others waiting."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio

from mptcpd_dbus.bus.turns import Turns


class Queue:
    """A queue to the bus that is emptied by hand, once for each answer."""

    def __init__(self) -> None:
        self.emptied = asyncio.Semaphore(0)
        self.turns = Turns(self.taken)
        self.answered: list[str] = []

    async def taken(self) -> None:
        """Wait for a hand."""
        await self.emptied.acquire()

    def answer(self, uid: int, name: str) -> asyncio.Task[None]:
        """Want a turn for a large answer."""

        async def work() -> None:
            async with self.turns.turn(uid):
                self.answered.append(name)

        return asyncio.create_task(work())


async def test_users_take_turns_however_much_each_wants() -> None:
    queue = Queue()
    wanted = [queue.answer(1000, f"greedy {n}") for n in range(4)]
    wanted.append(queue.answer(1001, "modest"))
    await asyncio.sleep(0)
    assert queue.answered == ["greedy 0"]  # the next waits until the bus has taken it

    for _ in wanted:
        queue.emptied.release()
    await asyncio.gather(*wanted)

    assert queue.answered == ["greedy 0", "modest", "greedy 1", "greedy 2", "greedy 3"]


async def test_who_gives_up_waiting_holds_nobody_up() -> None:
    queue = Queue()
    first, second = queue.answer(1000, "first"), queue.answer(1000, "second")
    third = queue.answer(1001, "third")
    await asyncio.sleep(0)

    second.cancel()
    queue.emptied.release()
    queue.emptied.release()
    await asyncio.gather(first, third)

    assert queue.answered == ["first", "third"]

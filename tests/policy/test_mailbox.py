"""A plugin's queues: what a handler can rely on, and what becomes of one that does not end.

Time is played: thirty seconds take none.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from mptcpd_dbus.core.errors import InvalidArgument, NoSuchConnection
from mptcpd_dbus.policy.mailbox import (
    GRACE_SECONDS,
    HANDLER_SECONDS,
    HOST,
    QUEUE,
    Failure,
    Item,
    Mailbox,
)
from mptcpd_dbus.policy.watch import Watch
from tests.policy.hosted_world import in_played_time

ONE, TWO = 1, 2
PAST = HANDLER_SECONDS + 2 * GRACE_SECONDS


class Box(Mailbox):
    """A mailbox whose complaints are kept."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.full: list[int] = []
        super().__init__("it", Watch(), self.failures.append, self.full.append)
        self.notes: list[Any] = []

    @property
    def kept(self) -> int:
        """How many queues there are."""
        return len(self._queues)

    async def note(self, what: Any, wait: float = 0) -> None:
        """Be a handler that takes a while."""
        self.notes.append(("begin", what))
        await asyncio.sleep(wait)
        self.notes.append(("end", what))

    async def rest(self) -> None:
        """Wait until nothing runs or waits."""
        while not self.idle:  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.1)

    def texts(self) -> list[str]:
        """Give what went wrong."""
        return [failure.text for failure in self.failures]


@in_played_time
async def test_handlers_under_one_key_never_overlap_and_keep_their_order() -> None:
    box = Box()
    for number in range(5):
        box.post(ONE, "h", box.note, number, 5 - number)
    await box.rest()

    assert box.notes == [(w, n) for n in range(5) for w in ("begin", "end")]
    assert box.kept == 0


@in_played_time
async def test_different_keys_interleave_and_the_host_queue_waits_for_none() -> None:
    box = Box()
    box.post(ONE, "h", box.note, "one", 10)
    box.post(TWO, "h", box.note, "two", 5)
    assert await box.run("start", lambda: box.note("host"))

    assert box.notes == [
        ("begin", "one"),
        ("begin", "two"),
        ("begin", "host"),
        ("end", "host"),
    ]
    await box.rest()
    assert box.notes[-2:] == [("end", "two"), ("end", "one")]


async def _raise(error: BaseException) -> None:
    raise error


async def _cancel_oneself() -> None:
    task = asyncio.current_task()
    assert task
    task.cancel()
    await asyncio.sleep(1)


async def _await_a_cancelled_task() -> None:
    task = asyncio.ensure_future(asyncio.sleep(1))
    task.cancel()
    await task


class _Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda: _raise(ValueError("no\nsecond line")), "ValueError: no"),
        (lambda: _raise(ValueError()), "ValueError"),
        (lambda: _raise(ValueError("\x1b[31m\0\udcff")), "ValueError: ?[31m??"),
        (lambda: _raise(_Mute()), "_Mute: (its text cannot be had)"),
        (lambda: _raise(SystemExit(3)), "SystemExit: 3"),
        (lambda: _raise(KeyboardInterrupt()), "KeyboardInterrupt"),
        (lambda: _raise(GeneratorExit()), "RuntimeError: GeneratorExit"),
        (lambda: _raise(asyncio.CancelledError()), "CancelledError"),
        (lambda: _raise(BaseExceptionGroup("g", [KeyboardInterrupt()])), "BaseExceptionGroup: g"),
        (_cancel_oneself, "CancelledError"),
        (_await_a_cancelled_task, "CancelledError"),
        (lambda: None, "TypeError: object NoneType can't be used in 'await' expression"),
    ],
)
@in_played_time
async def test_whatever_a_handler_raises_the_next_one_runs(
    function: Callable[[], Coroutine[Any, Any, None]], text: str
) -> None:
    box = Box()
    for _ in range(2):
        box.post(ONE, "h", function)
    await box.rest()
    assert [failure.text[: len(text)] for failure in box.failures] == [text, text]
    assert all(failure.blame for failure in box.failures)
    assert box.failures_in_a_row == 2

    box.post(ONE, "h", box.note, "next")
    await box.rest()
    assert box.notes == [("begin", "next"), ("end", "next")]
    assert box.failures_in_a_row == 0


@in_played_time
async def test_a_no_of_the_kernel_is_nobodys_fault_and_ends_no_row() -> None:
    box = Box()
    for error in (ValueError("a"), NoSuchConnection("connection 1 is gone"), ValueError("b")):
        box.post(ONE, "h", _raise, error)
    await box.rest()

    assert box.texts() == ["ValueError: a", "connection 1 is gone", "ValueError: b"]
    assert [failure.blame for failure in box.failures] == [True, False, True]
    assert box.failures_in_a_row == 2


@in_played_time
async def test_a_handler_that_hangs_is_cancelled_and_named() -> None:
    box = Box()
    began = asyncio.get_running_loop().time()
    box.post(ONE, "hangs", box.note, "hangs", 1e9)
    box.post(ONE, "next", box.note, "next")
    box.post(TWO, "long", box.note, "long", HANDLER_SECONDS - 1)
    await box.rest()

    assert [(f.item.handler, f.text) for f in box.failures] == [
        ("hangs", "took longer than 30 s"),
    ]
    assert ("end", "next") in box.notes
    assert ("end", "long") in box.notes
    assert asyncio.get_running_loop().time() - began < PAST


class _Stubborn:
    """Does not end when it is cancelled; counts how often it was asked to."""

    def __init__(self) -> None:
        self.asked = 0
        self.steps = 0
        self.closed = False

    async def handler(self) -> None:
        try:
            while True:
                self.steps += 1
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    self.asked += 1
        finally:
            self.closed = True

    async def behind_a_task(self) -> None:
        self.task = asyncio.ensure_future(self.handler())
        await self.task


@in_played_time
async def test_a_handler_that_will_not_be_cancelled_takes_no_further_step() -> None:
    box, stubborn = Box(), _Stubborn()
    box.post(ONE, "stubborn", stubborn.handler)
    box.post(ONE, "next", box.note, "next")
    await box.rest()
    steps = stubborn.steps
    await asyncio.sleep(PAST)

    assert box.texts() == ["took longer than 30 s and would not be cancelled"]
    assert box.notes == [("begin", "next"), ("end", "next")]
    assert (stubborn.asked, stubborn.steps, stubborn.closed) == (1, steps, True)
    assert len(asyncio.all_tasks()) == 1
    assert box.kept == 0


@in_played_time
async def test_one_that_waits_for_a_stubborn_task_holds_up_nothing() -> None:
    """The task is the plugin's own: it goes on, alone."""
    box, stubborn = Box(), _Stubborn()
    box.post(ONE, "stubborn", stubborn.behind_a_task)
    box.post(ONE, "next", box.note, "next")
    await box.rest()

    assert box.texts() == ["took longer than 30 s and would not be cancelled"]
    assert box.notes == [("begin", "next"), ("end", "next")]
    coroutine = stubborn.task.get_coro()
    assert coroutine is not None
    coroutine.close()  # or this loop would not end, either


@in_played_time
async def test_one_that_ends_well_when_it_is_cancelled_was_late_nevertheless() -> None:
    box = Box()

    async def late() -> None:
        try:
            await asyncio.sleep(1e9)
        except asyncio.CancelledError:
            box.notes.append("cancelled")

    async def patient() -> None:  # asyncio.timeout counts how often its task was cancelled
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.sleep(10)
        box.notes.append("timeout")

    box.post(ONE, "late", late)
    box.post(ONE, "patient", patient)
    await box.rest()

    assert box.notes == ["cancelled", "timeout"]
    assert box.texts() == ["took longer than 30 s"]


@in_played_time
async def test_a_queue_is_bounded_and_the_last_one_always_has_room() -> None:
    """The other queue is the control: it has as many items, and room for each."""
    box, gate = Box(), asyncio.Event()

    async def waits() -> None:
        await gate.wait()

    box.post(ONE, "waits", waits)
    for number in range(5 * QUEUE):
        box.post(ONE, "h", box.note, number)
        box.post(TWO, "h", box.note, "other")
        await asyncio.sleep(0)
    box.finish(ONE, Item("last", box.note, ("last",)))
    gate.set()
    await box.rest()

    ended = [what for word, what in box.notes if word == "end"]
    assert [what for what in ended if what != "other"] == [*range(QUEUE), "last"]
    assert ended.count("other") == 5 * QUEUE
    assert box.full == [ONE] * (4 * QUEUE)
    assert box.kept == 0


@in_played_time
async def test_who_waits_for_a_dropped_handler_is_told() -> None:
    box = Box()
    box.post(HOST, "h", box.note, "long", 5)
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(box.run("start", lambda: box.note("start")))
    await asyncio.sleep(0)
    box.drop(HOST)
    assert await waiting is False

    for _ in range(QUEUE):
        box.post(HOST, "h", box.note, "more")
    assert await box.run("stop", lambda: box.note("stop")) is False  # no room
    box.close()
    assert box.notes == [("begin", "long")]


@in_played_time
async def test_a_timer_takes_its_turn_among_the_handlers() -> None:
    box = Box()
    box.after(5, ONE, "timer", box.note, ("timer",))
    box.post(ONE, "h", box.note, "long", 10)
    await box.rest()
    await asyncio.sleep(0.1)
    await box.rest()

    assert box.notes == [(w, n) for n in ("long", "timer") for w in ("begin", "end")]
    assert box.kept == 0


@pytest.mark.parametrize("end", ["cancel", "finish", "release", "close"])
@in_played_time
async def test_a_timer_that_is_off_leaves_nothing(end: str) -> None:
    box = Box()
    timers = [box.after(5, ONE, "timer", box.note, ("timer",)) for _ in range(3)]
    other = box.after(6, TWO, "timer", box.note, ("other",))
    if end == "cancel":
        for timer in timers:
            timer.cancel()
            timer.cancel()
    elif end == "finish":
        box.finish(ONE, None)
    elif end == "release":
        assert box.release(ONE) == []
    else:
        box.close()
    assert box.kept == (0 if end == "close" else 1)
    await asyncio.sleep(10)

    assert box.notes == ([] if end == "close" else [("begin", "other"), ("end", "other")])
    assert box.kept == 0
    other.cancel()  # late, and harmless


@pytest.mark.parametrize("seconds", [-1, float("nan")])
@in_played_time
async def test_no_time_is_refused(seconds: float) -> None:
    box = Box()
    with pytest.raises(InvalidArgument, match="seconds"):
        box.after(seconds, ONE, "timer", box.note, ())
    assert box.kept == 0


@in_played_time
async def test_what_is_released_is_given_and_runs_no_more() -> None:
    box, stubborn = Box(), _Stubborn()
    box.post(ONE, "running", stubborn.handler)
    await asyncio.sleep(0.5)
    box.post(ONE, "second", box.note, "second")
    box.post(ONE, "third", box.note, "third")

    assert box.release(ONE) == ["second", "third"]
    assert box.release(ONE) == []
    box.post(ONE, "after", box.note, "after")  # the key can be used again at once
    await box.rest()
    assert box.notes == [("begin", "after"), ("end", "after")]

    await asyncio.sleep(2 * GRACE_SECONDS)
    assert (stubborn.asked, stubborn.closed) == (1, True)
    assert box.failures == []


@in_played_time
async def test_ten_thousand_keys_leave_nothing() -> None:
    box = Box()
    for key in range(1, 10_001):
        box.post(key, "new", box.note, key)
        timer = box.after(5, key, "timer", box.note, (key,))
        if key % 2:
            timer.cancel()
        box.finish(key, Item("closed", box.note, (key,)))
    await box.rest()

    assert box.kept == 0
    assert len(box.notes) == 40_000


@in_played_time
async def test_a_timer_that_has_fired_holds_nothing_any_more() -> None:
    """Not even in a cycle: the collector comes rarely."""

    class Thing:
        """Something that can be watched."""

    box, thing = Box(), Thing()
    gone = weakref.ref(thing)
    box.after(1, ONE, "note", box.note, (thing,))
    del thing
    gc.disable()
    try:
        await asyncio.sleep(2)
        box.notes.clear()
        await box.rest()
        assert gone() is None
    finally:
        gc.enable()

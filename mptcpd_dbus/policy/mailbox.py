"""A plugin's queues: one per connection, one for host events; each runs handlers one by one.

It knows when a handler fails, takes too long or falls behind, and decides nothing about that.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mptcpd_dbus.core.errors import InvalidArgument, MptcpdError
from mptcpd_dbus.log_fields import about
from mptcpd_dbus.policy.fault import one_line
from mptcpd_dbus.policy.snapshots import Connection, Interface
from mptcpd_dbus.policy.watch import Run, Watch

HANDLER_SECONDS = 30.0
"""A handler that takes longer is cancelled."""

GRACE_SECONDS = 2.0
"""A handler that does not end when it is cancelled is given up after this time."""

QUEUE = 1024
"""So many events may wait for one connection's handler, or for that of host events."""

HOST = 0
"""The key of the queue for host events; connections have theirs under their numbers."""

Function = Callable[..., Coroutine[Any, Any, None]]


class Item(NamedTuple):
    """A handler to be run."""

    handler: str
    function: Function
    arguments: tuple[Any, ...]
    done: "asyncio.Future[bool] | None" = None

    def about(self, plugin: str) -> dict[str, dict[str, str]]:
        """Name what it is about, for the log."""
        tokens = (a.token for a in self.arguments if isinstance(a, Connection))
        names = (a.name for a in self.arguments if isinstance(a, Interface))
        token, interface = next(tokens, None), next(names, "")
        return about(plugin=plugin, event=self.handler, token=token, interface=interface)


AT_WORK: ContextVar[Item | None] = ContextVar("AT_WORK", default=None)
"""The handler that the running task is for."""


class Failure(NamedTuple):
    """What went wrong in a handler, in one line."""

    item: Item
    text: str
    error: BaseException | None = None

    @property
    def blame(self) -> bool:
        """Whether the plugin is at fault, and not the kernel or a peer that said no."""
        return not isinstance(self.error, MptcpdError)


@dataclass(slots=True, eq=False)
class _Queue:
    """What waits, the task that works on it, and what it runs since when."""

    items: deque[Item] = field(default_factory=deque)
    task: "asyncio.Task[None] | None" = None
    running: Item | None = None
    run: Run | None = None
    since: float = 0.0
    overdue: bool = False
    timers: "set[Timer]" = field(default_factory=set)


class Timer:
    """A handler to be posted later."""

    def __init__(self, mailbox: "Mailbox", key: int, queue: _Queue) -> None:
        self._mailbox, self._key, self._queue = mailbox, key, queue
        self.handle: asyncio.TimerHandle
        queue.timers.add(self)

    def cancel(self) -> None:
        """Do not post it; nothing happens if it was posted."""
        self.handle.cancel()
        self._queue.timers.discard(self)
        self._mailbox.tidy(self._key, self._queue)


class Mailbox:
    """The queues of the plugin *name*; *failed* and *behind* hear what goes wrong."""

    def __init__(
        self,
        name: str,
        watch: Watch,
        failed: Callable[[Failure], None],
        behind: Callable[[int], None],
    ) -> None:
        self._name = name
        self._watch = watch
        self._failed = failed
        self._behind = behind
        self.failures_in_a_row = 0
        self._queues: dict[int, _Queue] = {}
        self._clock: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits; timers do not count."""
        return not any(queue.task for queue in self._queues.values())

    def post(self, key: int, handler: str, function: Function, *arguments: Any) -> None:
        """Have `function(*arguments)` awaited after what waits under *key*."""
        self._put(key, Item(handler, function, arguments))

    async def run(self, handler: str, function: Function) -> bool:
        """Run a host event's handler in its turn; give whether it went well."""
        done = asyncio.get_running_loop().create_future()
        self._put(HOST, Item(handler, function, (), done))
        return bool(await done)

    def after(
        self, seconds: float, key: int, handler: str, function: Function, arguments: tuple[Any, ...]
    ) -> Timer:
        """Post later, unless *key* is let go of before."""
        if not seconds >= 0:  # nan, too
            raise InvalidArgument(f"seconds: {seconds!r} is no time to wait")
        queue = self._queues.setdefault(key, _Queue())
        timer = Timer(self, key, queue)

        def due() -> None:
            queue.timers.discard(timer)
            timer.handle.cancel()  # it lets go of us: nothing is left for the collector
            self.post(key, handler, function, *arguments)

        timer.handle = asyncio.get_running_loop().call_later(seconds, due)
        return timer

    def finish(self, key: int, last: Item | None) -> None:
        """Expect no more under *key* after *last*: timers are off, what waits still runs."""
        queue = self._queues.get(key)
        if queue is not None:
            _stop_timers(queue)
            self.tidy(key, queue)
        if last is not None:
            self._put(key, last, however_many=True)

    def drop(self, key: int) -> None:
        """Forget what waits under *key*."""
        items = self._queues[key].items
        for item in items:
            _tell(item, well=False)
        items.clear()

    def release(self, key: int) -> list[str]:
        """Let go of *key* at once; give the handlers that were still to run."""
        queue = self._queues.pop(key, None)
        if queue is None:
            return []
        _stop_timers(queue)
        left = [item.handler for item in queue.items]
        for item in (queue.running, *queue.items):
            _tell(item, well=False)
        queue.items.clear()
        if queue.task is not None:
            queue.task.cancel()
            if queue.run is not None:
                loop = asyncio.get_running_loop()
                loop.call_later(GRACE_SECONDS, queue.run.give_up, queue.task)
        return left

    def close(self) -> None:
        """Let go of everything."""
        for key in list(self._queues):
            self.release(key)
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def tidy(self, key: int, queue: _Queue) -> None:
        """Forget a queue that has nothing more to do."""
        if queue.task is None and not queue.timers and self._queues.get(key) is queue:
            del self._queues[key]

    def _put(self, key: int, item: Item, *, however_many: bool = False) -> None:
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue()
        if len(queue.items) >= QUEUE and not however_many:
            _tell(item, well=False)
            self._behind(key)
            return
        queue.items.append(item)
        if queue.task is None:
            self._start(key, queue)

    def _start(self, key: int, queue: _Queue) -> None:
        loop = asyncio.get_running_loop()
        queue.task = loop.create_task(self._work(key, queue))
        if self._clock is None:
            self._clock = loop.call_later(GRACE_SECONDS / 2, self._look)

    async def _work(self, key: int, queue: _Queue) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 # for the type checker
        clock = asyncio.get_running_loop().time
        while queue.items:
            item = queue.running = queue.items.popleft()
            AT_WORK.set(item)
            queue.since, queue.overdue = clock(), False
            queue.run = run = Run(
                self._watch, self._name, item.handler, item.function, item.arguments
            )
            failure = None
            try:
                await run
            except GeneratorExit:  # the loop is gone
                raise
            except BaseException as error:  # noqa: BLE001 # a plugin's fault stays its own
                failure = Failure(item, one_line(error), error)
            if queue.task is not task or self._queues.get(key) is not queue:
                return  # it was given up, or nobody waits for it any more
            while task.cancelling():
                task.uncancel()
            if queue.overdue:
                failure = Failure(item, f"took longer than {HANDLER_SECONDS:g} s")
            queue.running = queue.run = None
            self._report(item, failure)
        queue.task = None
        self.tidy(key, queue)

    def _report(self, item: Item, failure: Failure | None) -> None:
        if failure is None:
            self.failures_in_a_row = 0
        elif failure.blame:
            self.failures_in_a_row += 1
        _tell(item, well=failure is None)
        if failure is not None:
            self._failed(failure)

    def _look(self) -> None:
        """Cancel what takes too long, and go on without what does not end then."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for key, queue in list(self._queues.items()):
            if queue.task is None or queue.run is None or now - queue.since < HANDLER_SECONDS:
                continue
            if not queue.overdue:
                queue.overdue = True
                queue.task.cancel()
            elif now - queue.since >= HANDLER_SECONDS + GRACE_SECONDS:
                self._give_up(key, queue, queue.task, queue.run)
        self._clock = None
        if not self.idle:
            self._clock = loop.call_later(GRACE_SECONDS / 2, self._look)

    def _give_up(self, key: int, queue: _Queue, task: "asyncio.Task[None]", run: Run) -> None:
        # The task itself may never come back: it can wait for one that will not be cancelled.
        item, queue.task, queue.running, queue.run = queue.running, None, None, None
        run.give_up(task)
        if queue.items:
            self._start(key, queue)
        self.tidy(key, queue)
        if item is not None:
            text = f"took longer than {HANDLER_SECONDS:g} s and would not be cancelled"
            self._report(item, Failure(item, text))


def _stop_timers(queue: _Queue) -> None:
    for timer in queue.timers:
        timer.handle.cancel()
    queue.timers.clear()


def _tell(item: Item | None, *, well: bool) -> None:
    if item is not None and item.done is not None and not item.done.done():
        item.done.set_result(well)

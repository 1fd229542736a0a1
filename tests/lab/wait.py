"""Waiting for a condition instead of sleeping; knows nothing of what is waited for."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
async def eventually(condition: Callable[[], Awaitable[T]], within: float = 5.0) -> T: ...
@overload
async def eventually(condition: Callable[[], T], within: float = 5.0) -> T: ...
async def eventually(condition: Callable[[], Any], within: float = 5.0) -> Any:
    """Return the first true value of the condition; an assertion fails when there is none in time.

    An AssertionError inside the condition counts as "not yet" and is what a failure shows.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        reason: AssertionError | None = None
        try:
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value
        except AssertionError as error:
            reason = error
        if loop.time() > deadline:
            name = getattr(condition, "__name__", repr(condition))
            raise AssertionError(f"not within {within} s: {reason or name}") from reason
        await asyncio.sleep(0.01)

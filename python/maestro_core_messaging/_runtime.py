"""How the native core is joined to asyncio: one descriptor a loop, one wake-up a burst."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import types
import weakref
from collections.abc import Generator
from contextvars import Context, copy_context
from typing import Any, TypeVar

import orjson

from . import _codec, _core, _errors, _logging

_T = TypeVar("_T")
_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _core.Loop] = weakref.WeakKeyDictionary()

_core.set_callables(
    _codec.loads,
    orjson.dumps,
    _codec.other_types,
    _codec.encode,
    _codec.refuse_nan,
    _errors.make,
    _codec.describe,
    asyncio.tasks._enter_task,
    asyncio.tasks._leave_task,
)
os.register_at_fork(after_in_child=_core.after_fork)
atexit.register(_core.shut_down)


def join(loop: asyncio.AbstractEventLoop) -> _core.Loop:
    """The running loop as the core knows it."""
    joined = _loops.get(loop)
    if joined is None:
        joined = _core.Loop()
        loop.add_reader(joined.fileno(), _turn, joined)
        _loops[loop] = joined
    return joined


def _turn(joined: _core.Loop) -> None:
    joined.run()
    _logging.pass_on()


async def finish(operation: _core.Operation[_T]) -> _T:
    """Waits for it. Cancelling the wait cancels it too."""
    if not operation.done:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        operation.tell(future)
        try:
            await future
        except asyncio.CancelledError:
            operation.cancel()
            raise
    return operation.result()


async def finish_in_order(operation: _core.Operation[_T]) -> _T:
    """The same for what has to end in good order: a cancelled wait goes on until it has, and is then cancelled."""
    try:
        return await finish(operation)
    except asyncio.CancelledError:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        operation.tell(future)
        await future  # a second cancellation leaves it to end by itself
        raise


@types.coroutine
def _go_on(coroutine: Any, yielded: Any, thrown: BaseException | None) -> Generator[Any, Any, Any]:
    """The rest of a coroutine whose first step was taken elsewhere, and ended by yielding `yielded`."""
    while True:
        try:
            if thrown is None:
                yield yielded
                break
            error, thrown = thrown, None
        except BaseException as raised:  # CancelledError above all: the coroutine hears of it
            error = raised
        try:
            yielded = coroutine.throw(error)
        except StopIteration as stop:
            return stop.value
    return (yield from coroutine.__await__())


async def _serve(slot: _core.Slot, loop: asyncio.AbstractEventLoop) -> None:
    """A task in which a handler goes on that waited for something in its first step."""
    thrown: BaseException | None = None
    work = slot.take()
    if work is None:
        parked = loop.create_future()
        slot.set_parked(parked)
        try:
            await parked
        except asyncio.CancelledError as cancelled:
            thrown = cancelled
        work = slot.take()
        if work is None:
            return
    coroutine, yielded, running = work
    try:
        await _go_on(coroutine, yielded, thrown)
    except BaseException as error:
        running.finish(error)
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
    else:
        running.finish(None)


class MakeSlot:
    """Makes the tasks in which handlers run, each with a copy of the context in which the consumer was started."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.context: Context = copy_context()

    def __call__(self) -> _core.Slot:
        context = self.context.copy()
        slot = _core.Slot(context)
        if sys.version_info >= (3, 11):
            slot.set_task(self._loop.create_task(_serve(slot, self._loop), context=context))
        return slot


def make_slots(loop: asyncio.AbstractEventLoop) -> MakeSlot | None:
    """None before Python 3.11, where a task cannot be given its context: there every handler runs in a task of its own."""
    return MakeSlot(loop) if sys.version_info >= (3, 11) else None

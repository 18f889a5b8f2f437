"""How the native core is joined to asyncio: one descriptor a loop, one wake-up a burst."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import select
import sys
import threading
import time
import types
import warnings
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


def join(loop: asyncio.AbstractEventLoop) -> _core.Loop:
    """The running loop as the core knows it."""
    joined = _loops.get(loop)
    if joined is None:
        joined = _core.Loop()
        loop.add_reader(joined.fileno(), _turn, joined)
        _loops[loop] = joined
    return joined


def _turn(joined: _core.Loop) -> None:
    _logging.follow_level()
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


@types.coroutine
def _begun() -> Generator[None, None, None]:
    """Where a task's coroutine stands before its task runs: one that has begun hears of a cancellation even then."""
    yield


async def _serve(slot: _core.Slot, loop: asyncio.AbstractEventLoop) -> None:
    """A task in which a handler goes on that waited for something in its first step."""
    thrown: BaseException | None = None
    try:
        await _begun()
        work = slot.take()
        if work is None:
            parked = loop.create_future()
            slot.set_parked(parked)
            await parked
    except asyncio.CancelledError as cancelled:
        thrown, work = cancelled, None
    work = work or slot.take()
    if work is None:
        return
    coroutine, yielded, running = work
    if thrown is not None and asyncio.isfuture(yielded) and yielded.cancel():
        thrown = None  # as in any task, what it waits for is cancelled, and tells it
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
            serving = _serve(slot, self._loop)
            serving.send(None)
            slot.set_task(self._loop.create_task(serving, context=context))
        return slot


class _Leaving:
    """A broker that nobody refers to any more, or whose program ends, with messages that were published with `confirm=False`."""

    def __init__(self, native: _core.Broker) -> None:
        self.native = native
        self._count = native.unflushed()
        self._flush: _core.Operation[tuple[int, list[Any]]] | None = None
        _leaving.add(self)

    def begin(self) -> None:
        if self._flush is None:
            self._flush = self.native.flush()
            self._flush.tell(self)

    # What an operation needs of a future.
    def done(self) -> bool:
        return False

    def set_result(self, _: None) -> None:
        assert self._flush is not None
        _leaving.discard(self)
        try:
            failures = self._flush.result()[1]
        except _errors.MessagingError as error:
            _say_lost(self._count, error.detail)
        else:
            if failures:
                _say_lost(len(failures), failures[0][3].detail)

    def finish(self, deadline: float) -> None:
        """Turns the loop by hand, for asyncio's is closed or stands still."""
        loop, joined, thread = _followed[self.native]
        self.begin()
        while self in _leaving and (left := deadline - time.monotonic()) > 0:
            if loop.is_running():
                time.sleep(0.01)
            elif thread == threading.get_ident():
                select.select([joined], [], [], left)
                _turn(joined)
            else:
                break  # its thread is gone, and nothing of it runs elsewhere
        if self in _leaving:
            _say_lost(self._count, "the program ended before the broker had them")


def _say_lost(count: int, why: str) -> None:
    _logging.logger.error(
        "%d messages that were published with confirm=False may be lost: %s; await flush() or disconnect() before the end", count, why
    )


_LAST_FLUSH = 10.0
_leaving: set[_Leaving] = set()
_followed: weakref.WeakKeyDictionary[_core.Broker, tuple[asyncio.AbstractEventLoop, _core.Loop, int]] = weakref.WeakKeyDictionary()


def follow(broker: object, loop: asyncio.AbstractEventLoop, native: _core.Broker) -> None:
    """Has what was published with `confirm=False` sent when the broker is left without `flush()` or `disconnect()`."""
    _followed[native] = loop, join(loop), threading.get_ident()
    weakref.finalize(broker, _left, loop, native, repr(broker)).atexit = False


def _left(loop: asyncio.AbstractEventLoop, native: _core.Broker, name: str) -> None:
    if native.unflushed() == 0:
        return
    leaving = _Leaving(native)
    with contextlib.suppress(RuntimeError):  # a closed loop: it is finished at the end of the program
        loop.call_soon_threadsafe(leaving.begin)
    warnings.warn(f"{name} was left with messages published with confirm=False; await flush() or disconnect()", ResourceWarning)


def _end() -> None:
    try:
        _core.require_not_forked()
    except _errors.MessagingError:
        return
    _core.begin_to_end()
    for native in list(_followed):
        if native.unflushed() > 0 and not any(each.native is native for each in _leaving):
            _Leaving(native)
    deadline = time.monotonic() + _LAST_FLUSH
    for leaving in list(_leaving):
        leaving.finish(deadline)
    _core.shut_down()


atexit.register(_end)


def make_slots(loop: asyncio.AbstractEventLoop) -> MakeSlot | None:
    """None before Python 3.11, where a task cannot be given its context: there every handler runs in a task of its own."""
    return MakeSlot(loop) if sys.version_info >= (3, 11) else None

"""What can come out of a processor: every exception there is, and every end of a process."""

from __future__ import annotations

import asyncio
import builtins
import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from django.conf import settings

from alya_django import (
    RetryLater,
    Row,
    RowFailed,
    Status,
    register_batch_processor,
    register_slow_query_processor,
)

APP = "misbehaviour"
WELL, EXHAUST, NEED = "well", "exhaust memory", "need memory"
BLOCK_BYTES = 2**26
# What it takes to make an exception that cannot do without.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "BaseExceptionGroup": ("several", [KeyboardInterrupt()]),
    "ExceptionGroup": ("several", [ValueError()]),
    "UnicodeDecodeError": ("utf-8", b"", 0, 1, "reason"),
    "UnicodeEncodeError": ("utf-8", "", 0, 1, "reason"),
    "UnicodeTranslateError": ("", 0, 1, "reason"),
}
BUILTINS = sorted(
    name for name, found in vars(builtins).items() if isinstance(found, type) and issubclass(found, BaseException)
)


class Panic(BaseException):
    """What a library written in another language may raise; none of Python's own catches it."""


class Unspeakable(BaseException):
    """An exception whose text cannot be made, and that does not like to be asked, and not for want of an Exception."""

    def __str__(self) -> NoReturn:
        raise Panic

    def __getattr__(self, name: str) -> NoReturn:
        raise Panic


class Answered(Exception):
    """An exception that looks like one of a storage's, and is none."""

    response: ClassVar = {"Error": "a text"}


class Unprepared(RetryLater):
    """A class that begins without what the class above it has."""

    def __init__(self) -> None:
        pass


class UnpreparedFailure(RowFailed):
    """The same of a failure that is meant."""

    def __init__(self) -> None:
        pass


def raise_builtin(name: str) -> NoReturn:
    """Raise one of Python's own exceptions."""
    raise getattr(builtins, name)(*ARGUMENTS.get(name, ()))


def raise_of_itself() -> NoReturn:
    """Raise an exception that names itself as its cause."""
    error = ValueError("of itself")
    raise error from error


def wait_too_long() -> NoReturn:
    """Ask for a time that no database can hold."""
    error = RetryLater()
    error.delay = 1e300
    raise error


def recur(depth: int = 0) -> int:
    """Call itself without end."""
    return recur(depth + 1) + 1


def exhaust_memory() -> NoReturn:
    """Take all the memory that the process may have."""
    blocks = []
    while True:
        # Zeros that nobody writes cost the machine nothing.
        blocks.append(bytes(BLOCK_BYTES))


def throw(error: BaseException) -> NoReturn:
    raise error


def need_memory() -> None:
    """Take much of the memory, and give it back."""
    bytes(4 * BLOCK_BYTES)


RARE_FAULTS: dict[str, Callable[[], Any]] = {
    "sys.exit": sys.exit,
    "CancelledError": lambda: throw(asyncio.CancelledError()),
    "Panic": lambda: throw(Panic()),
    "Unspeakable": lambda: throw(Unspeakable()),
    "Answered": lambda: throw(Answered()),
    "Unprepared": lambda: throw(Unprepared()),
    "UnpreparedFailure": lambda: throw(UnpreparedFailure()),
    "of itself": raise_of_itself,
    "too long": wait_too_long,
    "recursion": recur,
    "status": lambda: Status.FAILED,
    "tuple": lambda: (Status.SUCCESS, {}, [], {}),
}
"""What processors seldom do, or nobody thinks of."""

FAULTS = {**{name: lambda name=name: raise_builtin(name) for name in BUILTINS}, **RARE_FAULTS}
"""What fails the row with message 10 and does no more harm."""

DEATHS: dict[str, Callable[[], Any]] = {
    "exit with 0": lambda: os._exit(0),
    "exit with 3": lambda: os._exit(3),
    "segfault": lambda: ctypes.string_at(0),
}
"""What ends the process, so that the row fails with message 11 when it has done so often enough."""

DEEDS = {WELL: lambda: None, EXHAUST: exhaust_memory, NEED: need_memory, **FAULTS, **DEATHS}


async def cancel_itself() -> None:
    """Cancel the task that processes the row."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def leave_in_a_task(error: BaseException) -> None:
    """Have a task of the row's own raise what ends its event loop."""

    async def leave() -> NoReturn:
        throw(error)

    await asyncio.create_task(leave())


LOOP_FAULTS: dict[str, Callable[[], Any]] = {
    "cancels itself": cancel_itself,
    "task exits": lambda: leave_in_a_task(SystemExit(2)),
    "task is interrupted": lambda: leave_in_a_task(KeyboardInterrupt()),
}
"""What only a coroutine can do, and fails it with message 10."""


def misbehave(row: Row) -> Any:
    """Do what the row's input says, once it is written down that the row was begun."""
    note(row)
    return DEEDS[row.input]()


async def amisbehave(row: Row) -> Any:
    """Do the same on an event loop."""
    note(row)
    await asyncio.sleep(0)
    return await LOOP_FAULTS[row.input]() if row.input in LOOP_FAULTS else DEEDS[row.input]()


def note(row: Row) -> None:
    """Write down, in one piece, that a row was begun."""
    with calls_file().open("a") as file:
        file.write(f"{row.key}\n")


def calls_file() -> Path:
    """Return where it is written down which rows were begun."""
    return Path(settings.VAR_DIR) / "calls"


WAYS: dict[str, tuple[Callable[..., Any], Callable[[Row], Any], dict[str, Any]]] = {
    "batch": (register_batch_processor, misbehave, {}),
    "atomic": (register_batch_processor, misbehave, {"atomic": True}),
    "threads": (register_batch_processor, misbehave, {"concurrency": 3}),
    "coroutine": (register_batch_processor, amisbehave, {}),
    "coroutines": (register_batch_processor, amisbehave, {"concurrency": 3}),
    "slow-query": (register_slow_query_processor, misbehave, {}),
    "atomic-slow-query": (register_slow_query_processor, misbehave, {"atomic": True}),
    "slow-coroutine": (register_slow_query_processor, amisbehave, {}),
}
"""The ways in which a row can be processed, by the op: how it is registered, what as, and with which options."""


def register() -> None:
    """Register an op for each way."""
    for op, (register_processor, processor, options) in WAYS.items():
        register_processor(APP, op, processor, max_attempts=2, **options)

"""What user code raises: whatever it is, it is a fault of that code, and ends no more than what the code was for."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from traceback import clear_frames


def spare_ctrl_c(error: BaseException) -> None:
    """
    Raise a person's Ctrl-C, which is no fault of the code that it happens to meet.

    The commands handle the signal themselves: what user code raises there is its own, also a KeyboardInterrupt.
    """
    if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        raise error


def describe(error: BaseException) -> str:
    """Return an exception in words."""
    return f"{type(error).__name__}: {text_of(error)}"


def chain(error: BaseException, *, with_suppressed: bool = True) -> Iterator[BaseException]:
    """
    Yield an exception, the one that it comes from, and so on; some libraries close the chain to a ring.

    Args:
        with_suppressed: Also what ``raise ... from None`` does not want to be shown.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        is_shown = with_suppressed or not link.__suppress_context__
        link = link.__cause__ if link.__cause__ is not None or not is_shown else link.__context__


def text_of(error: BaseException) -> str:
    """Return what an exception says, nothing where it cannot be said."""
    try:
        return str(error)
    except BaseException as fault:
        spare_ctrl_c(fault)
        return ""


def let_go(error: BaseException) -> None:
    """Let go of what the code had in hand that an exception came through: of its variables, not of its traceback."""
    for link in chain(error):
        clear_frames(link.__traceback__)

"""
What logs say of exceptions: their types, their codes, and where in the project's code they come from.

What an exception says may quote what it was given. So its text, and its traceback, are only for the logs of projects
that ask for them with LOG_PAYLOADS.
"""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Sequence
from errno import errorcode
from itertools import islice
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any

from django.apps import apps

from alya_django import faults
from alya_django.conf import settings

CHAIN_MAX = 10
CODE = re.compile(r"[A-Za-z_]+|[0-9A-Z]{3,5}")
OURS = f"{Path(__file__).parent}/"
LIBRARIES = tuple(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "purelib", "platlib"))

Place = tuple[FrameType, int]
"""A frame, and the line that it had come to."""


def of_error(error: BaseException) -> str:
    """
    Return what a log says of an exception, such as ``ValueError from KeyError at payments.rows:12 in check``.

    The place is the last in the project's code; where there is none, the last in Alya's.
    """
    chain = list(islice(faults.chain(error, with_suppressed=False), CHAIN_MAX))
    said = " from ".join(map(_name, chain))
    place = _place(chain)
    if place is not None:
        frame, line = place
        said += f" at {frame.f_globals.get('__name__', '?')}:{line} in {frame.f_code.co_qualname}"
    return f"{said}: {faults.text_of(error)}" if settings.LOG_PAYLOADS else said


def traceback_of(error: BaseException) -> BaseException | None:
    """Return an exception as ``exc_info``, to have its traceback logged; None where it is not to be."""
    return error if settings.LOG_PAYLOADS else None


def _name(error: BaseException) -> str:
    known_as = _code(error) or _words_of_driver(error)
    return f"{type(error).__qualname__} ({known_as})" if known_as else type(error).__qualname__


def _code(error: BaseException) -> str:
    """Return by which code the system that has failed knows an exception, if by any: a code quotes nothing."""
    response = _attribute(error, "response")
    fault = response.get("Error") if isinstance(response, dict) else None
    codes = (
        errorcode.get(error.errno or 0) if isinstance(error, OSError) else None,
        _attribute(error, "sqlstate"),
        _attribute(error, "sqlite_errorname"),
        fault.get("Code") if isinstance(fault, dict) else None,
    )
    return next((code for code in codes if isinstance(code, str) and CODE.fullmatch(code)), "")


def _attribute(error: BaseException, name: str) -> Any:
    """Return what an exception has under a name, None where asking for it fails: it may be of anybody's making."""
    try:
        return getattr(error, name, None)
    except BaseException as fault:
        faults.spare_ctrl_c(fault)
        return None


def _words_of_driver(error: BaseException) -> str:
    """
    Return what PostgreSQL's driver says of a connection that could not be made, or was lost.

    There is no code for that, and no statement in its words: what the server says of one comes with a code.
    """
    is_operational = any(
        (base.__module__, base.__name__) == ("psycopg", "OperationalError") for base in type(error).mro()
    )
    return faults.text_of(error).partition("\n")[0] if is_operational else ""


def _place(chain: Sequence[BaseException]) -> Place | None:
    """Return where exceptions that come from each other were raised; the root knows it best."""
    for is_it in (_is_of_project, _is_ours):
        for error in reversed(chain):
            places = [place for place in walk_tb(error.__traceback__) if is_it(place[0])]
            if places:
                return places[-1]
    return None


def _is_of_project(frame: FrameType) -> bool:
    app = apps.get_containing_app_config(str(frame.f_globals.get("__name__", ""))) if apps.ready else None
    if app is not None:
        return app.name != "alya_django" and not app.name.startswith("django.")
    return not frame.f_code.co_filename.startswith((OURS, *LIBRARIES, "<frozen"))


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(OURS)

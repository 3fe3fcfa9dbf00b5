"""Notice that the project's Python files have changed, and begin the command anew."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from django.utils.autoreload import iter_all_python_module_files


class Files:
    """The files of the modules that are loaded, as they were when this was made."""

    def __init__(self) -> None:
        self._seen = _times()

    def have_changed(self) -> bool:
        """Return whether one of them has changed or is gone; those loaded later are taken in as they are then."""
        now = _times()
        changed = any(now.get(path) != time for path, time in self._seen.items())
        self._seen = {**now, **self._seen}
        return changed


def begin_anew() -> NoReturn:
    """Replace this process by one that runs the same command."""
    sys.stdout.flush()
    os.execv(sys.executable, sys.orig_argv)


def _times() -> dict[Path, float]:
    times = {}
    for path in iter_all_python_module_files():
        try:
            times[path] = path.stat().st_mtime
        except OSError:
            continue
    return times

"""Makes the environments that the peers run in, each once, with ``venv`` and pip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

NEWEST_MINOR = 19


class Unavailable(Exception):
    """A peer cannot be installed; the text says why."""


def python_of(folder: Path, requirements: tuple[str, ...], python: tuple[int, int], *, offline: bool = False) -> Path:
    """
    Return the Python of an environment that has these packages, made unless it is there.

    Raises:
        Unavailable: It is not there and cannot be made.
    """
    program, made = folder / "bin" / "python", folder / ".made"
    wanted = "\n".join(requirements)
    if made.exists() and made.read_text() == wanted:
        return program
    if offline:
        raise Unavailable(f"it is not installed in {folder}.")
    run(interpreter(python), "-m", "venv", "--clear", str(folder))
    run(program, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)
    made.write_text(wanted)
    return program


def interpreter(python: tuple[int, int]) -> Path:
    """Return this Python where it is new enough, else the newest that is installed."""
    if sys.version_info[:2] >= python:
        return Path(sys.executable)
    for program in candidates(python[1]):
        # Names that pyenv puts on the path fail where the version is not switched on.
        if not subprocess.run([program, "-c", ""], capture_output=True, check=False).returncode:
            return program
    raise Unavailable(f"it needs Python {python[0]}.{python[1]} or later, and none was found.")


def candidates(oldest_minor: int) -> Iterator[Path]:
    """Yield programs that may be a Python of this version or later, the newest first."""
    versions = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    for minor in range(NEWEST_MINOR, oldest_minor - 1, -1):
        found = shutil.which(f"python3.{minor}")
        yield from [Path(found)] if found else []
        yield from versions.glob(f"3.{minor}.*/bin/python")


def run(program: Path, *arguments: str) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable((done.stderr.strip().splitlines() or [f"{program} failed."])[-1])

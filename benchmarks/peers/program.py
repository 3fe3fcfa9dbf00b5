"""What the programs of the peers have in common. It runs in their environments: Python's own modules only."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from typing import NamedTuple

PROCESSES = 2

Payments = list[dict[str, str]]


class Worked(NamedTuple):
    """How many tasks succeeded, and in how many seconds."""

    tasks: int
    seconds: float


def main(packages: str, settings: str, *, enqueue: Callable[[Payments], None], work: Callable[[], Worked]) -> None:
    """
    Enqueue the inputs on standard input, or have the workers do them, as the first argument says.

    Args:
        packages: The installed packages whose versions matter, separated by spaces.
        settings: How the workers are set, for people to read.
    """
    if sys.argv[1] == "enqueue":
        enqueue([json.loads(line) for line in sys.stdin])
    else:
        versions = ", ".join(f"{package} {version(package)}" for package in packages.split())
        python = ".".join(map(str, sys.version_info[:2]))
        answer = {**work()._asdict(), "versions": f"Python {python}, {versions}", "settings": settings}
        print(json.dumps(answer))


def start_workers(stack: ExitStack, *command: str) -> list[subprocess.Popen[bytes]]:
    """Start two processes of ``python -m``; in the command, ``{}`` is the number of the process."""
    return [
        stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", *(part.format(number) for part in command)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        )
        for number in range(PROCESSES)
    ]


def run_workers(*command: str) -> None:
    """Start two processes that end when nothing is left to do, and wait for that."""
    with ExitStack() as stack:
        workers = start_workers(stack, *command)
    if any(worker.returncode for worker in workers):
        raise SystemExit(f"{' '.join(command)} failed.")

"""What the benchmarks share: a server with Alya's tables, input, processes, memory, rounds, the report."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

import django
import psutil
from django.core.management import call_command
from django.db import connection

from tests import services

Figures = dict[str, float]
BUSY_SECONDS = 0.5
SAMPLE_SECONDS = 0.005
MEGABYTE = 1e6
START_ASKED_EVERY_SECONDS = 0.05
TABLES = (
    "alya_batches, alya_batchrows, alya_batch_progress, alya_batch_errors, alya_workers, alya_batch_files, "
    "alya_business_keys"
)


@contextmanager
def alya(settings: str = "benchmarks.settings") -> Iterator[services.PostgreSQL]:
    """Start a PostgreSQL that would survive a crash of the machine, and set up Django on it."""
    with services.postgresql(fsync=True) as server, tempfile.TemporaryDirectory(prefix="alya-storage-") as storage:
        os.environ.update(DATABASE_URL=server.url, STORAGE_DIR=storage, DJANGO_SETTINGS_MODULE=settings)
        django.setup()
        call_command("migrate", verbosity=0)
        try:
            yield server
        finally:
            connection.close()


@contextmanager
def worker(processes: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker command, wait until its processes are there, and stop it when the block ends."""
    from alya_django.models import Worker

    command = [sys.executable, "-m", "django", "alya_worker", "--processes", f"{processes}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while Worker.objects.count() < processes:
                if process.poll() is not None:
                    raise RuntimeError(f"{' '.join(command)} failed.")
                time.sleep(START_ASKED_EVERY_SECONDS)
            yield process
        finally:
            process.terminate()


def payments(count: int) -> Iterator[dict[str, str]]:
    """Yield inputs one by one, as a reader of a file does."""
    for number in range(count):
        yield {"account": f"DE{number:020}", "amount": "12.50", "reference": f"invoice {number}"}


def empty_tables() -> None:
    """Let every run begin alike: nothing in the tables, nothing left to write for the server."""
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {TABLES}")
        cursor.execute("CHECKPOINT")


def run_together(module: str, *arguments: str, processes: int) -> None:
    """Start processes that call ``wait_for_start``, let them go once all do, and wait for their end."""
    command = [sys.executable, "-m", module, *arguments]
    with ExitStack() as stack:
        running = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            for _ in range(processes)
        ]
        for process in running:
            process.stdout.readline()  # type: ignore[union-attr]
        for process in running:
            process.stdin.close()  # type: ignore[union-attr]
    if any(process.returncode for process in running):
        raise RuntimeError(f"{' '.join(command)} failed.")


def wait_for_start() -> None:
    """Say that this process is ready, and wait until all are."""
    print(flush=True)
    sys.stdin.read()


@contextmanager
def memory_growth(growth: list[float], process: psutil.Process | None = None) -> Iterator[None]:
    """Add to a list by how many megabytes a process, this one if none is given, grew at most."""
    gc.collect()
    process = process or psutil.Process()
    idle = peak = process.memory_info().rss
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(SAMPLE_SECONDS):
            with suppress(psutil.NoSuchProcess):
                peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        growth.append((peak - idle) / MEGABYTE)


class Round(NamedTuple):
    """The rates of both sides, and how busy the processors were, in percent, before either began."""

    ours: float
    theirs: float
    busy: float

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


def compare(ours: Callable[[], float], theirs: Callable[[], float], *, rounds: int) -> Round:
    """
    Run both sides in turn, every other round the other side first, and return the round whose ratio is the median.

    The sides of a round are close in time: what slows down the machine hits both. Not alike, though: where one
    side keeps two cores busy and the other one, the ratio is too good on a machine that has no second core to spare.
    """
    done = []
    for number in range(rounds):
        busy = psutil.cpu_percent(interval=BUSY_SECONDS)
        sides = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        rates = {side: side() for side in sides}
        done.append(Round(rates[ours], rates[theirs], busy))
        print("round {}: {:,.0f} / {:,.0f} = {:.2f}".format(number + 1, *done[-1][:2], done[-1].ratio), flush=True)
    return sorted(done, key=lambda one: one.ratio)[(rounds - 1) // 2]


def report(title: str, figures: Mapping[str, float | Figures]) -> None:
    """Print a table, and last the figures as one line of JSON. A figure may have parts, under names of their own."""
    print(f"\n{title}")
    for name, value in figures.items():
        for part, one in value.items() if isinstance(value, dict) else [("", value)]:
            decimals = 0 if abs(one) >= 100 or one == int(one) else 2
            print(f"  {f'{name} {part}'.strip():<24}{one:>14,.{decimals}f}")
    print(json.dumps({name: _rounded(value) for name, value in figures.items()}))


def _rounded(value: float | Figures) -> float | Figures:
    return {part: round(one, 3) for part, one in value.items()} if isinstance(value, dict) else round(value, 3)

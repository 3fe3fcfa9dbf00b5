"""``manage.py demo``: the flights of January 2013 through submit, worker and finish."""

import csv
import gzip
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.files.storage import default_storage
from django.core.management.base import BaseCommand, CommandError

from alya_django import Status, Summary, batches

FILE = Path(__file__).resolve().parents[2] / "data" / "flights_2013_01.csv.gz"
BAR = 40


class Command(BaseCommand):
    help = "Sends the flights of January 2013 through a batch and prints what came out."

    def handle(self, *args: Any, **options: Any) -> None:
        logging.getLogger("alya_django").setLevel(logging.WARNING)
        started = time.monotonic()
        batch_id = batches.submit("flights", "punctuality", flights(), input_file=FILE.name, requested_by="demo")
        nrows = batches.status(batch_id).nrows
        self.stdout.write(f"Batch {batch_id}: {nrows} rows submitted in {time.monotonic() - started:.1f} s.")
        command = [sys.executable, sys.argv[0], "alya_worker", "--drain", "--app", "flights"]
        worker = subprocess.Popen(command, env=self._environment())
        self._follow(batch_id, worker)
        if worker.wait() != 0:
            raise CommandError(f"The worker ended with {worker.returncode}.")
        self._report(batch_id)
        self.stdout.write(f"Done in {time.monotonic() - started:.1f} s.")

    def _follow(self, batch_id: UUID, worker: "subprocess.Popen[bytes]") -> None:
        """Show the progress, in one line that moves or, where this is no terminal, in one a second."""
        is_terminal = self.stdout.isatty()
        while True:
            running = worker.poll() is None
            summary = batches.status(batch_id)
            text = progress(summary)
            self.stdout.write(f"\r{text}" if is_terminal else text, ending="" if is_terminal else "\n")
            self.stdout.flush()
            if not summary.try_later or not running:
                break
            time.sleep(0.2 if is_terminal else 1)
        if is_terminal:
            self.stdout.write("")

    def _report(self, batch_id: UUID) -> None:
        summary = batches.status(batch_id)
        reasons: dict[str, int] = {}
        for row in batches.iter_rows(batch_id, status=Status.FAILED):
            for message in row.messages:
                reasons[message.errcode] = reasons.get(message.errcode, 0) + 1
        self.stdout.write(f"Status: {summary.status.label}")
        self.stdout.write(f"  {summary.nsuccess:6} success")
        for errcode, count in sorted(reasons.items()):
            self.stdout.write(f"  {count:6} {errcode}")
        self.stdout.write("Output files:")
        carriers = 0
        for name in sorted(summary.output_files):
            with batches.open_output(batch_id, name) as file:
                lines = sum(1 for _ in file)
            carriers += lines if name != "late.csv" else 0
            self.stdout.write(f"  {lines:6} lines  {name:8}  {summary.output_files[name]}")
        self.stdout.write(f"  {carriers:6} lines in the carriers' files together")
        name = f"summaries/{batch_id}/summary.json"
        with default_storage.open(name) as file:
            self.stdout.write(f"mark_done wrote {name}, {len(file.read())} bytes.")

    def _environment(self) -> dict[str, str]:
        import os

        return {**os.environ, "LOG_LEVEL": "WARNING"}


def flights() -> Iterator[dict[str, str]]:
    """Yield the flights of the file, each as strings by column name."""
    with gzip.open(FILE, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def progress(summary: Summary) -> str:
    """Return a batch's progress as a bar and figures."""
    ended = summary.nsuccess + summary.nfailed + summary.naborted
    share = ended / summary.nrows
    bar = "#" * round(share * BAR)
    return f"[{bar:<{BAR}}] {share:6.1%}  {ended} of {summary.nrows} rows, {summary.nfailed} failed"

"""``manage.py demo_files``: a file of payments comes in, goes back in part, comes in again, and reconciles."""

import csv
import io
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from alya_django import RowOutcome, Status, batches, outputs
from alya_django.models import BatchFile
from example_project.bank import reconciliation, story
from example_project.bank.models import Account
from example_project.bank.money import to_text
from example_project.bank.reconciliation import Fate

WAIT_SECONDS = 60
LOOK_SECONDS = 0.1
WORKER = ("alya_worker", "--drain", "--app", "bank", "--op", "transfer")


class Command(BaseCommand):
    help = "Tells the story of a file: received, processed, returned, corrected, received again; and reconciles it."

    def handle(self, *args: Any, **options: Any) -> None:
        run = f"{timezone.localtime():%Y%m%d-%H%M%S}"
        incoming, returned = _folder("incoming"), _folder("returned")
        story.open_accounts(run)
        opening, total_before = _balances(), reconciliation.total_cents()
        path = self._send(incoming / f"TXN-{run}.csv", story.payments(run))
        batch_id, faulty = self._receive(path)
        self._work(batch_id)
        self._show_ledger(opening)
        corrected = self._return(batch_id, returned)
        self._receive_again(batch_id, corrected)
        self._show_sequels(batch_id)
        self._show_ledger(opening)
        self._reconcile(batch_id, faulty, total_before)

    def _send(self, path: Path, content: str) -> Path:
        self._say("A customer sends a file of payments")
        self._tell(f"It arrives as {path}:")
        # Renamed when it is complete: what begins with a dot is passed over.
        unfinished = path.with_name(f".{path.name}")
        unfinished.write_text(content)
        unfinished.rename(path)
        self._list(f"{number:2}  {line}" for number, line in enumerate(content.splitlines(), 1))
        return path

    def _receive(self, path: Path) -> tuple[UUID, list[int]]:
        """Have the file received, and return its batch and its faulty lines."""
        self._say("The bank receives what is in the directory")
        self._manage("alya_watch", str(path.parent), "--match", "TXN*.csv=payments", "--age", "0", "--once")
        file = BatchFile.objects.get(file_name=path.name)
        if file.batch_id is None:
            raise CommandError(f"{path} was rejected: {file.error_message}")
        faults = _faults(file)
        self._tell("Lines that can be no payment are named to the sender. They are not in the batch:")
        self._list(f"line {line}: {reason}" for line, reason in faults.items())
        return file.batch_id, list(faults)

    def _work(self, batch_id: UUID) -> None:
        self._say("A worker moves the money")
        self._process(batch_id)
        self._tell("Each transfer and what became of its row are committed together, so these have moved nothing:")
        self._list(f"line {row.line}: {_reasons(row)}" for row in batches.iter_rows(batch_id, status=Status.FAILED))

    def _show_ledger(self, opening: dict[str, int]) -> None:
        self._tell("The ledger:")
        self._list([f"{'account':8} {'holder':8} {'opening':>9} {'now':>9}"])
        for number, cents in _balances().items():
            holder, _ = story.OPENINGS[number]
            self._list([f"{number:8} {holder:8} {to_text(opening[number]):>9} {to_text(cents):>9}"])

    def _return(self, batch_id: UUID, folder: Path) -> Path:
        """Write the return file, correct it, and return where the corrected one is."""
        self._say("What has failed goes back, in the customer's own columns")
        returned = Path(self._manage("alya_return_file", str(batch_id), "--output", str(folder)).strip())
        self._list(returned.read_text().splitlines())
        self._say("The customer corrects what can be corrected")
        corrected = returned.with_name(returned.name.replace(".return.", ".corrected."))
        for line, changes in story.correct(returned, corrected).items():
            told = [f"{column} {before} becomes {after}" for column, (before, after) in changes.items()]
            self._list([f"line {line}: {', '.join(told) or 'left as it is'}"])
        return corrected

    def _receive_again(self, batch_id: UUID, corrected: Path) -> None:
        self._say("The corrected file comes in, as a child of the batch")
        self._manage("alya_submit", str(corrected), "--type", "payments", "--parent", str(batch_id))
        (child,) = batches.children(batch_id)
        self._process(child)

    def _show_sequels(self, batch_id: UUID) -> None:
        self._say("What became of each line that had failed")
        for row in batches.iter_rows(batch_id, status=Status.FAILED):
            (sequel,) = batches.line(batch_id, row.line).sequels.values()
            self._list([f"line {row.line}: {_reasons(row)}; then {_reasons(sequel) or sequel.status.label}"])

    def _reconcile(self, batch_id: UUID, faulty: list[int], total_before: int) -> None:
        self._say("Does it reconcile?")
        fate_of = reconciliation.fates(batch_id, faulty)
        for fate in Fate:
            lines = sorted(line for line in fate_of if fate_of[line] is fate)
            self._list([f"{len(lines)} {fate}: {'line' if len(lines) == 1 else 'lines'} {', '.join(map(str, lines))}"])
        found = reconciliation.discrepancies(batch_id, fate_of, lines=story.LINES, total_before=total_before)
        if found:
            raise CommandError("It does not reconcile. " + " ".join(found))
        self._tell(
            f"Reconciled: all {len(story.LINES)} lines are accounted for, each success was paid once and nothing else "
            f"was, and all accounts together have what they had."
        )

    def _process(self, batch_id: UUID) -> None:
        self._manage(*WORKER)
        # Where other workers run, such as those of the demo site, this one may end before they do.
        deadline = time.monotonic() + WAIT_SECONDS
        while (summary := batches.status(batch_id)).try_later:
            if time.monotonic() > deadline:
                raise CommandError(f"The batch {batch_id} has not ended in {WAIT_SECONDS} s.")
            time.sleep(LOOK_SECONDS)
        self._tell(
            f"The batch has ended as {summary.status.label}: {summary.nsuccess} success, {summary.nfailed} failed."
        )

    def _manage(self, *arguments: str) -> str:
        """Run a management command as a reader would, show it and what it prints, and return that."""
        self._tell(f"$ python manage.py {shlex.join(arguments)}")
        environment = {"LOG_LEVEL": "WARNING", **os.environ}
        done = subprocess.run(
            [sys.executable, sys.argv[0], *arguments], env=environment, text=True, stdout=subprocess.PIPE
        )
        self._list(done.stdout.splitlines())
        if done.returncode:
            raise CommandError(f"{arguments[0]} ended with {done.returncode}.")
        return done.stdout

    def _say(self, heading: str) -> None:
        """Begin a chapter."""
        self.stdout.write(self.style.MIGRATE_HEADING(f"\n{heading}"))

    def _tell(self, line: str) -> None:
        self.stdout.write(f"  {line}")
        # What a process prints that is started next must not come before it.
        self.stdout.flush()

    def _list(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.stdout.write(f"      {line}")


def _folder(name: str) -> Path:
    folder = Path(os.path.relpath(settings.VAR_DIR)) / "demo-files" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _balances() -> dict[str, int]:
    return dict(Account.objects.filter(number__in=story.OPENINGS).values_list("number", "cents"))


def _faults(file: BatchFile) -> dict[int, str]:
    """Return the reasons of the faulty lines."""
    with outputs.open(file.error_object_id) as faults:
        lines = csv.DictReader(io.TextIOWrapper(faults, encoding="utf-8", newline=""))
        return {int(fault["line"]): fault["reason"] for fault in lines}


def _reasons(row: RowOutcome) -> str:
    return ", ".join(f"{message.errcode} ({message.field})" for message in row.messages)

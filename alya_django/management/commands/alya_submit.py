"""``manage.py alya_submit``: receive one file by hand."""

from __future__ import annotations

import csv
import io
import os
import sys
from argparse import ArgumentParser
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import CommandError

from alya_django import outputs
from alya_django.answers import Receipt
from alya_django.exceptions import InvalidInput, NotFound
from alya_django.intake import process
from alya_django.management import arguments
from alya_django.management.batch_commands import (
    Code,
    OperatorCommand,
    find,
    printed,
    printed_differences,
    receipt_as_json,
)
from alya_django.management.terminal import bytes_bar
from alya_django.validation import JSON

REQUESTED_BY = "alya_submit"
FAULTS_SHOWN = 20


class Command(OperatorCommand):
    help = "Receives a file: makes a batch of its lines, and names those that are faulty; or says why it is rejected."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="The file.")
        super().add_arguments(parser)
        parser.add_argument("--type", required=True, help="What its checker is registered for.")
        parser.add_argument(
            "--context",
            type=arguments.json_object,
            metavar="JSON",
            help="An object for the checker and the batch.",
        )
        parser.add_argument("--wait", action="store_true", help="Keep the batch back until it is released.")
        parser.add_argument(
            "--allow-duplicate", action="store_true", help="Also if the same content was accepted before."
        )
        parser.add_argument(
            "--parent",
            metavar="ID",
            help="The batch whose failed rows, corrected, the file has; see alya_return_file.",
        )

    def act(self, options: dict[str, Any]) -> None:
        with _open(options["file"]) as file:
            receipt = self._receive(file, options)
        faults = _faults(receipt)
        if self.is_json or receipt.accepted or faults:
            self.tell("\n".join(_as_text(receipt, faults)), {**receipt_as_json(receipt), "faults": faults})
        if not receipt.accepted:
            raise CommandError(f"{options['file']} was rejected: {printed(receipt.reason)}", returncode=Code.REFUSED)
        if receipt.totals_mismatch:
            differences = printed_differences(receipt.totals_mismatch)
            raise CommandError(f"The batch waits: {differences}", returncode=Code.FAILED)
        if receipt.nfaulty:
            raise CommandError(f"Faulty lines, not in the batch: {receipt.nfaulty:,}.", returncode=Code.FAILED)

    def _receive(self, file: BinaryIO, options: dict[str, Any]) -> Receipt:
        size = os.fstat(file.fileno()).st_size
        stream = io.StringIO() if self.is_json else sys.stdout
        with bytes_bar(stream, size) as show:
            return process(
                file=_Shown(file, show),
                file_name=options["file"].name,
                file_type=options["type"],
                context=options["context"],
                wait=options["wait"],
                requested_by=REQUESTED_BY,
                allow_duplicate=options["allow_duplicate"],
                parent=find(options["parent"]).id if options["parent"] else None,
                on_read=None if show is None else lambda done: show("checking", done),
            )


class _Shown:
    """A file of which is shown how much was read."""

    def __init__(self, file: BinaryIO, show: Any) -> None:
        self._file = file
        self._show = show or (lambda word, done: None)

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._show("storing", self._file.tell())
        return data


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise NotFound(f"There is no file {path}.") from None
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}.", field="file") from error


def _faults(receipt: Receipt) -> list[dict[str, JSON]]:
    """Return the first faulty lines, each with its reason."""
    if not receipt.error_object_id:
        return []
    with outputs.open(receipt.error_object_id) as file:
        lines = csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
        return [{"line": int(line), "reason": printed(reason)} for line, reason in islice(lines, 1, FAULTS_SHOWN + 1)]


def _as_text(receipt: Receipt, faults: list[dict[str, JSON]]) -> list[str]:
    told = [f"line {fault['line']}: {fault['reason']}" for fault in faults]
    if receipt.nfaulty > len(faults):
        told.append(f"and {receipt.nfaulty - len(faults):,} more faulty lines")
    if receipt.error_object_id:
        told.append(f"all faulty lines: {receipt.error_object_id}")
    if receipt.accepted:
        told.append(f"batch {receipt.batch_id}: {receipt.nrows:,} rows")
    return told

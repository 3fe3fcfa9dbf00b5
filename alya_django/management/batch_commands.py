"""What the commands of operators have in common: how they find a batch, print it, and end."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from argparse import ArgumentParser
from dataclasses import asdict
from datetime import datetime
from enum import IntEnum
from typing import Any, Literal

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Prefetch
from django.utils.timezone import localtime

from alya_django import log_words, masks
from alya_django.answers import Receipt
from alya_django.conf import settings
from alya_django.exceptions import AlyaError, InvalidInput, NotFound
from alya_django.management import arguments
from alya_django.management.terminal import bar
from alya_django.models import Batch, BatchProgress
from alya_django.querysets import BatchQuerySet, Op
from alya_django.readable import readable
from alya_django.registry import registry
from alya_django.status import Kind, Status
from alya_django.validation import JSON, check_id_prefix

KIND_WORDS = {kind: word for word, kind in arguments.KINDS.items()}
SHORT_ID = 8
LACKING = {
    "worker": "a worker: none that is alive serves {batch.app}/{batch.op}",
    "processor": "a processor: {batch.app}/{batch.op} is registered neither here nor in a worker that is alive",
}


class Code(IntEnum):
    """With what a command ends that has not done what it was asked for; 1 is left to what breaks."""

    WRONG_ARGUMENT = 2
    NOT_FOUND = 3
    REFUSED = 4
    FAILED = 5
    UNFINISHED = 6


class OperatorCommand(BaseCommand, ABC):
    """A command that prints words for people or, with ``--json``, an object for programs."""

    # Whether the project is sound was asked when the workers began.
    requires_system_checks: list[str] | Literal["__all__"] = []  # noqa: RUF012 (Django's own type)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="Print JSON, one object in a line.")

    def handle(self, *args: Any, **options: Any) -> None:
        self.is_json = options["json"]
        try:
            self.act(options)
        except CommandError as complaint:
            raise CommandError(readable(str(complaint)), returncode=complaint.returncode) from None
        except AlyaError as error:
            raise self.ending(str(error), _code(error)) from None
        except Exception as error:
            # What it says may quote a payload, and who runs commands by schedules keeps or sends what they print.
            raise self.ending(what_broke(error)) from error

    @abstractmethod
    def act(self, options: dict[str, Any]) -> None:
        """Do what the command is for; an AlyaError ends it with the code of its kind, an outage with 1."""

    def tell(self, text: str, value: JSON) -> None:
        """Print a text or, with ``--json``, a value, at once also where nobody sits at a terminal."""
        self.stdout.write(json.dumps(value) if self.is_json else readable(text))
        self.stdout.flush()

    def ending(self, text: str, code: int = 1) -> CommandError:
        """Return what ends the command with a code and a text, which ``--json`` has printed by then."""
        if self.is_json:
            self.stdout.write(json.dumps({"error": text}))
        return CommandError(readable(text), returncode=code)


class BatchCommand(OperatorCommand):
    """A command on one batch or slow query."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("id", help="The id, or the first digits of it, four at least, if no other begins so.")
        super().add_arguments(parser)


def find(text: str) -> Batch:
    """Return the batch or slow query whose id is a text, or begins with it; raise NotFound or InvalidInput."""
    found = list(stored().beginning_with(check_id_prefix(text)).order_by("pk")[:2])
    if not found:
        raise NotFound(f"There is no batch and no slow query {text}.")
    if len(found) > 1:
        raise InvalidInput(f"{text!r} is the beginning of several ids.", field="id")
    return found[0]


def stored() -> BatchQuerySet:
    """Return all batches and slow queries, with their progress."""
    return (
        Batch.objects.primary()
        .present()
        .prefetch_related(Prefetch("progress", queryset=BatchProgress.objects.primary()))
    )


def as_json(batch: Batch) -> dict[str, JSON]:
    """Return a batch as an object for programs: states as they are stored, times in ISO 8601."""
    details = batch.details(slots=batch.progress.all())
    return {
        "id": str(details.id),
        "app": details.app,
        "op": details.op,
        "kind": KIND_WORDS[details.kind],
        "status": details.status.value,
        "held": batch.is_held,
        "hold_reason": batch.hold_reason if batch.is_held else "",
        "totals_mismatch": printed_differences(batch.totals_mismatch),
        "nrows": details.nrows,
        "nsuccess": details.nsuccess,
        "nfailed": details.nfailed,
        "naborted": details.naborted,
        "nput_off": _put_off(batch),
        "requested_at": details.requested_at.isoformat(),
        "started_at": _iso(details.started_at),
        "done_at": _iso(details.done_at),
        "requested_by": details.requested_by,
        "input_file": details.input_file,
        "output_files": batch.output_files,
        "parent": str(details.parent) if details.parent else None,
    }


def receipt_as_json(receipt: Receipt) -> dict[str, JSON]:
    """Return what became of a file as an object for programs."""
    return {
        **asdict(receipt),
        "batch_id": str(receipt.batch_id) if receipt.batch_id else None,
        "reason": printed(receipt.reason),
        "totals_mismatch": printed_differences(receipt.totals_mismatch),
    }


def what_broke(error: Exception) -> str:
    """Say as logs do which exception has ended a command, and where there is more of it."""
    return f"{log_words.of_error(error)}; --traceback shows it all."


def printed(text: str) -> str:
    """
    Return a text that may quote a payload as commands print it.

    What a command prints ends up in logs. So it is hidden where anything is masked, unless LOG_PAYLOADS is true.
    """
    return text if not text or _prints_all() else masks.MASK


def printed_differences(text: str) -> str:
    """Return in what a file's totals are not as declared as commands print it, without sums that are masked."""
    return text if _prints_all() else masks.without_sums(text)


def as_line(batch: Batch, lacks: str) -> str:
    """Return a batch in one line of a list, with what it lacks to go on."""
    share = f"{_ended(batch) * 100 // max(batch.nrows, 1):3}%"
    op = f"{batch.app}/{batch.op}{_no(lacks)}"
    requested = f"{localtime(batch.requested_at):%Y-%m-%d %H:%M}"
    return f"{str(batch.id)[:SHORT_ID]}  {requested}  {_state(batch):<11}  {share}  {batch.nrows:>9,}  {op}"


def as_progress(batch: Batch, lacks: str) -> str:
    """Return how far a batch has come, in one line, with what it lacks to go on."""
    ended, nfailed = _ended(batch), _counts(batch)["nfailed"]
    put_off = f", {_put_off(batch):,} put off" if _put_off(batch) else ""
    rows = f"{ended:,} of {batch.nrows:,} rows, {nfailed:,} failed{put_off}"
    return f"{bar(ended, batch.nrows)}  {_state(batch)}  {rows}{_no(lacks)}"


def as_text(batch: Batch, lacks: str) -> str:
    """Return all that a person asks of a batch, in lines, with what it lacks to go on."""
    counts = _counts(batch)
    rows = [f"{batch.nrows:,}", *(f"{count:,} {name[1:]}" for name, count in counts.items())]
    put_off = f", {_put_off(batch):,} of them put off" if _put_off(batch) else ""
    lines = {
        Kind(batch.kind).label: f"{batch.id}  {batch.app}/{batch.op}",
        "status": f"{_state(batch)}: {batch.hold_reason}" if batch.is_held else _state(batch),
        "lacks": LACKING[lacks].format(batch=batch) if lacks else "",
        "rows": ", ".join([*rows, f"{batch.nrows - sum(counts.values()):,} to go{put_off}"]),
        "requested": _when(batch.requested_at) + (f" by {batch.requested_by}" if batch.requested_by else ""),
        "input file": batch.input_file,
        "totals": printed_differences(batch.totals_mismatch),
        "started": _when(batch.started_at),
        "done": _when(batch.done_at),
        "parent": str(batch.parent_id or ""),
        "output files": ", ".join(sorted(batch.output_files)),
    }
    return "\n".join(f"{name:<12}  {text}" for name, text in lines.items() if text)


def lacking(batch: Batch, served: set[Op]) -> str:
    """
    Return what a batch that has not ended lacks to go on: ``worker``, ``processor``, or nothing.

    Args:
        served: What the workers that are alive serve. They may be of another project, and know processors that this
            one does not.
    """
    if Status(batch.status).is_final or (batch.kind, batch.app, batch.op) in served:
        return ""
    return "worker" if registry.find(Kind(batch.kind), batch.app, batch.op) else "processor"


def _prints_all() -> bool:
    return bool(settings.LOG_PAYLOADS) or not masks.is_any()


def _code(error: AlyaError) -> Code:
    if isinstance(error, InvalidInput):
        return Code.WRONG_ARGUMENT
    return Code.NOT_FOUND if isinstance(error, NotFound) else Code.REFUSED


def _state(batch: Batch) -> str:
    return "held" if batch.is_held else str(Status(batch.status).label)


def _no(lacks: str) -> str:
    return f"  no {lacks}" if lacks else ""


def _counts(batch: Batch) -> dict[str, int]:
    return batch.counts(batch.progress.all())


def _put_off(batch: Batch) -> int:
    return batch.nput_off(batch.progress.all())


def _ended(batch: Batch) -> int:
    return sum(_counts(batch).values())


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _when(moment: datetime | None) -> str:
    return f"{localtime(moment):%Y-%m-%d %H:%M:%S}" if moment else ""

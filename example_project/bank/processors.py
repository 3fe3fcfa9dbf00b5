"""The bank's work: transfers as rows of a batch, statements as slow queries. Amounts are text such as ``12.34``."""

import csv
import io
import json
import time
from collections.abc import Iterable
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db.models import Sum

from alya_django import (
    BatchDetails,
    BatchProcessor,
    InitBlock,
    Initializer,
    QueryResult,
    Row,
    RowFailed,
    RowResult,
    SlowQueryProcessor,
    register_batch_processor,
    register_initializer,
    register_slow_query_processor,
)
from example_project.bank import ledger, statements
from example_project.bank.models import Entry, Limit
from example_project.bank.money import to_cents, to_text

LIMITS_SECONDS = 60
TEXT_MAX = 140


class Limits(InitBlock):
    """The table of limits, read once for many rows, and anew when it is a minute old."""

    def __init__(self) -> None:
        self.cents = dict(Limit.objects.values_list("kind", "cents"))
        self._read_at = time.monotonic()

    def is_alive(self) -> bool:
        return time.monotonic() - self._read_at < LIMITS_SECONDS


class LimitsInitializer(Initializer):
    """Make the init block of the bank."""

    def init(self, app: str) -> Limits:
        return Limits()


register_initializer("bank", LimitsInitializer)


@register_batch_processor("bank", "transfer")
class TransferProcessor(BatchProcessor):
    """
    Move money, once for each row however often it runs, and gather what was posted and what was rejected.

    Input: ``{"debtor": "1001", "creditor": "1002", "amount": "12.34", "text": "Rent"}``.

    It is atomic: what ``ledger.post`` writes and what becomes of the row are committed together. The rows of one
    transaction lock accounts in any order, so workers do meet deadlocks; no transfer fails for one.
    """

    atomic = True

    def do_batch_job(self, row: Row) -> RowResult:
        order = row.input
        cells = [row.line, *(order.get(name, "") for name in ("debtor", "creditor", "amount"))]
        try:
            transfer = self._transfer(row)
            ledger.post(transfer, limits=row.init_block.cents)
        except RowFailed as refusal:
            reasons = [f"{message.errcode}:{message.field}" for message in refusal.messages]
            return RowResult.failed(*refusal.messages, output_lines={"rejected.csv": _csv([[*cells, *reasons]])})
        result = {"reference": transfer.reference, "amount": to_text(transfer.cents)}
        return RowResult.success(result, output_lines={"posted.csv": _csv([[*cells, transfer.reference]])})

    def mark_done(self, details: BatchDetails) -> None:
        """Write what the batch moved to the storage, as ``totals/<batch id>.json``; again is the same."""
        moved = Entry.objects.filter(batch_id=details.id, cents__gt=0).aggregate(cents=Sum("cents"))["cents"]
        totals = {
            "status": details.status,
            "posted": details.nsuccess,
            "rejected": details.nfailed,
            "aborted": details.naborted,
            "amount": to_text(moved or 0),
        }
        name = totals_name(details.id)
        default_storage.delete(name)
        default_storage.save(name, ContentFile(json.dumps(totals, indent=2)))

    def _transfer(self, row: Row) -> ledger.Transfer:
        order = row.input
        cents = to_cents(order.get("amount"))
        if cents is None:
            raise RowFailed(ledger.BAD_AMOUNT)
        return ledger.Transfer(
            debtor=order.get("debtor"),
            creditor=order.get("creditor"),
            cents=cents,
            reference=row.key,
            text=str(order.get("text", ""))[:TEXT_MAX],
            batch_id=row.batch_id,
            line=row.line,
        )


@register_slow_query_processor("bank", "statement")
class StatementProcessor(SlowQueryProcessor):
    """
    Write an account's statement to ``statement.csv``.

    Input: ``{"account": "1001", "from": "2026-11-01", "to": "2026-11-30"}``, both days included.
    """

    def do_slow_query(self, row: Row) -> QueryResult:
        asked = statements.Period.from_input(row.input)
        opening_cents = asked.opening_cents()
        lines = list(asked.lines(opening_cents))
        text = _csv([statements.COLUMNS, *(line.cells() for line in lines)])
        result = {
            "account": asked.account.number,
            "entries": len(lines),
            "opening": to_text(opening_cents),
            "closing": to_text(lines[-1].balance_cents if lines else opening_cents),
        }
        return QueryResult.success(result, output_files={"statement.csv": ContentFile(text.encode())})


def totals_name(batch_id: object) -> str:
    """Return the name of the object that holds a batch's totals."""
    return f"totals/{batch_id}.json"


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()

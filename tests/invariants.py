"""What must hold of the tables at any moment (INV-1..8, 10, 11, and progress = rows), asked with plain queries."""

from __future__ import annotations

from collections import Counter

from django.db.models import Count, F, Q, Sum

from alya_django.db import ERRCODES_MAX, OTHER
from alya_django.models import Batch, BatchProgress, BatchRow
from alya_django.status import FINAL, PENDING, Kind, Status
from alya_django.validation import TEXT_MAX


def check_invariants() -> None:
    """Fail with the first batch or row that breaks a rule."""
    for rule, broken in _broken().items():
        assert not list(broken[:3]), f"{rule}: {list(broken[:3].values())}"
    for batch in Batch.objects.all():
        _check_counts(batch)
        if batch.kind == Kind.BATCH and batch.status in FINAL:
            _check_output_files(batch)


def _broken() -> dict[str, object]:
    batches, rows = Batch.objects.all(), BatchRow.objects.all()
    final, ended = Q(status__in=FINAL), Q(status__in=[Status.SUCCESS, Status.FAILED])
    return {
        "INV-1 a batch has done_at when it is final, and only then": batches.filter(
            final & Q(done_at=None) | ~final & Q(done_at__isnull=False)
        ),
        "INV-2 the counts of a final batch are its rows": batches.filter(final).exclude(
            nrows=F("nsuccess") + F("nfailed") + F("naborted")
        ),
        "INV-3 success has neither failed nor aborted rows": batches.filter(status=Status.SUCCESS).exclude(
            nfailed=0, naborted=0
        ),
        "INV-3 failed has failed rows and none aborted": batches.filter(status=Status.FAILED).exclude(
            nfailed__gt=0, naborted=0
        ),
        "INV-3 aborted has aborted rows": batches.filter(status=Status.ABORTED).exclude(naborted__gt=0),
        "INV-4 a final batch has no pending row": rows.filter(status__in=PENDING, batch__status__in=FINAL),
        "INV-5 a row that ended has done_at and done_by": rows.filter(ended).filter(Q(done_at=None) | Q(done_by=None)),
        "INV-5 an aborted row has done_at": rows.filter(status=Status.ABORTED, done_at=None),
        "INV-6 a success has a result": rows.filter(status=Status.SUCCESS, result__isnull=True),
        "INV-6 an aborted row has nothing": rows.filter(status=Status.ABORTED).exclude(
            result__isnull=True, messages__isnull=True, output_lines__isnull=True
        ),
        "INV-7 a slow query has one row": batches.filter(kind=Kind.SLOW_QUERY)
        .annotate(n=Count("rows"))
        .exclude(n=1, nrows=1),
        "INV-7 a slow query's row is line 0 without output lines": rows.filter(batch__kind=Kind.SLOW_QUERY).exclude(
            line=0, output_lines__isnull=True
        ),
        "INV-7 a batch's lines begin at 1": rows.filter(batch__kind=Kind.BATCH, line__lt=1),
        "INV-8 an aborted batch has no output files": batches.filter(status=Status.ABORTED).exclude(output_files={}),
        "INV-10 no row of a waiting batch is in progress": rows.filter(
            batch__status=Status.WAIT, status=Status.IN_PROGRESS
        ),
        "a row has a claim while it is in progress, and only then": rows.filter(
            Q(status=Status.IN_PROGRESS, claim=None) | ~Q(status=Status.IN_PROGRESS) & Q(claim__isnull=False)
        ),
    }


def _check_counts(batch: Batch) -> None:
    by_status = dict(batch.rows.order_by().values_list("status").annotate(Count("id")))
    assert sum(by_status.values()) == batch.nrows, f"nrows = rows: {batch!r}"
    progress = BatchProgress.objects.filter(batch=batch).aggregate(s=Sum("nsuccess"), f=Sum("nfailed"))
    counted = progress["s"] or 0, progress["f"] or 0
    assert counted == (by_status.get(Status.SUCCESS, 0), by_status.get(Status.FAILED, 0)), f"progress: {batch!r}"
    _check_errors(batch)
    if batch.status not in FINAL:
        assert batch.nput_off() == batch.rows.pending().were_put_off().count(), f"LAT-6: {batch!r}"
    if batch.status in FINAL:
        assert (batch.nsuccess, batch.nfailed) == counted, f"INV-2: {batch!r}"
        assert batch.naborted == by_status.get(Status.ABORTED, 0), f"INV-2: {batch!r}"


def _check_errors(batch: Batch) -> None:
    messages = batch.rows.filter(status=Status.FAILED).values_list("messages", flat=True)
    failed = Counter(of_row[0]["errcode"] if of_row else OTHER for of_row in messages)
    counts = batch.error_counts()
    kept = {errcode: failed[errcode] for errcode in counts if errcode != OTHER}
    rest = failed.total() - sum(kept.values())
    assert counts == {**kept, **({OTHER: rest} if rest else {})}, f"INV-11: {batch!r}"
    assert len(kept) <= ERRCODES_MAX, f"INV-11: {batch!r}"
    is_full = len(kept) == ERRCODES_MAX
    assert is_full or all(map(_is_other, failed.keys() - kept.keys())), f"INV-11: {batch!r}"


def _is_other(errcode: str) -> bool:
    return errcode == OTHER or len(errcode) > TEXT_MAX


def _check_output_files(batch: Batch) -> None:
    contributions = batch.rows.ended().filter(output_lines__isnull=False).values_list("output_lines", flat=True)
    names = {name for lines in contributions for name, text in lines.items() if text}
    expected = set() if batch.status == Status.ABORTED else names
    assert set(batch.output_files) == expected, f"INV-8: {batch!r}"

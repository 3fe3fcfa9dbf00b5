"""Delete batches that ended long ago, with their rows and files: piece by piece, beside running workers."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic, sleep
from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Now

from alya_django import log_words, outputs, status_cache
from alya_django.models import Batch, BatchErrors, BatchFile, BatchProgress, BatchRow, BusinessKey, database
from alya_django.querysets import BatchQuerySet, BatchRowQuerySet, BusinessKeyQuerySet
from alya_django.status import Status
from alya_django.validation import fold_name

logger = logging.getLogger("alya_django")

ROUND_BATCHES = 200
TRANSACTION_ROWS = 5_000
# So many failures of the storage in a row are no fault of single objects.
FAILURES_MAX = 3
# How long to rest after a transaction, for each second that it took: the server's time belongs to the workers.
REST_PER_SECOND = 2.0


@dataclass(slots=True)
class Pruned:
    """
    What was deleted, or would be.

    Args:
        files: Objects of the storage.
        kept: Batches, and files without one, that wait for another time because the storage failed.
        failure: What it said, the first time.
        waiting: Batches as old that wait to be released; they are left alone.
        keys: Business keys that stood longer than DUPLICATE_DAYS.
    """

    batches: int = 0
    rows: int = 0
    files: int = 0
    kept: int = 0
    failure: str = ""
    waiting: int = 0
    keys: int = 0


def prune(
    older_than: timedelta,
    *,
    app: str | None = None,
    op: str | None = None,
    keep_files: bool = False,
    on_progress: Callable[[Pruned], object] = lambda pruned: None,
    rest: Callable[[float], object] = sleep,
) -> Pruned:
    """
    Delete what ended so long ago, and return what that was.

    Families are taken whole: first they are marked, and are gone for all verbs; then their rows go, their objects, and
    last their records. What was marked and not seen to its end, by whomever, is taken up first.

    Args:
        app, op: Only batches of this app and op; files that have no batch, and business keys, are then left, too.
        keep_files: Leave the objects in the storage.
        on_progress: Called now and then with what was deleted so far.
        rest: Called with the seconds to rest after each transaction.

    Raises:
        InvalidInput: The app or op is no name.
    """
    pruning = _Pruning(keep_files=keep_files, on_progress=on_progress, rest=rest)
    pruning.go_on()
    old = _narrow(Batch.objects.primary(), app, op).old_families(older_than).order_by("requested_at", "id")
    for roots in _rounds(old):
        _begin(roots, older_than)
        pruning.go_on()
    if app is None and op is None:
        pruning.prune_files(older_than)
        pruning.prune_keys()
    pruning.done.waiting = _waiting(older_than, app, op)
    return pruning.done


def count_prunable(older_than: timedelta, *, app: str | None = None, op: str | None = None) -> Pruned:
    """Return what ``prune`` would delete now, its objects included, and delete nothing."""
    batches = Batch.objects.primary()
    old = _narrow(batches, app, op).old_families(older_than).order_by().values("pk")
    going = batches.filter(Q(pk__in=old) | Q(root__in=old) | Q(pruned_at__isnull=False))
    counted = Pruned(waiting=_waiting(older_than, app, op))
    for batch in going.only("nrows", "output_files").iterator():
        counted.batches += 1
        counted.rows += batch.nrows
        counted.files += len(_own_objects(batch))
    files = BatchFile.objects.primary().filter(batch__in=going.values("pk"))
    if app is None and op is None:
        files |= BatchFile.objects.primary().without_batch(older_than)
        counted.keys = BusinessKey.objects.primary().expired().count()
    counted.files += sum(len(_objects_of(file)) for file in files.only("object_id", "error_object_id").iterator())
    return counted


class _Pruning:
    """One run: what it has deleted, and whether the storage still answers."""

    def __init__(
        self, *, keep_files: bool, on_progress: Callable[[Pruned], object], rest: Callable[[float], object]
    ) -> None:
        self.done = Pruned()
        self._keep_files = keep_files
        self._on_progress = on_progress
        self._rest = rest
        self._failures = 0

    def go_on(self) -> None:
        """Delete all that is marked, but what was kept before."""
        marked = Batch.objects.primary().being_pruned().order_by("pk")
        last: UUID | None = None
        while batches := list((marked if last is None else marked.filter(pk__gt=last))[:ROUND_BATCHES]):
            last = batches[-1].pk
            for batch in batches:
                status_cache.drop(batch.pk)
            for portion in _portions(batches):
                self._delete_rows(portion)
            received = _received_objects(batches)
            self._delete_records([batch.pk for batch in batches if self._delete_objects(batch, received[batch.pk])])

    def prune_files(self, older_than: timedelta) -> None:
        """Delete the files without a batch that were received so long ago."""
        last = 0
        while found := list(
            BatchFile.objects.primary().without_batch(older_than).filter(pk__gt=last).order_by("pk")[:ROUND_BATCHES]
        ):
            last = found[-1].pk
            for file in found:
                self._delete_file(file.pk)

    def prune_keys(self) -> None:
        """Delete the business keys that no file is compared with any more, whatever the age of their batches."""
        expired = BusinessKey.objects.primary().expired()
        last: UUID | None = None
        while piece := list(
            (expired if last is None else expired.filter(pk__gt=last))
            .order_by("pk")
            .values_list("pk", flat=True)[:TRANSACTION_ROWS]
        ):
            last = piece[-1]
            self.done.keys += self._paced(_deletion(expired.filter(pk__in=piece)))
            self._on_progress(self.done)

    def _delete_rows(self, portion: list[Batch]) -> None:
        """Delete the rows of batches that are small together, or of one."""
        rows = BatchRow.objects.primary().filter(batch__in=[batch.pk for batch in portion])
        if len(portion) > 1:
            self._delete(rows)
            return
        after = 0
        while True:
            rest = rows.filter(line__gte=after).order_by("line")
            until = rest.values_list("line", flat=True)[TRANSACTION_ROWS : TRANSACTION_ROWS + 1].first()
            # By lines: behind what was deleted a scan would have to step over it.
            piece = rest.order_by() if until is None else rest.order_by().filter(line__lt=until)
            self._delete(piece)
            if until is None:
                break
            after = until

    def _delete(self, rows: BatchRowQuerySet) -> None:
        self.done.rows += self._paced(_deletion(rows))
        self._on_progress(self.done)

    def _delete_objects(self, batch: Batch, received: list[str]) -> bool:
        """Delete a batch's objects and those of its file; return False if the batch has to wait for the storage."""
        if self._keep_files:
            return True
        if not self._remove(_own_objects(batch) + received, f"the batch {batch.pk}"):
            return False
        if batch.output_files:
            outputs.delete_folder(batch.pk)
        return True

    def _delete_records(self, ids: list[UUID]) -> None:
        def delete() -> int:
            with database().transaction():
                BatchFile.objects.primary().filter(batch__in=ids).delete()
                BatchProgress.objects.primary().filter(batch__in=ids).delete()
                BatchErrors.objects.using(database().alias).filter(batch__in=ids).delete()
                return Batch.objects.primary().filter(pk__in=ids).delete()[0]

        self.done.batches += self._paced(delete)
        for batch_id in ids:
            # Who asked before the batch was marked may have cached it since.
            status_cache.drop(batch_id)
        self._on_progress(self.done)

    def _delete_file(self, file_id: int) -> None:
        """Delete a file without a batch and its record, unless somebody decides on it just now."""
        with database().transaction():
            locked = BatchFile.objects.primary().filter(pk=file_id, batch__isnull=True).lock_free()
            going = [
                file.pk
                for file in locked
                if self._keep_files or self._remove(_objects_of(file), f"the file {file.object_id}")
            ]
            BatchFile.objects.primary().filter(pk__in=going).delete()

    def _remove(self, names: list[str], what: str) -> bool:
        """Delete objects; return False, and say so, if the storage will not."""
        if not names:
            return True
        if self._failures < FAILURES_MAX:
            try:
                self.done.files += outputs.remove(names)
                self._failures = 0
                return True
            except Exception as error:
                self._failures += 1
                said = log_words.of_error(error)
                self.done.failure = self.done.failure or said
                logger.warning(
                    "The objects of %s could not be deleted; its record is kept. %s",
                    what,
                    said,
                    exc_info=log_words.traceback_of(error),
                )
        self.done.kept += 1
        return False

    def _paced(self, act: Callable[[], int]) -> int:
        """Act in a transaction, and rest."""
        started = monotonic()
        answer = database().again(act)
        self._rest((monotonic() - started) * REST_PER_SECOND)
        return answer


def _deletion(records: BatchRowQuerySet | BusinessKeyQuerySet) -> Callable[[], int]:
    """Return what deletes records and tells how many."""
    return lambda: records.delete()[0]


def _narrow(batches: BatchQuerySet, app: str | None, op: str | None) -> BatchQuerySet:
    names = {"app": app, "op": op}
    return batches.filter(**{key: fold_name(name, key) for key, name in names.items() if name is not None})


def _begin(roots: list[UUID], older_than: timedelta) -> int:
    return database().again(lambda: Batch.objects.primary().filter(pk__in=roots).begin_prune(older_than))


def _rounds(batches: BatchQuerySet) -> Iterator[list[UUID]]:
    """Yield the ids of batches in the order of their age, each once, whatever becomes of them meanwhile."""
    place: tuple[datetime, UUID] | None = None
    while found := list(
        (batches if place is None else batches.filter(_behind(place)))[:ROUND_BATCHES].values_list(
            "requested_at", "pk"
        )
    ):
        yield [batch_id for _, batch_id in found]
        place = found[-1]


def _behind(place: tuple[datetime, UUID]) -> Q:
    requested_at, batch_id = place
    return Q(requested_at__gt=requested_at) | Q(requested_at=requested_at, pk__gt=batch_id)


def _portions(batches: Iterable[Batch]) -> Iterator[list[Batch]]:
    """Yield one or more batches: together if their rows fit in one transaction, and each larger one alone."""
    portion: list[Batch] = []
    for batch in batches:
        if portion and sum(one.nrows for one in portion) + batch.nrows > TRANSACTION_ROWS:
            yield portion
            portion = []
        portion.append(batch)
    yield portion


def _received_objects(batches: Iterable[Batch]) -> dict[UUID | None, list[str]]:
    """Return the objects of the files that batches were made of, by batch."""
    names: dict[UUID | None, list[str]] = defaultdict(list)
    for file in BatchFile.objects.primary().filter(batch__in=[batch.pk for batch in batches]):
        names[file.batch_id] += _objects_of(file)
    return names


def _own_objects(batch: Batch) -> list[str]:
    """Return the objects that Alya has saved for a batch; what a processor only named is not Alya's."""
    return [file.object_name for file in batch.saved_files().values() if file.is_own]


def _objects_of(file: BatchFile) -> list[str]:
    return [name for name in (file.object_id, file.error_object_id) if name]


def _waiting(older_than: timedelta, app: str | None, op: str | None) -> int:
    batches = _narrow(Batch.objects.primary(), app, op)
    return batches.filter(status=Status.WAIT, requested_at__lt=Now() - older_than).count()

"""States as filters, transitions as verbs. Every lock that Alya takes is taken here, but those of a chunk's claim."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from django.db import router, transaction
from django.db.models import Exists, F, Model, OuterRef, Q, QuerySet, Subquery, Sum, Value
from django.db.models.expressions import Combinable
from django.db.models.fields.json import KeyTextTransform, KeyTransform
from django.db.models.functions import Coalesce, Greatest, Left, Now

from alya_django.conf import settings
from alya_django.exceptions import NotFound, WrongType
from alya_django.status import FINAL, PENDING, Kind, Status
from alya_django.validation import TEXT_MAX

if TYPE_CHECKING:
    from alya_django.models import Batch, BatchFile, BatchProgress, BatchRow, BusinessKey, Worker  # noqa: F401 (named in the bases)

Op = tuple[str, str, str]
"""A kind, an app and an op."""
# A partial index serves only a query that repeats its condition: models and queries have it from here.
RUNNABLE = Q(kind=Kind.BATCH, status__in=sorted(PENDING), held_at__isnull=True, drained=False)
HELD = Q(status__in=sorted(PENDING), held_at__isnull=False)
# What a failed row is counted by: the errcode of its first message, cut to what an index can hold.
ERRCODE = Left(KeyTextTransform("errcode", KeyTransform("0", "messages")), TEXT_MAX)
WITH_FAILURES = Q(nfailed__gt=0)
WITH_FILE = Q(input_file__gt="")
# A smaller weight counts as this: what is divided by nearly nothing no database can hold.
# A claim's token is its worker's number above so many bits, and a count below.
CLAIM_BITS = 32
CLAIMS_PER_WORKER = 2**CLAIM_BITS
AnyModel = TypeVar("AnyModel", bound=Model)


class PrimaryQuerySet(QuerySet[AnyModel]):
    def primary(self) -> Self:
        """Ask the database that is written to, where a read finds what was just committed."""
        return self.using(router.db_for_write(self.model))


class BatchQuerySet(PrimaryQuerySet["Batch"]):
    # The states.

    def finished(self) -> BatchQuerySet:
        return self.filter(status__in=FINAL)

    def runnable(self) -> BatchQuerySet:
        """Batches, not slow queries, that may have rows to claim."""
        return self.filter(RUNNABLE)

    def complete(self) -> BatchQuerySet:
        """Running batches whose rows have all ended, which somebody must finish."""
        slots = self.model.progress.rel.related_model._default_manager.using(self.db)
        # By batch, in a query of its own: joined, the planner would read the slots of all batches there ever were.
        of_one = slots.filter(batch=OuterRef("pk")).order_by().values("batch")
        ended = of_one.annotate(ended=Sum(F("nsuccess") + F("nfailed"))).values("ended")
        return self.alias(ended=Coalesce(Subquery(ended), 0)).filter(status=Status.IN_PROGRESS, nrows=F("ended"))

    def asleep(self, rows: BatchRowQuerySet) -> BatchQuerySet:
        """Drained batches that have one of these rows."""
        return self.unheld().filter(
            Exists(rows.filter(batch=OuterRef("pk"))), status__in=sorted(PENDING), drained=True
        )

    def unheld(self) -> BatchQuerySet:
        return self.filter(held_at__isnull=True)

    def held(self) -> BatchQuerySet:
        """Batches that wait to be released: too many of their rows have failed, or they are to be aborted."""
        return self.filter(HELD)

    def failures(self, slots: BatchProgressQuerySet) -> tuple[int, int]:
        """Return how many failures of one batch are forgiven, and how many rows have failed so far."""
        of_one = slots.filter(batch=OuterRef("pk")).order_by().values("batch")
        failed = Coalesce(Subquery(of_one.values(failed=Sum("nfailed"))), Value(0))
        nforgiven, nfailed = self.values_list("nforgiven", failed).get()
        return nforgiven, nfailed

    def family_of(self, batch: Batch) -> BatchQuerySet:
        """A batch's first ancestor and all that came of it by retry."""
        return self.present().filter(Q(pk=batch.root_batch_id) | Q(root=batch.root_batch_id))

    def own_about(self, *batches: Batch) -> BatchQuerySet:
        """Alya's own slow queries about some batches."""
        # No others have a parent. Asked for the app, too, the planner reads all that there ever were of it.
        return self.present().filter(parent__in=batches, kind=Kind.SLOW_QUERY)

    def unanswered(self) -> BatchQuerySet:
        return self.exclude(status__in=FINAL)

    def beginning_with(self, digits: str) -> BatchQuerySet:
        """Batches whose id begins with these hexadecimal digits, found by their key."""
        return self.filter(pk__range=(UUID(f"{digits:0<32}"), UUID(f"{digits:f<32}")))

    def present(self) -> BatchQuerySet:
        """Batches that are not on their way out."""
        return self.filter(pruned_at__isnull=True)

    def being_pruned(self) -> BatchQuerySet:
        """Batches that are on their way out, whoever has begun it."""
        return self.filter(pruned_at__isnull=False)

    def old_families(self, age: timedelta) -> BatchQuerySet:
        """
        First ancestors that have ended and were told of so long ago, as has all that came of them.

        A family goes as a whole: what its rows have come to is told, and judged by a retry, over all of its batches.
        """
        ended = Q(status__in=sorted(FINAL), marked_done_at__isnull=False, done_at__lt=Now() - age)
        family = self.model._default_manager.using(self.db).filter(root=OuterRef("pk"))
        first = self.present().unattended().filter(ended, root__isnull=True, requested_at__lt=Now() - age)
        return first.filter(~Exists(family.filter(~ended)))

    def since(self, days: int) -> BatchQuerySet:
        """Batches requested within so many times 24 hours, latest first."""
        return self.present().filter(requested_at__gte=Now() - timedelta(days=days)).order_by("-requested_at", "id")

    def not_marked_done(self) -> BatchQuerySet:
        """Finished batches whose ``mark_done`` nobody has seen to the end."""
        return self.finished().filter(marked_done_at__isnull=True)

    def unattended(self) -> BatchQuerySet:
        """Batches that no finisher is at work on, or whose finisher's lease has run out."""
        return self.filter(Q(finisher__isnull=True) | Q(finisher_until__lt=Now()))

    def of(self, ops: Iterable[Op]) -> BatchQuerySet:
        """Batches of these kinds, apps and ops."""
        return self.filter(_scope(ops))

    def of_none(self, ops: Iterable[Op]) -> BatchQuerySet:
        """Batches of other kinds, apps and ops than these."""
        return self.exclude(_scope(ops))

    # The locks.

    def lock(self, batch_id: UUID, kind: Kind) -> Batch:
        """Lock one batch until the transaction ends, waiting for it; raise NotFound or WrongType."""
        return self.locked().find(batch_id, kind)

    def lock_parent(self, batch: Batch) -> Batch:
        """
        Lock a batch that is about to get a child, and its first ancestor, and return it as it is by then.

        The oldest first: two that repeat lines anywhere in a family wait for each other there.
        """
        list(self.filter(pk__in=[batch.root_batch_id, batch.pk]).order_by("requested_at").locked())
        return self.find(batch.pk, Kind.BATCH)

    def locked(self) -> BatchQuerySet:
        """Lock batches until the transaction ends, waiting for those who hold them."""
        return self.select_for_update(no_key=True)

    def find(self, batch_id: UUID, kind: Kind) -> Batch:
        """Return one batch; raise NotFound, or WrongType if it is of the other kind."""
        batch = self.present().filter(pk=batch_id).first()
        if batch is None:
            raise NotFound(f"There is no {kind.label} {batch_id}.")
        if batch.kind != kind:
            raise WrongType(batch_id, Kind(batch.kind))
        return batch

    # The verbs.

    def start(self) -> int:
        """
        Turn queued batches to running and return how many were; those that somebody has locked are left.

        They start beside the running batch that is furthest behind.
        """
        return self.filter(status=Status.QUEUED)._update_free(
            status=Status.IN_PROGRESS, started_at=Now(), turn=self._turn_of_newcomer()
        )

    def hold(self, reason: str, *, nforgiven: int) -> int:
        """
        Hold running batches, unless they are, and return how many were held.

        Not those that were released, with more failures forgiven, since these were counted.
        """
        running = self.unheld().filter(status=Status.IN_PROGRESS, nforgiven=nforgiven)
        return running.update(held_at=Now(), hold_reason=reason)

    def hold_at_once(self, reason: str) -> int:
        """Hold unfinished batches however few of their rows have failed; those that are held get this reason."""
        return self.filter(status__in=PENDING).update(held_at=Coalesce("held_at", Now()), hold_reason=reason)

    def let_go(self, nfailed: int) -> int:
        """Let held batches go on, and count only what fails from now on."""
        return self.held().update(
            held_at=None, hold_reason="", drained=False, nforgiven=nfailed, turn=self._turn_of_newcomer()
        )

    def wake(self, rows: BatchRowQuerySet) -> int:
        """Look again into the drained batches of these rows, unless somebody has locked them."""
        return self.asleep(rows)._update_free(drained=False, turn=self._turn_of_newcomer())

    def set_drained(self) -> int:
        """Stop looking for rows in these batches, unless somebody has locked them."""
        return self._update_free(drained=True)

    def take_finish(self, finisher: UUID, lease: timedelta) -> int:
        """Make a finisher the one who finishes these batches, for as long as its lease runs."""
        return self.unattended().update(finisher=finisher, finisher_until=Now() + lease)

    def renew_finish(self, finisher: UUID, lease: timedelta) -> int:
        """Let a finisher's lease run on from now."""
        return self.filter(finisher=finisher).update(finisher_until=Now() + lease)

    def leave_finish(self, finisher: UUID) -> int:
        """End a finisher's lease but leave its token: the next one sees that something may lie about."""
        return self.filter(finisher=finisher).update(finisher_until=Now())

    def begin_prune(self, age: timedelta) -> int:
        """
        Let the families of these first ancestors go, and return how many batches that is.

        Not those that somebody has locked, nor those that have come to life again: a retry locks the first ancestor.
        """
        batches = self.model._default_manager.using(self.db)
        with transaction.atomic(using=self.db):
            locked = list(self.select_for_update(no_key=True, skip_locked=True).values_list("pk", flat=True))
            # Looked at again under the locks: a child may have been made until then.
            old = list(batches.filter(pk__in=locked).old_families(age).values_list("pk", flat=True))
            going = batches.filter(Q(pk__in=old) | Q(root__in=old))
            return going.update(pruned_at=Now(), unique_key=None)

    def _turn_of_newcomer(self) -> Greatest:
        """
        Return the turn of batches that come, or come back, to be claimed from: none claims back the time it was away.

        That is the turn of the batch that is furthest behind, or where none can be claimed from, of the one that was
        claimed from last.
        """
        running = self.model._default_manager.using(self.db).filter(status=Status.IN_PROGRESS)
        behind = Subquery(running.filter(RUNNABLE).order_by("turn").values("turn")[:1])
        ahead = Subquery(running.filter(kind=Kind.BATCH).order_by("-turn").values("turn")[:1])
        return Greatest(F("turn"), Coalesce(behind, ahead, F("turn")))

    def _update_free(self, **values: Any) -> int:
        """Update the batches that nobody has locked, in a transaction of its own or the caller's."""
        with transaction.atomic(using=self.db, savepoint=False):
            free = self.select_for_update(no_key=True, skip_locked=True).values("pk")
            return self.filter(pk__in=free).update(**values)


class BatchRowQuerySet(PrimaryQuerySet["BatchRow"]):
    # The states.

    def queued(self) -> BatchRowQuerySet:
        """Rows that wait for their first claim."""
        return self.filter(status=Status.QUEUED, retry_at__isnull=True)

    def requeued(self) -> BatchRowQuerySet:
        """Rows that wait to be claimed again, now or later."""
        return self.filter(status=Status.QUEUED, retry_at__isnull=False)

    def due(self) -> BatchRowQuerySet:
        """Rows that were requeued and may be claimed again by now."""
        return self.filter(status=Status.QUEUED, retry_at__lte=Now())

    def waiting(self) -> BatchRowQuerySet:
        """Rows that were given back to be claimed later, of batches from which they will be."""
        return self.filter(status=Status.QUEUED, retry_at__gt=Now(), batch__held_at__isnull=True)

    def to_retry(self, batch: Batch, *, besides: UUID | None = None) -> BatchRowQuerySet:
        """A batch's failed and aborted rows whose lines no retry, but one, has in hand or has brought to success."""
        family = batch.__class__._default_manager.using(self.db).family_of(batch)
        retried = self.model._default_manager.using(self.db).filter(
            batch__in=family if besides is None else family.exclude(pk=besides),
            line=OuterRef("line"),
            status__in=[Status.SUCCESS, *PENDING],
        )
        return self.filter(~Exists(retried), batch=batch.pk, status__in=[Status.FAILED, Status.ABORTED])

    def unclaimed_or(self, claim: int | None) -> BatchRowQuerySet:
        """Queued rows, and those that a claim holds."""
        return self.filter(Q(status=Status.QUEUED) | Q(claim=claim, status=Status.IN_PROGRESS))

    def of(self, ops: Iterable[Op]) -> BatchRowQuerySet:
        """Rows of batches of these kinds, apps and ops."""
        return self.filter(_scope(ops, "batch__"))

    def orphaned(self, workers: WorkerQuerySet) -> BatchRowQuerySet:
        """Rows in progress whose claim is of none of these workers."""
        claimed = self.filter(claim__isnull=False).annotate(number=F("claim").bitrightshift(CLAIM_BITS))
        return claimed.filter(~Exists(workers.filter(pk=OuterRef("number"))))

    def worn_out(self, attempts: int) -> BatchRowQuerySet:
        """Rows that have lost their worker or were put off so many times."""
        return self.alias(faults=F("lost") + F("retries")).filter(faults__gte=attempts)

    def claims(self) -> QuerySet[BatchRow, tuple[int | None, UUID]]:
        """Return the claims that hold these rows, each with its batch."""
        return self.order_by("claim").values_list("claim", "batch").distinct()

    def pending(self) -> BatchRowQuerySet:
        return self.filter(status__in=PENDING)

    def ended(self) -> BatchRowQuerySet:
        return self.filter(status__in=[Status.SUCCESS, Status.FAILED])

    def held_by(self, number: int) -> BatchRowQuerySet:
        """Rows that the claims of one worker hold."""
        first = number * CLAIMS_PER_WORKER
        return self.filter(claim__gte=first, claim__lt=first + CLAIMS_PER_WORKER)

    # The locks.

    def lock_free(self, count: int) -> BatchRowQuerySet:
        """Lock so many rows that nobody else has locked, until the transaction ends."""
        return self.select_for_update(skip_locked=True)[:count]

    def lock_free_with_batch(self) -> BatchRowQuerySet:
        """Lock one row and its batch, both free."""
        return self.select_related("batch").select_for_update(of=("self", "batch"), no_key=True, skip_locked=True)[:1]

    # The verbs.

    def claim(self, claim: int, done_by: str) -> int:
        """Give rows that are locked here to the worker whose claim it is."""
        return self.update(
            status=Status.IN_PROGRESS,
            claim=claim,
            attempts=F("attempts") + 1,
            claimed_at=Now(),
            done_by=done_by,
            retry_at=None,
        )

    def requeue(self, claim: int | None, *, delay: timedelta = timedelta(0), **counts: Combinable | int) -> int:
        """Give back the rows that a claim still holds, to be claimed again after a delay."""
        return self.filter(claim=claim).update(
            status=Status.QUEUED, claim=None, claimed_at=None, done_by=None, retry_at=Now() + delay, **counts
        )

    def put_off(self, claim: int, row_ids: Iterable[int], delay: timedelta) -> tuple[int, int]:
        """
        Give back rows that asked for it, to be claimed again after a delay, and count that they did.

        Return how many asked for the first time, and how many others.
        """
        rows = self.filter(pk__in=list(row_ids))
        newly = rows.filter(retries=0).requeue(claim, delay=delay, retries=1)
        return newly, rows.requeue(claim, delay=delay, retries=F("retries") + 1)

    def were_put_off(self) -> BatchRowQuerySet:
        return self.filter(retries__gt=0)

    def hold(self, claim: int) -> set[int]:
        """Lock the rows that a claim still holds, until the transaction ends, and return their ids."""
        return set(self.filter(claim=claim).select_for_update(no_key=True).values_list("pk", flat=True))

    def blame(self) -> int:
        """Count the death of these rows' worker."""
        return self.update(lost=F("lost") + 1)

    def fail(self, messages: list[dict[str, Any]], done_by: str | F) -> int:
        """End rows that no processor will see."""
        return self.update(
            status=Status.FAILED, messages=messages, claim=None, done_by=done_by, retry_at=None, done_at=Now()
        )

    def abort(self) -> int:
        """End the rows that have not ended; what is being computed for them will find no claim to record under."""
        return self.pending().update(
            status=Status.ABORTED,
            result=None,
            messages=None,
            output_lines=None,
            claim=None,
            retry_at=None,
            done_at=Now(),
        )


class BatchProgressQuerySet(PrimaryQuerySet["BatchProgress"]):
    def total(self) -> tuple[int, int]:
        """Return how many rows succeeded and failed, over all slots."""
        sums = self.aggregate(nsuccess=Sum("nsuccess"), nfailed=Sum("nfailed"))
        return sums["nsuccess"] or 0, sums["nfailed"] or 0


class BatchFileQuerySet(PrimaryQuerySet["BatchFile"]):
    # The states.

    def not_stored(self) -> BatchFileQuerySet:
        """Files whose object is not yet there as a whole."""
        return self.undecided().filter(checksum="")

    def undecided(self) -> BatchFileQuerySet:
        """Files that are neither accepted nor rejected."""
        return self.filter(is_accepted__isnull=True)

    def first_of(self, file_type: str, checksum: str) -> BatchFileQuerySet:
        """The accepted file of this type that had these bytes first."""
        return self.filter(file_type=file_type, checksum=checksum, is_accepted=True, is_repeat=False)

    def without_batch(self, age: timedelta) -> BatchFileQuerySet:
        """Files received so long ago that have no batch: rejected, or never decided on."""
        return self.filter(batch__isnull=True, received_at__lt=Now() - age)

    # The locks.

    def lock_free(self) -> BatchFileQuerySet:
        """Lock records until the transaction ends, but those that somebody else has locked."""
        return self.select_for_update(no_key=True, skip_locked=True)

    def lock(self, file_id: int) -> BatchFile:
        """Lock one record until the transaction ends, waiting for who else has it in hand."""
        return self.select_for_update(no_key=True).get(pk=file_id)

    # The verbs.

    def reopen(self, *, size: int, checksum: str) -> int:
        """Have rejected files decided on again."""
        return self.filter(is_accepted=False).update(
            is_accepted=None,
            size=size,
            checksum=checksum,
            error_message="",
            nfaulty=0,
            processed_at=None,
        )


class BusinessKeyQuerySet(PrimaryQuerySet["BusinessKey"]):
    def expired(self) -> BusinessKeyQuerySet:
        """Keys that no file is compared with any more."""
        return self.filter(received_at__lt=Now() - timedelta(days=settings.DUPLICATE_DAYS))


class WorkerQuerySet(PrimaryQuerySet["Worker"]):
    def beat(self, rate: float, *, is_stopping: bool = False) -> int:
        """Show that these workers are alive, how many rows a second they end, and whether they are about to stop."""
        return self.update(heartbeat=Now(), rate=rate, is_stopping=is_stopping)

    def alive(self) -> WorkerQuerySet:
        """Workers that were heard of within WORKER_TTL_SECONDS."""
        return self.filter(heartbeat__gte=Now() - timedelta(seconds=settings.WORKER_TTL_SECONDS))

    def silent(self) -> WorkerQuerySet:
        """Workers that were not heard of for WORKER_TTL_SECONDS."""
        return self.filter(heartbeat__lt=Now() - timedelta(seconds=settings.WORKER_TTL_SECONDS))

    def remove_silent(self) -> list[str]:
        """Remove the workers that have fallen silent, if nobody has them locked, and return their names."""
        with transaction.atomic(using=self.db):
            # Locked as it is tested: no beat can come between that and the end.
            dead = dict(self.silent().select_for_update(skip_locked=True).values_list("pk", "name"))
            if dead:
                self.filter(pk__in=dead).delete()
        return list(dead.values())

    def ops(self) -> set[Op]:
        """Return what some worker serves."""
        return {(kind, app, op) for ops in self.values_list("ops", flat=True) for kind, app, op in ops}


def _scope(ops: Iterable[Op], prefix: str = "") -> Q:
    """Return the condition that a batch is of one of these kinds, apps and ops."""
    names: dict[tuple[str, str], list[str]] = {}
    for kind, app, op in ops:
        names.setdefault((kind, app), []).append(op)
    scope = Q(pk__in=[])
    for (kind, app), of_app in sorted(names.items()):
        scope |= Q(**{f"{prefix}kind": kind, f"{prefix}app": app, f"{prefix}op__in": sorted(of_app)})
    return scope

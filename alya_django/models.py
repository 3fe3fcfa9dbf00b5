"""The seven tables of Alya. What happens to their rows is in ``querysets``."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from django.db import models, router
from django.db.models import F, Q
from django.db.models.functions import Lower, Now
from django.utils.translation import gettext_lazy as _

from alya_django import db
from alya_django.answers import BatchDetails, ErrorMessage, OutputFile, Receipt, RowOutcome, Summary
from alya_django.db import Database
from alya_django.querysets import (
    ERRCODE,
    RUNNABLE,
    WITH_FAILURES,
    WITH_FILE,
    BatchFileQuerySet,
    BatchProgressQuerySet,
    BatchQuerySet,
    BatchRowQuerySet,
    BusinessKeyQuerySet,
    WorkerQuerySet,
)
from alya_django.readable import readable
from alya_django.status import FINAL, PENDING, Kind, Status
from alya_django.validation import TEXT_MAX


def database() -> Database:
    """Return the database that holds Alya's tables, as the project's router says."""
    return db.database(router.db_for_write(Batch))


class Batch(models.Model):
    """
    Many rows submitted together for one operation; or a slow query, which has one row.

    ``turn`` orders the runnable batches: seconds of work over ``weight``. ``drained`` says that no row waits
    for its first claim. A batch that ended while it was held keeps ``held_at`` and ``hold_reason``;
    ``nforgiven`` of its failures were there when it was last released. ``output_files`` maps logical names to
    OutputFiles as JSON. The counts are null until the state is final; until then they are the sum of the slots.
    ``control_totals`` has what the batch's file declared, what was received of it and, at the end, what has succeeded;
    ``totals_mismatch`` says where they differ.
    With ``pruned_at`` it is on its way out: for all verbs it is gone already.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    app = models.CharField(_("app"), max_length=TEXT_MAX)
    op = models.CharField(_("op"), max_length=TEXT_MAX)
    kind = models.CharField(_("kind"), max_length=1, choices=Kind.choices)
    context = models.JSONField(_("context"), default=dict)
    input_file = models.CharField(_("input file"), max_length=TEXT_MAX, blank=True, default="")
    requested_by = models.CharField(_("requested by"), max_length=TEXT_MAX, blank=True, default="")
    unique_key = models.CharField(_("unique key"), max_length=TEXT_MAX, null=True, blank=True)  # noqa: DJ001 (null: no key)
    weight = models.FloatField(_("weight"), default=1.0, db_default=1.0)

    status = models.CharField(_("status"), max_length=7, choices=Status.choices)
    held_at = models.DateTimeField(_("held at"), null=True, blank=True)
    hold_reason = models.TextField(_("hold reason"), blank=True, default="", db_default="")
    nforgiven = models.PositiveIntegerField(_("forgiven"), default=0, db_default=0)
    requested_at = models.DateTimeField(_("requested at"), db_default=Now())
    started_at = models.DateTimeField(_("started at"), null=True, blank=True)
    done_at = models.DateTimeField(_("done at"), null=True, blank=True)

    nrows = models.PositiveIntegerField(_("rows"), default=0)
    nsuccess = models.PositiveIntegerField(_("success"), null=True, blank=True)
    nfailed = models.PositiveIntegerField(_("failed"), null=True, blank=True)
    naborted = models.PositiveIntegerField(_("aborted"), null=True, blank=True)
    output_files = models.JSONField(_("output files"), default=dict)
    control_totals = models.JSONField(_("control totals"), null=True, blank=True)
    totals_mismatch = models.TextField(_("mismatch of totals"), blank=True, default="", db_default="")

    turn = models.FloatField(_("turn"), default=0.0, db_default=0.0)
    drained = models.BooleanField(_("drained"), default=False, db_default=False)
    finisher = models.UUIDField(_("finisher"), null=True, blank=True)
    finisher_until = models.DateTimeField(_("finisher until"), null=True, blank=True)
    marked_done_at = models.DateTimeField(_("marked done at"), null=True, blank=True)
    mark_done_error = models.TextField(_("error of mark_done"), blank=True, default="", db_default="")
    pruned_at = models.DateTimeField(_("pruned at"), null=True, blank=True)

    parent = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.DO_NOTHING,
        related_name="children",
        db_constraint=False,
    )
    root = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.DO_NOTHING,
        related_name="descendants",
        db_constraint=False,
        db_index=False,
    )

    objects = BatchQuerySet.as_manager()

    class Meta:
        db_table = "alya_batches"
        verbose_name = _("batch")
        verbose_name_plural = _("batches")
        default_permissions = ("view",)
        permissions = (
            ("submit_batch", _("Can submit batches")),
            ("release_batch", _("Can release batches")),
            ("abort_batch", _("Can abort batches")),
            ("retry_batch", _("Can retry failed rows")),
            ("download_output", _("Can download output files")),
            ("view_input", _("Can view the input of rows")),
        )
        indexes = (
            models.Index(fields=("turn", "requested_at", "id"), name="alya_batch_by_turn", condition=RUNNABLE),
            models.Index(fields=("requested_at", "id"), name="alya_batch_by_age", condition=RUNNABLE),
            models.Index(
                fields=("status", "kind", "app", "op"),
                name="alya_batch_pending",
                condition=Q(status__in=sorted(PENDING)),
            ),
            models.Index(fields=("app", "op", "-requested_at"), name="alya_batch_by_op"),
            models.Index(fields=("-requested_at", "id"), name="alya_batch_latest"),
            models.Index(
                fields=("-requested_at", "id"), name="alya_batch_latest_of_many", condition=Q(kind=Kind.BATCH)
            ),
            models.Index(fields=("-requested_at", "id"), name="alya_batch_with_failures", condition=WITH_FAILURES),
            models.Index(fields=("status", "-requested_at", "id"), name="alya_batch_by_status"),
            # Ordered by bytes, which is how the beginnings of a text are found in every language.
            models.Index(
                fields=("input_file",),
                name="alya_batch_by_file",
                opclasses=("varchar_pattern_ops",),
                condition=WITH_FILE,
            ),
            models.Index(
                fields=("done_at",),
                name="alya_batch_not_marked_done",
                condition=Q(status__in=sorted(FINAL), marked_done_at__isnull=True),
            ),
            models.Index(fields=("root",), name="alya_batch_by_root", condition=Q(root__isnull=False)),
            models.Index(fields=("id",), name="alya_batch_pruned", condition=Q(pruned_at__isnull=False)),
        )
        constraints = (
            models.UniqueConstraint(fields=("app", "op", "unique_key"), name="alya_batch_unique_key"),
            models.CheckConstraint(condition=Q(kind__in=Kind.values), name="alya_batch_kind"),
            models.CheckConstraint(condition=Q(status__in=Status.values), name="alya_batch_status"),
            models.CheckConstraint(condition=Q(app=Lower("app"), op=Lower("op")), name="alya_batch_lower_case"),
            models.CheckConstraint(condition=Q(weight__gt=0, weight__lte=1000), name="alya_batch_weight"),
            models.CheckConstraint(
                condition=Q(
                    status__in=sorted(FINAL),
                    done_at__isnull=False,
                    nsuccess__isnull=False,
                    nfailed__isnull=False,
                    naborted__isnull=False,
                    nrows=F("nsuccess") + F("nfailed") + F("naborted"),
                )
                | Q(
                    ~Q(status__in=sorted(FINAL)),
                    done_at__isnull=True,
                    nsuccess__isnull=True,
                    nfailed__isnull=True,
                    naborted__isnull=True,
                ),
                name="alya_batch_final",
            ),
        )

    def __str__(self) -> str:
        return f"{self.app}/{self.op} {self.id}"

    @property
    def root_batch_id(self) -> uuid.UUID:
        """The first batch of a line of retries: itself, unless it is a child."""
        return self.root_id or self.id

    @property
    def is_held(self) -> bool:
        """Whether nothing is claimed from it until it is released: too many failed, or it is to be aborted."""
        return self.held_at is not None and self.status in PENDING

    def counts(self, slots: Iterable[BatchProgress] | None = None) -> dict[str, int]:
        """
        Return nsuccess, nfailed and naborted; of an unfinished batch, as far as it has come.

        Who lists many batches has fetched their slots at once; else they are asked where the batch came from.
        """
        if self.nsuccess is not None:
            return {"nsuccess": self.nsuccess, "nfailed": self.nfailed or 0, "naborted": self.naborted or 0}
        slots = self._slots(slots)
        return {
            "nsuccess": sum(slot.nsuccess for slot in slots),
            "nfailed": sum(slot.nfailed for slot in slots),
            "naborted": 0,
        }

    def nput_off(self, slots: Iterable[BatchProgress] | None = None) -> int:
        """Return how many rows were put off and have not ended: none of a batch that has."""
        return 0 if self.nsuccess is not None else sum(slot.nput_off for slot in self._slots(slots))

    def error_counts(self) -> dict[str, int]:
        """
        Return how many rows failed with each errcode, by that of their first message, the most frequent first.

        The last, under the empty errcode ``db.OTHER``, are those without a message and those for whose errcode there
        was no room.
        """
        counts = BatchErrors.objects.using(self._state.db).filter(pk=self.pk).values_list("counts", flat=True).first()
        return dict(sorted((counts or {}).items(), key=lambda item: (item[0] == db.OTHER, -item[1], item[0])))

    def saved_files(self) -> dict[str, OutputFile]:
        """Return the output files by their logical names."""
        return {name: OutputFile.from_json(stored) for name, stored in self.output_files.items()}

    def object_names(self) -> dict[str, str]:
        """Return the names of the objects that the output files are, by their logical names."""
        return {name: file.object_name for name, file in self.saved_files().items()}

    def summary(self) -> Summary:
        """Return the batch in figures."""
        slots = [] if self.nsuccess is not None else self._slots(None)
        return Summary(
            status=Status(self.status),
            kind=Kind(self.kind),
            nrows=self.nrows,
            held=self.is_held,
            output_files=self.object_names(),
            parent=self.parent_id,
            totals_mismatch=self.totals_mismatch,
            nput_off=self.nput_off(slots),
            **self.counts(slots),
        )

    def details(self, *, init_block: Any = None, slots: Iterable[BatchProgress] | None = None) -> BatchDetails:
        """Return all that is kept of the batch but its rows."""
        return BatchDetails(
            id=self.id,
            app=self.app,
            op=self.op,
            kind=Kind(self.kind),
            context=self.context,
            input_file=self.input_file,
            requested_by=self.requested_by,
            status=Status(self.status),
            requested_at=self.requested_at,
            started_at=self.started_at,
            done_at=self.done_at,
            nrows=self.nrows,
            output_files=self.object_names(),
            parent=self.parent_id,
            totals_mismatch=self.totals_mismatch,
            init_block=init_block,
            **self.counts(slots),
        )

    def _slots(self, slots: Iterable[BatchProgress] | None) -> list[BatchProgress]:
        return list(self.progress.using(self._state.db) if slots is None else slots)


class BatchRow(models.Model):
    """
    One row of a batch.

    ``claim`` is set while the row is in progress, and only then: the number of the worker and of its claim,
    the guard under which the outcome is recorded. ``attempts`` counts claims and only grows.
    """

    id = models.BigAutoField(primary_key=True)
    batch = models.ForeignKey(
        Batch, on_delete=models.DO_NOTHING, related_name="rows", db_constraint=False, db_index=False
    )
    line = models.PositiveIntegerField(_("line"))
    input = models.JSONField(_("input"))
    status = models.CharField(
        _("status"), max_length=7, choices=Status.choices, default=Status.QUEUED, db_default=Status.QUEUED
    )
    result = models.JSONField(_("result"), null=True, blank=True)
    messages = models.JSONField(_("messages"), null=True, blank=True)
    output_lines = models.JSONField(_("output lines"), null=True, blank=True)

    requested_at = models.DateTimeField(_("requested at"), db_default=Now())
    claimed_at = models.DateTimeField(_("claimed at"), null=True, blank=True)
    done_at = models.DateTimeField(_("done at"), null=True, blank=True)
    retry_at = models.DateTimeField(_("retry at"), null=True, blank=True)
    done_by = models.CharField(_("done by"), max_length=TEXT_MAX, null=True, blank=True)  # noqa: DJ001 (null: nobody)
    claim = models.BigIntegerField(_("claim"), null=True, blank=True)
    attempts = models.IntegerField(_("attempts"), default=0, db_default=0)
    lost = models.IntegerField(_("lost"), default=0, db_default=0)
    retries = models.IntegerField(_("retries"), default=0, db_default=0)

    objects = BatchRowQuerySet.as_manager()

    class Meta:
        db_table = "alya_batchrows"
        verbose_name = _("row")
        verbose_name_plural = _("rows")
        default_permissions = ("view",)
        indexes = (
            models.Index(
                fields=("batch", "line"),
                name="alya_row_queued",
                condition=Q(status=Status.QUEUED, retry_at__isnull=True),
            ),
            models.Index(
                fields=("batch", "retry_at"),
                name="alya_row_requeued",
                condition=Q(status=Status.QUEUED, retry_at__isnull=False),
            ),
            models.Index(fields=("claim",), name="alya_row_claimed", condition=Q(claim__isnull=False)),
            models.Index(
                fields=("id",),
                name="alya_row_slow_query",
                condition=Q(line=0, status=Status.QUEUED, retry_at__isnull=True),
            ),
            models.Index(
                fields=("retry_at",),
                name="alya_row_slow_requeued",
                condition=Q(line=0, status=Status.QUEUED, retry_at__isnull=False),
            ),
            models.Index(fields=("batch", "line"), name="alya_row_failed", condition=Q(status=Status.FAILED)),
            models.Index("batch", ERRCODE, "line", name="alya_row_errcode", condition=Q(status=Status.FAILED)),
        )
        constraints = (
            models.UniqueConstraint(fields=("batch", "line"), name="alya_row_line"),
            models.CheckConstraint(
                condition=Q(status__in=[s for s in Status.values if s != Status.WAIT]), name="alya_row_status"
            ),
            models.CheckConstraint(
                condition=Q(status=Status.IN_PROGRESS, claim__isnull=False)
                | Q(~Q(status=Status.IN_PROGRESS), claim__isnull=True),
                name="alya_row_claim",
            ),
        )

    def __str__(self) -> str:
        return f"{self.batch_id}:{self.line}"

    def outcome(self) -> RowOutcome:
        """Return what became of the row."""
        return RowOutcome(
            line=self.line,
            status=Status(self.status),
            result=self.result,
            messages=tuple(map(ErrorMessage.from_json, self.messages or ())),
            output_lines=self.output_lines or {},
            attempts=self.attempts,
            done_by=self.done_by or "",
            requested_at=self.requested_at,
            claimed_at=self.claimed_at,
            done_at=self.done_at,
        )


class BatchProgress(models.Model):
    """
    How many rows of a batch have ended, in slots, so that workers do not queue for one counter.

    A slot is a worker's number modulo SLOTS. It moves in the transaction that ends the rows, so the slots' sum
    is exact, and ``moved_at`` tells when a row ended last. ``nput_off`` are the rows that were put off and have not
    ended; who puts off and who ends may be two workers, so only its sum means anything.
    """

    SLOTS = 16

    pk = models.CompositePrimaryKey("batch_id", "slot")
    batch = models.ForeignKey(
        Batch, on_delete=models.DO_NOTHING, related_name="progress", db_constraint=False, db_index=False
    )
    slot = models.SmallIntegerField()
    nsuccess = models.PositiveIntegerField(default=0)
    nfailed = models.PositiveIntegerField(default=0)
    nput_off = models.IntegerField(default=0, db_default=0)
    moved_at = models.DateTimeField(db_default=Now())

    objects = BatchProgressQuerySet.as_manager()

    class Meta:
        db_table = "alya_batch_progress"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.batch_id}/{self.slot}: {self.nsuccess} + {self.nfailed}"


class BatchErrors(models.Model):
    """
    How many rows of a batch failed with which errcode; a batch without a failed row has no record.

    ``counts`` has ERRCODES_MAX codes at most, and under the empty one the rest. It moves in the transaction that ends
    the rows, so its sum is the number of failed rows. It is one record for a batch, not one for a code: whoever adds
    to it sees all of it, so the limit is exact, and nobody waits for one code while he keeps another.
    """

    batch = models.OneToOneField(
        Batch, primary_key=True, on_delete=models.DO_NOTHING, related_name="errors", db_constraint=False
    )
    counts = models.JSONField(default=dict)

    class Meta:
        db_table = "alya_batch_errors"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.batch_id}: {self.counts}"


class Worker(models.Model):
    """A process that claims rows. Its id is the upper half of its claims; its record lives as long as it does."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(_("name"), max_length=TEXT_MAX, unique=True)
    host = models.CharField(_("host"), max_length=TEXT_MAX)
    pid = models.IntegerField(_("pid"))
    version = models.CharField(_("version"), max_length=40)
    ops = models.JSONField(_("ops"), default=list)
    started = models.DateTimeField(_("started"), db_default=Now())
    heartbeat = models.DateTimeField(_("heartbeat"), db_default=Now())
    rate = models.FloatField(_("rows per second"), default=0.0, db_default=0.0)
    is_stopping = models.BooleanField(_("stopping"), default=False, db_default=False)

    objects = WorkerQuerySet.as_manager()

    class Meta:
        db_table = "alya_workers"
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return self.name


class BusinessKey(models.Model):
    """
    What makes a row of a file unique in its op, and which row has it.

    ``digest`` is 16 bytes of a hash over app, op and values: all that is looked up is one index, whose entries are
    small and of one size. It stands for DUPLICATE_DAYS, and only as long as its row may succeed.
    """

    digest = models.UUIDField(primary_key=True)
    batch = models.ForeignKey(
        Batch, on_delete=models.DO_NOTHING, related_name="business_keys", db_constraint=False, db_index=False
    )
    line = models.PositiveIntegerField()
    received_at = models.DateTimeField(db_default=Now())

    objects = BusinessKeyQuerySet.as_manager()

    class Meta:
        db_table = "alya_business_keys"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.batch_id}/{self.line}"


class BatchFile(models.Model):
    """
    A file that was received.

    The record is there before the object. ``is_accepted`` is null until the file is decided on: then it is accepted
    and has a batch, or is rejected and has an error. ``checksum`` is the SHA-256 of its bytes, empty until they are
    all stored. ``is_repeat`` says that a file with these bytes was accepted before, and this one knowingly again.
    ``metadata`` has the ``layout`` in which a CSV file was read, and as ``last_row`` the id of its last row; and of a
    file that was stored here and rejected, as ``moved_from``, where its object lay before.
    """

    batch = models.ForeignKey(
        Batch, null=True, blank=True, on_delete=models.DO_NOTHING, related_name="files", db_constraint=False
    )
    object_id = models.CharField(_("object"), max_length=1024, unique=True)
    error_object_id = models.CharField(_("error file"), max_length=1024, blank=True, default="")
    file_name = models.CharField(_("file name"), max_length=TEXT_MAX)
    file_type = models.CharField(_("file type"), max_length=TEXT_MAX)
    content_type = models.CharField(_("content type"), max_length=TEXT_MAX)
    size = models.BigIntegerField(_("size"), default=0)
    checksum = models.CharField(_("checksum"), max_length=64, blank=True, default="")
    unique_key = models.CharField(_("unique key"), max_length=TEXT_MAX, unique=True, null=True, blank=True)
    is_accepted = models.BooleanField(_("accepted"), null=True, blank=True)
    is_repeat = models.BooleanField(_("repeat"), default=False)
    nfaulty = models.PositiveIntegerField(_("faulty lines"), default=0)
    error_message = models.TextField(_("error"), blank=True, default="")
    metadata = models.JSONField(_("metadata"), default=dict)
    received_at = models.DateTimeField(_("received at"), db_default=Now())
    processed_at = models.DateTimeField(_("processed at"), null=True, blank=True)

    objects = BatchFileQuerySet.as_manager()

    class Meta:
        db_table = "alya_batch_files"
        verbose_name = _("file")
        verbose_name_plural = _("files")
        default_permissions = ("view",)
        # Few are not accepted, and these are looked for: to be seen to, and to be pruned.
        indexes = (
            models.Index(fields=("id",), name="alya_file_no_batch", condition=Q(batch__isnull=True)),
            models.Index(fields=("file_type", "-id"), name="alya_file_by_type"),
        )
        constraints = (
            models.UniqueConstraint(
                fields=("file_type", "checksum"), name="alya_file_once", condition=Q(is_accepted=True, is_repeat=False)
            ),
            models.CheckConstraint(
                condition=Q(is_accepted=True, batch__isnull=False)
                | Q(Q(is_accepted__isnull=True) | Q(is_accepted=False), batch__isnull=True),
                name="alya_file_decided",
            ),
        )

    def __str__(self) -> str:
        return readable(self.file_name)

    def receipt(self) -> Receipt:
        """Return what became of the file."""
        return Receipt(
            file_id=self.pk,
            batch_id=self.batch_id,
            accepted=self.is_accepted is True,
            reason=self.error_message,
            nrows=self.batch.nrows if self.batch else 0,
            nfaulty=self.nfaulty,
            object_id=self.object_id if self.checksum else "",
            error_object_id=self.error_object_id,
            totals_mismatch=self.batch.totals_mismatch if self.batch else "",
        )

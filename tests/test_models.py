from __future__ import annotations

from contextlib import contextmanager
from uuid import uuid4

import pytest
from django.db import IntegrityError, models, transaction
from django.db.models.functions import Now

from alya_django import ErrorMessage, Status, batches, register_batch_processor, slow_queries
from alya_django.models import Batch, BatchErrors, BatchFile, BatchProgress, BatchRow, BusinessKey, Worker
from alya_django.status import FINAL, PENDING, Kind
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import fail_odd

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


def a_batch(**values) -> Batch:
    return Batch.objects.create(
        **{"app": "bank", "op": "echo", "kind": Kind.BATCH, "status": Status.QUEUED, "nrows": 1, **values}
    )


def a_row(**values) -> BatchRow:
    return BatchRow.objects.create(**{"batch_id": uuid4(), "line": 1, "input": {}, **values})


@contextmanager
def breaking(constraint: str):
    """Expect the database to refuse, naming the constraint, and the caller's transaction to go on."""
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        yield
    assert Batch.objects.count() >= 0


FINISHED = {"status": Status.SUCCESS, "done_at": Now(), "nsuccess": 1, "nfailed": 0, "naborted": 0}


class BatchConstraintTests:
    @pytest.mark.parametrize(
        ("values", "constraint"),
        [
            ({"kind": "X"}, "alya_batch_kind"),
            ({"status": "paused"}, "alya_batch_status"),
            ({"app": "Bank"}, "alya_batch_lower_case"),
            ({"op": "Echo"}, "alya_batch_lower_case"),
            ({"weight": 0}, "alya_batch_weight"),
            ({"weight": 1000.5}, "alya_batch_weight"),
        ],
    )
    def test_refuses_words_that_are_none(self, values, constraint):
        """Kind, state, names and weight are what they may be, whoever writes them."""
        with breaking(constraint):
            a_batch(**values)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"done_at": None},
            {"nsuccess": None},
            {"nfailed": None},
            {"naborted": None},
            {"nsuccess": 2},
            {"nsuccess": 0},
            {"status": Status.QUEUED},
            {"status": Status.IN_PROGRESS},
            {"status": Status.WAIT},
        ],
        ids=str,
    )
    def test_refuses_an_end_that_is_none(self, wrong):
        """A final state, and only that, has a time and counts that sum to the rows (INV-1, INV-2)."""
        a_batch(**FINISHED)
        with breaking("alya_batch_final"):
            a_batch(**{**FINISHED, **wrong})

    def test_refuses_a_unique_key_met_again(self):
        """A key is unique within its op; no key is none."""
        a_batch(unique_key="k")
        a_batch(unique_key="k", op="other")
        a_batch()
        a_batch()
        # SQLite names the columns, not the constraint.
        with breaking("unique_key"):
            a_batch(unique_key="k")


class BatchRowConstraintTests:
    @pytest.mark.rule("SUB-6")
    def test_refuses_a_line_twice(self):
        """A line is unique within its batch."""
        row = a_row()
        a_row()
        with breaking("alya_row_line|batch_id"):
            a_row(batch_id=row.batch_id)

    @pytest.mark.parametrize("status", ["wait", "paused"])
    def test_refuses_a_state_that_is_none_of_a_row(self, status):
        """A row is never waiting."""
        with breaking("alya_row_status"):
            a_row(status=status)

    @pytest.mark.parametrize(
        "values",
        [
            {"status": Status.IN_PROGRESS},
            *({"status": status, "claim": 1} for status in Status if status not in ("wait", "inprog")),
        ],
        ids=str,
    )
    def test_refuses_a_claim_beside_another_state(self, values):
        """A row has a claim while it is in progress, and only then."""
        with breaking("alya_row_claim"):
            a_row(**values)


class DefaultTests:
    def test_of_the_database_are_those_of_the_model(self):
        """Rows that are copied in without Django are as they would be with it."""
        copied = BatchRow.objects.get(batch=batches.submit("bank", "echo", [{}]))
        made = BatchRow.objects.get(pk=a_row().pk)
        for field in BatchRow._meta.concrete_fields:
            if field.name not in ("id", "batch", "requested_at"):
                assert getattr(copied, field.attname) == getattr(made, field.attname), field.name
        assert copied.requested_at is not None


class StatusTests:
    def test_is_pending_or_final_or_waiting(self):
        """The six states fall into three groups."""
        assert FINAL | PENDING | {Status.WAIT} == set(Status)
        assert not FINAL & PENDING
        assert [status for status in Status if status.is_final] == [Status.SUCCESS, Status.FAILED, Status.ABORTED]

    @pytest.mark.parametrize(
        ("nfailed", "naborted", "status"),
        [(0, 0, Status.SUCCESS), (1, 0, Status.FAILED), (0, 1, Status.ABORTED), (2, 1, Status.ABORTED)],
    )
    def test_of_a_finished_batch_follows_from_its_counts(self, nfailed, naborted, status):
        """Any aborted row makes it aborted, else any failed one failed (INV-3)."""
        assert Status.of_finished(nfailed=nfailed, naborted=naborted) is status


class SummaryTests:
    @pytest.mark.rule("STA-1")
    def test_sums_the_progress_of_an_unfinished_batch(self, django_assert_num_queries):
        """The live figures are the sum of all slots, in one statement."""
        batch = a_batch(nrows=9, status=Status.IN_PROGRESS)
        other = a_batch()
        for slot, owner in ((0, batch), (3, batch), (3, other)):
            BatchProgress.objects.create(batch=owner, slot=slot, nsuccess=2, nfailed=1)
        with django_assert_num_queries(1):
            summary = batch.summary()
        assert (summary.nrows, summary.nsuccess, summary.nfailed, summary.naborted) == (9, 4, 2, 0)
        assert summary.try_later

    @pytest.mark.rule("STA-1", "STA-2")
    def test_of_a_finished_batch_needs_no_statement(self, django_assert_num_queries):
        """Final figures are on the batch."""
        batch = Batch.objects.get(pk=a_batch(**FINISHED).pk)
        with django_assert_num_queries(0):
            summary = batch.summary()
        assert (summary.status, summary.nsuccess, summary.try_later) == (Status.SUCCESS, 1, False)

    def test_tells_that_a_batch_is_held_and_whose_child_it_is(self):
        """A held batch says so; a child names its parent."""
        parent = a_batch()
        child = Batch.objects.get(pk=a_batch(parent=parent, root=parent, held_at=Now(), hold_reason="many failed").pk)
        assert (child.summary().held, child.summary().parent) == (True, parent.pk)
        assert (parent.summary().held, parent.summary().parent) == (False, None)
        assert (child.root_batch_id, parent.root_batch_id) == (parent.pk, parent.pk)


class DetailsTests:
    def test_have_all_but_the_rows(self, registry):
        """The details of a batch are its record, as values."""
        register_batch_processor("bank", "fail", fail_odd)
        batch_id = batches.submit("bank", "fail", [1, 2], context={"a": 1}, input_file="in.csv", requested_by="eve")
        drain()
        batch = Batch.objects.get(pk=batch_id)
        details = batch.details(init_block="block")
        assert (details.id, details.app, details.op, details.kind) == (batch_id, "bank", "fail", Kind.BATCH)
        assert (details.context, details.input_file, details.requested_by) == ({"a": 1}, "in.csv", "eve")
        assert (details.status, details.nrows) == (Status.FAILED, 2)
        assert (details.nsuccess, details.nfailed, details.naborted) == (1, 1, 0)
        assert (details.requested_at, details.started_at, details.done_at) == (
            batch.requested_at,
            batch.started_at,
            batch.done_at,
        )
        assert (details.output_files, details.parent, details.init_block) == ({}, None, "block")
        assert batch.details().init_block is None
        check_invariants()


class OutcomeTests:
    def test_has_values_where_the_record_has_null(self):
        """Messages are a tuple and the worker a text, also of a row that nothing has happened to."""
        outcome = a_row().outcome()
        assert (outcome.line, outcome.status, outcome.result) == (1, Status.QUEUED, None)
        assert (outcome.messages, outcome.done_by, outcome.attempts) == ((), "", 0)

    def test_reads_the_messages(self):
        """Stored messages come back as ErrorMessages."""
        message = ErrorMessage("odd", "line", ("3",), msgid=4)
        row = a_row(status=Status.FAILED, messages=[message.as_json()], done_by="me", done_at=Now())
        assert row.outcome().messages == (message,)


class NameTests:
    def test_tell_what_a_record_is(self):
        """In the admin and in logs a record names itself."""
        batch = a_batch()
        assert str(batch) == f"bank/echo {batch.pk}"
        assert str(BatchRow(batch=batch, line=7)) == f"{batch.pk}:7"
        assert str(BatchProgress(batch=batch, slot=3, nsuccess=2, nfailed=1)) == f"{batch.pk}/3: 2 + 1"
        assert str(BatchErrors(batch=batch, counts={"odd": 2})) == f"{batch.pk}: {{'odd': 2}}"
        assert str(Worker(name="host-1")) == "host-1"
        assert str(BatchFile(file_name="in.csv")) == "in.csv"
        assert str(BusinessKey(batch_id=batch.pk, line=7)) == f"{batch.pk}/7"


class ForeignKeyTests:
    def test_from_rows_and_progress_are_not_checked(self):
        """No constraint of the database: its share locks on the batch would deadlock an abort."""
        for model in (BatchRow, BatchProgress, BatchErrors, BatchFile):
            field = model._meta.get_field("batch")
            assert field.db_constraint is False
            assert field.remote_field.on_delete is models.DO_NOTHING

    def test_of_a_slow_query_lead_to_its_row(self):
        """Rows are found from their batch."""
        query_id = slow_queries.submit("bank", "report", 1)
        assert Batch.objects.get(pk=query_id).rows.get().line == 0

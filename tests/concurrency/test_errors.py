"""Two workers that fail rows of one batch at the same moment."""

from __future__ import annotations

import json

import pytest

from alya_django import Status, batches, register_batch_processor
from alya_django.db import OTHER, RowEnding
from alya_django.db.postgresql import ADD_ERRORS
from alya_django.models import Batch
from tests.concurrency.connections import elsewhere, open_transaction, somebody_waits_for_a_lock, wait_until
from tests.invariants import check_invariants
from tests.processors import echo

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]


@pytest.fixture
def batch_id():
    register_batch_processor("app", "op", echo, chunk_rows=3)
    return batches.submit("app", "op", range(6))


def failures(chunk, *codes):
    return [
        RowEnding(row.id, Status.FAILED, None, json.dumps([{"msgid": 0, "errcode": code}]), None)
        for row, code in zip(chunk.rows, codes, strict=True)
    ]


def record_both(batch_id, make_claimer, make_recorder, first_codes, second_codes):
    """Have one worker record while the other has recorded and not committed."""
    first, second = make_claimer(1).take(), make_claimer(2).take()
    with open_transaction(lambda: make_recorder(1).record(batch_id, first.claim, failures(first, *first_codes))):
        late = elsewhere(lambda: make_recorder(2).record(batch_id, second.claim, failures(second, *second_codes)))
        wait_until(somebody_waits_for_a_lock, "the second waits")
    assert late.result(20) == 3
    return Batch.objects.get(pk=batch_id).error_counts()


class ErrorCountTests:
    @pytest.mark.rule("INV-11")
    def test_two_that_meet_the_same_new_code_count_it_together(self, batch_id, make_claimer, make_recorder) -> None:
        """Whoever comes second waits, and adds to what the first has counted, in whatever order their rows are."""
        counts = record_both(batch_id, make_claimer, make_recorder, ("a", "b", "c"), ("c", "b", "d"))
        assert counts == {"b": 2, "c": 2, "a": 1, "d": 1}
        check_invariants()

    @pytest.mark.rule("INV-11")
    def test_two_that_meet_new_codes_do_not_exceed_the_limit(
        self, batch_id, make_claimer, make_recorder, monkeypatch
    ) -> None:
        """Who has waited sees how much room the first one has left."""
        monkeypatch.setattr("alya_django.db.postgresql.ADD_ERRORS", ADD_ERRORS.replace("<= 200 ", "<= 4 "))
        counts = record_both(batch_id, make_claimer, make_recorder, ("a", "b", "c"), ("d", "e", "a"))
        assert counts == {"a": 2, "b": 1, "c": 1, "d": 1, OTHER: 1}

from __future__ import annotations

import pytest
from django.core.cache import cache
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from alya_django import NotFound, Status, batches
from tests.batches.states import put_into
from tests.batches.stored import stored
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


class TransactionTests:
    @pytest.mark.rule("API-7")
    def test_submit_is_taken_back_with_the_caller_s_transaction(self):
        """A rolled back submit leaves nothing."""

        def submit_and_fail():
            with transaction.atomic():
                batches.submit("bank", "echo", [1])
                raise LookupError

        before = stored()
        with pytest.raises(LookupError):
            submit_and_fail()
        assert stored() == before

    @pytest.mark.rule("API-7")
    @pytest.mark.parametrize("verb", ["append", "append and release", "release", "abort"])
    def test_a_verb_is_taken_back_with_the_caller_s_transaction(self, verb):
        """What a verb changed is as before when the caller rolls back, and reads say so."""
        batch_id = batches.submit("bank", "echo", [1], wait=True)
        act = {
            "append": lambda: batches.append(batch_id, [2]),
            "append and release": lambda: batches.append(batch_id, [2], wait=False),
            "release": lambda: batches.release(batch_id),
            "abort": lambda: batches.abort(batch_id),
        }[verb]

        def act_and_fail():
            with transaction.atomic():
                act()
                batches.status(batch_id)
                raise LookupError

        before = stored()
        with pytest.raises(LookupError):
            act_and_fail()
        assert stored() == before
        assert batches.status(batch_id).status is Status.WAIT

    @pytest.mark.rule("API-7")
    def test_verbs_follow_each_other_in_one_transaction(self):
        """Inside a transaction every verb sees what the one before did."""
        with transaction.atomic():
            batch_id = batches.submit("bank", "echo", [1], wait=True)
            assert batches.append(batch_id, [2]) == 2
            assert batches.release(batch_id) == 2
            assert batches.status(batch_id).status is Status.QUEUED
            assert batches.abort(batch_id).naborted == 2
            assert batches.result(batch_id).status is Status.ABORTED
        check_invariants()

    @pytest.mark.rule("API-6")
    def test_reads_take_no_locks(self, registry):
        """No verb that only asks locks a row."""
        batch_id = put_into(Status.FAILED)
        cache.clear()
        with CaptureQueriesContext(connection) as captured:
            batches.status(batch_id)
            batches.result(batch_id)
            list(batches.iter_rows(batch_id))
            batches.line(batch_id, 1)
            with pytest.raises(NotFound):
                batches.open_output(batch_id, "a.csv")
        assert len(captured) > 0
        assert not [query["sql"] for query in captured if " FOR " in query["sql"].upper()]

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from alya_django import InvalidInput, Status, batches, register_batch_processor, slow_queries
from alya_django.models import Batch
from alya_django.testing import drain
from tests.processors import fail_odd

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


def age(batch_id, **how_long):
    """Let a batch have been requested so long ago."""
    Batch.objects.filter(pk=batch_id).update(requested_at=timezone.now() - timedelta(**how_long))


@pytest.mark.parametrize("verbs", [batches, slow_queries], ids=["batches", "slow queries"])
class RecentTests:
    def submit(self, verbs, app="app", op="op"):
        return verbs.submit(app, op, [1])

    @pytest.mark.rule("LST-1")
    def test_lists_those_of_the_app_and_op_alone(self, verbs) -> None:
        """Names are folded; other apps, other ops and the other kind are left out."""
        mine, other_op = self.submit(verbs), self.submit(verbs, op="other")
        self.submit(verbs, app="elsewhere")
        self.submit(slow_queries if verbs is batches else batches)
        assert {details.id for details in verbs.recent("APP", days=1)} == {mine, other_op}
        assert [details.id for details in verbs.recent("app", "Op", days=1)] == [mine]

    @pytest.mark.rule("LST-1")
    def test_goes_back_so_many_times_24_hours(self, verbs) -> None:
        """What is a little older is left out."""
        young, old = self.submit(verbs), self.submit(verbs)
        age(young, hours=47, minutes=59)
        age(old, hours=48, minutes=1)
        assert [details.id for details in verbs.recent("app", days=2)] == [young]

    @pytest.mark.rule("LST-2")
    @pytest.mark.parametrize("days", [0, -1, 1.5, True, None, "7"])
    def test_refuses_days_that_are_none(self, verbs, days) -> None:
        """A day is the least, whole days the measure."""
        with pytest.raises(InvalidInput) as raised:
            verbs.recent("app", days=days)
        assert str(raised.value) == f"days: must be a whole number from 1 to 100000, not {days!r}."
        assert raised.value.field == "days"

    @pytest.mark.rule("LST-3")
    def test_nothing_is_an_empty_list(self, verbs) -> None:
        """No match is no error."""
        assert verbs.recent("app", days=30) == []

    @pytest.mark.rule("LST-4")
    def test_the_latest_is_first_and_limit_cuts(self, verbs) -> None:
        """Newest first, as many as asked for."""
        ids = [self.submit(verbs) for _ in range(3)]
        for hours, batch_id in enumerate(ids):
            age(batch_id, hours=hours)
        assert [details.id for details in verbs.recent("app", days=1)] == ids
        assert [details.id for details in verbs.recent("app", days=1, limit=2)] == ids[:2]
        with pytest.raises(InvalidInput, match="limit"):
            verbs.recent("app", days=1, limit=0)

    @pytest.mark.rule("LST-4")
    def test_costs_the_same_statements_for_any_number(self, verbs) -> None:
        """One for the batches, one for the progress of those that run."""
        counts = []
        for _ in range(2):
            for _ in range(3):
                self.submit(verbs)
            with CaptureQueriesContext(connection) as captured:
                verbs.recent("app", days=1)
            counts.append(len(captured))
        assert counts == [2, 2]


class DetailsTests:
    def test_have_live_and_final_counts(self, registry) -> None:
        """An unfinished batch is counted as far as it has come."""
        register_batch_processor("app", "op", fail_odd)
        batches.submit("app", "op", range(5), context={"who": "me"}, input_file="a.csv", requested_by="asha")
        drain()
        batches.submit("app", "op", range(2))
        running, finished = batches.recent("app", days=1)
        assert (finished.status, finished.nrows, finished.nsuccess, finished.nfailed) == (Status.FAILED, 5, 2, 3)
        assert (finished.context, finished.input_file, finished.requested_by) == ({"who": "me"}, "a.csv", "asha")
        assert (running.status, running.nrows, running.nsuccess, running.nfailed) == (Status.QUEUED, 2, 0, 0)

from __future__ import annotations

from functools import partial

import pytest

from alya_django import AlreadyDone, batches, own_queries, register_batch_processor
from alya_django.models import Batch
from alya_django.testing import drain
from tests.concurrency.connections import (
    DEADLINE_SECONDS,
    elsewhere,
    open_transaction,
    somebody_waits_for_a_lock,
    wait_until,
)
from tests.processors import fail_odd

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]


@pytest.fixture
def queued():
    """The id of a batch of three rows."""
    register_batch_processor("bank", "transfer", fail_odd)
    return batches.submit("bank", "transfer", range(3))


class AskTests:
    @pytest.mark.rule("ADM-11")
    @pytest.mark.parametrize("op", ["abort", "retry"])
    def test_of_two_who_ask_at_once_one_slow_query_comes(self, queued, op) -> None:
        """The second waits until the first has committed, and gets the same."""
        if op == "retry":
            drain()
            ask = partial(own_queries.ask_to_retry, queued, requested_by="asha")
        else:
            ask = partial(own_queries.ask_to_abort, queued, requested_by="asha", reason="because")
        with open_transaction(ask) as first:
            second = elsewhere(ask)
            wait_until(somebody_waits_for_a_lock, "the second has come to the batch")
        assert second.result(DEADLINE_SECONDS) == first
        assert Batch.objects.filter(app="alya").count() == 1

    @pytest.mark.rule("ADM-11")
    def test_who_asks_while_it_is_aborted_is_told(self, queued) -> None:
        """It waits for the abort, and then asks for nothing."""
        with open_transaction(partial(batches.abort, queued)):
            asking = elsewhere(partial(own_queries.ask_to_abort, queued, requested_by="asha", reason="because"))
            wait_until(somebody_waits_for_a_lock, "it has come to the batch")
        with pytest.raises(AlreadyDone):
            asking.result(DEADLINE_SECONDS)
        assert not Batch.objects.filter(app="alya").exists()

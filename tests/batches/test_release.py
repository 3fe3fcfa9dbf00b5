from __future__ import annotations

import pytest

from alya_django import InvalidState, Status, batches, register_batch_processor
from alya_django.testing import drain
from tests.batches.states import put_into, while_running
from tests.batches.stored import refusing, stored
from tests.invariants import check_invariants
from tests.processors import echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


class ReleaseTests:
    @pytest.mark.rule("WOF-1")
    def test_lets_a_waiting_batch_go(self, registry):
        """A released batch is queued, and worked off."""
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", [1, 2], wait=True)
        assert batches.release(batch_id) == 2
        assert batches.status(batch_id).status is Status.QUEUED
        assert drain() == 2
        check_invariants()

    @pytest.mark.rule("WOF-2")
    def test_leaves_a_queued_batch_queued(self):
        """Released again, it answers the same."""
        batch_id = batches.submit("bank", "echo", [1, 2], wait=True)
        batches.release(batch_id)
        before = stored()
        assert batches.release(batch_id) == 2
        assert stored() == before

    @pytest.mark.rule("WOF-3")
    @pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILED, Status.ABORTED])
    def test_refuses_a_batch_that_has_ended(self, registry, status):
        """A final state stays; the error carries it."""
        batch_id = put_into(status)
        with refusing(InvalidState) as caught:
            batches.release(batch_id)
        assert str(caught.value) == f"The batch {batch_id} is not waiting: its status is {status.label}."
        assert caught.value.status is status
        check_invariants()

    @pytest.mark.rule("WOF-3")
    def test_refuses_a_running_batch(self, registry):
        """A batch that has started is not waiting."""

        def release(batch_id):
            with pytest.raises(InvalidState) as caught:
                batches.release(batch_id)
            return caught.value

        batch_id, (error,) = while_running(release)
        assert str(error) == f"The batch {batch_id} is not waiting: its status is in progress."
        assert error.status is Status.IN_PROGRESS
        check_invariants()

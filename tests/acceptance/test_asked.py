from __future__ import annotations

import signal
from typing import Any

import pytest
from django.test import Client

from alya_django import Status, batches, own_queries
from alya_django.admin.confirm import ROWS_AT_ONCE_MAX
from alya_django.models import Batch
from tests.acceptance.questions import is_begun
from tests.admin.pages import act_of, logged, page_of, said, text
from tests.concurrency.connections import wait_until
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.sqlite]

NROWS = ROWS_AT_ONCE_MAX + 100


class AskedTests:
    @pytest.mark.rule("ADM-11", "ADM-12", "ADM-13", "SCO-4")
    def test_a_worker_at_work_aborts_and_retries_what_it_is_asked_to(self, manage: Any, admin_client: Client) -> None:
        """A worker without options does so beside the project's own ops, and the pages say what came of it."""
        batch_id = batches.submit("acceptance", "sleep", [0.05] * NROWS)
        worker = manage("alya_worker")
        wait_until(lambda: is_begun(batch_id), "a row is in progress")
        response = admin_client.post(act_of(batch_id, "abort"), {"confirmed": "yes", "reason": "wrong file"})
        assert "Asked a worker to abort" in said(response)[0]
        wait_until(lambda: Batch.objects.get(pk=batch_id).status == Status.ABORTED, "the batch is aborted")
        naborted = batches.status(batch_id).naborted
        assert naborted > ROWS_AT_ONCE_MAX
        wait_until(lambda: self.is_answered("abort"), "the slow query is answered")
        assert f"Aborted {naborted} rows." in text(admin_client.get(page_of(batch_id)))

        admin_client.post(act_of(batch_id, "retry"), {"confirmed": "yes"})
        wait_until(lambda: self.is_answered("retry"), "the child is there")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
        (child,) = batches.children(batch_id)
        assert batches.status(child).nrows == naborted
        assert f"Retried {naborted} rows in batch {child}." in text(admin_client.get(page_of(batch_id)))
        assert [entry.split(" to ")[1].split()[0] for entry in logged()] == ["abort", "retry"]
        check_invariants()

    @pytest.mark.rule("SCO-4")
    def test_a_worker_that_is_narrowed_leaves_them(self, manage: Any) -> None:
        """Until its app is named too."""
        batch_id = batches.submit("acceptance", "sleep", [0], wait=True)
        own_queries.ask_to_abort(batch_id, requested_by="", reason="")
        for apps, status in ((["acceptance"], Status.WAIT), (["acceptance", "alya"], Status.ABORTED)):
            worker = manage("alya_worker", "--drain", *(f"--app={app}" for app in apps))
            output, _ = worker.communicate(timeout=180)
            assert worker.returncode == 0, output
            assert Batch.objects.get(pk=batch_id).status == status

    def is_answered(self, op: str) -> bool:
        return Batch.objects.filter(app="alya", op=op, status=Status.SUCCESS).exists()

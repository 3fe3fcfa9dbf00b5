from __future__ import annotations

import pytest
from django.test import Client
from django.utils import timezone

from alya_django.models import Worker
from tests.admin.pages import WORKERS, table, text

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


def add_worker() -> Worker:
    return Worker.objects.create(
        name="host-a-4711-9f3c",
        host="host-a",
        pid=4711,
        version="0.1.0",
        ops=[["B", "bank", "transfer"], ["Q", "bank", "report"], ["Q", "bank", "transfer"]],
        started=timezone.now(),
        heartbeat=timezone.now(),
        rate=8420.4,
    )


class WorkerTests:
    def test_shows_the_workers(self, admin_client: Client) -> None:
        """A worker is one line: where it runs, what it serves, how fast, since when and its last heartbeat."""
        worker = add_worker()
        times = [f"{timezone.localtime(at):%Y-%m-%d %H:%M:%S}" for at in (worker.started, worker.heartbeat)]
        assert table(admin_client.get(WORKERS)) == [
            ["host-a-4711-9f3c", "host-a", "4711", "0.1.0", "bank/report, bank/transfer", "8,420", *times]
        ]

    def test_says_that_there_are_none(self, admin_client: Client) -> None:
        """An empty list is said in words."""
        assert "No workers to show." in text(admin_client.get(WORKERS))

    def test_shows_one(self, admin_client: Client) -> None:
        """A worker's page shows the same."""
        assert "bank/report, bank/transfer" in text(admin_client.get(f"{WORKERS}{add_worker().pk}/change/"))

    @pytest.mark.parametrize("path", ["add/", "{}/change/", "{}/delete/"])
    def test_refuses_every_post(self, path: str, admin_client: Client) -> None:
        """Not even a superuser adds, changes or deletes."""
        worker = add_worker()
        assert admin_client.post(WORKERS + path.format(worker.pk), {"post": "yes"}).status_code == 403
        assert Worker.objects.get() == worker

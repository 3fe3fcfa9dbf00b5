"""A cache that lies to the pages: what is seen, offered and done is as the database has it, and nothing fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from django.core.cache import cache
from django.test import Client

from alya_django import Status, batches
from alya_django.models import Batch
from tests.admin.pages import BATCHES, act_of, page_of
from tests.forgeries import SECRET, VALUES, forge, forgeries, key

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

PROGRESS = f"{BATCHES}progress/"


@pytest.fixture(autouse=True)
def _empty_cache() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def running(admin_client: Client) -> UUID:
    """A batch of a shop that runs, whose figures are cached."""
    batch_id = batches.submit("shop", "order", range(3))
    Batch.objects.filter(pk=batch_id).update(status=Status.IN_PROGRESS)
    admin_client.get(PROGRESS, {"ids": str(batch_id)})
    return batch_id


class FigureTests:
    @pytest.mark.rule("SEC-2")
    def test_fail_no_poll(self, running: UUID, admin_client: Client) -> None:
        """Whatever stands there, the poll answers, of the batch that was asked for."""
        for title in forgeries(running, "FIGURES"):
            # The poll's own is in the cache as long as it is its turn.
            cache.set(key(running, "FIGURES_TURN"), 1)
            polled = admin_client.get(PROGRESS, {"ids": str(running)})
            assert list(polled.json()["batches"]) == [str(running)], title

    @pytest.mark.rule("SEC-2")
    def test_fail_no_page(self, running: UUID, admin_client: Client) -> None:
        """Nor do the list and the page of the batch fail over it."""
        for value in VALUES.values():
            forge(running, "FIGURES", nrows=value, samples=value)
            assert admin_client.get(BATCHES).status_code == 200
            assert admin_client.get(page_of(running)).status_code == 200

    @pytest.mark.rule("SEC-3")
    def test_cross_no_scope(self, running: UUID, admin_client: Client, settings: Any) -> None:
        """Whatever the cache says of the app, or of another batch, who must not see a batch is told nothing."""
        settings.ALYA = {"ADMIN_SCOPE": "tests.admin.test_permissions.only_bank"}
        own = batches.submit("bank", "transfer", [{}])
        assert list(admin_client.get(PROGRESS, {"ids": str(own)}).json()["batches"]) == [str(own)]
        forge(running, "FIGURES", app="bank", parent__app="bank", id=str(own))
        assert admin_client.get(PROGRESS, {"ids": str(running)}).json() == {"batches": {}}
        # Nor does the figures of the one pass for those of the other: each has the id that was asked for.
        cache.set(key(own, "FIGURES"), cache.get(key(running, "FIGURES")))
        assert list(admin_client.get(PROGRESS, {"ids": str(own)}).json()["batches"]) == [str(own)]

    @pytest.mark.rule("SEC-3")
    def test_allow_no_act(self, running: UUID, ended: UUID, admin_client: Client) -> None:
        """What is offered and done follows from the batch, not from what its figures say."""
        admin_client.get(PROGRESS, {"ids": str(ended)})
        forge(running, "FIGURES", status="failed", nfailed=3)
        forge(ended, "FIGURES", status="wait")
        for batch_id, act in ((running, "retry"), (ended, "release"), (ended, "abort")):
            assert act_of(batch_id, act) not in admin_client.get(page_of(batch_id)).content.decode()
            admin_client.post(act_of(batch_id, act), {"reason": "it says so"})
        assert Batch.objects.get(pk=running).status == Status.IN_PROGRESS
        assert Batch.objects.get(pk=ended).status == Status.FAILED
        assert Batch.objects.count() == 2


class DownloadTests:
    @pytest.mark.rule("SEC-1", "SEC-3")
    def test_give_what_the_database_names(self, ended: UUID, staff_client: Callable[..., Client]) -> None:
        """A file that only the cache names is not found."""
        batches.status(ended)
        forge(ended, "SUMMARY", outputFiles={"b.csv": SECRET})
        client = staff_client("view_batch", "download_output")
        assert client.get(f"{BATCHES}{ended}/output/", {"name": "b.csv"}).status_code == 404

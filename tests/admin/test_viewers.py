"""Whoever may only look changes nothing: every address of the admin, by every method, with all that could mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.db.models import Model
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from alya_django import BatchInput, batches, checkers, register_batch_processor, register_file_checker
from alya_django.admin import acts
from alya_django.intake import uploads
from alya_django.models import Batch, BatchErrors, BatchFile, BatchProgress, BatchRow, Worker
from alya_django.testing import drain
from tests.admin.pages import BATCHES
from tests.processors import write_lines

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("folder")]

TABLES: list[type[Model]] = [Batch, BatchErrors, BatchFile, BatchProgress, BatchRow, Worker, LogEntry]
POST = {"confirmed": "yes", "reason": "because", "post": "yes", "_save": "1", "status": "aborted", "name": "late.csv"}


def addresses(ids: list[object]) -> list[str]:
    """Return every address of Alya's pages, each with every id that there is."""
    patterns = [
        pattern for pattern in _patterns(get_resolver().url_patterns) if pattern.startswith("/admin/alya_django/")
    ]
    found = set()
    for pattern in patterns:
        if "<" not in pattern:
            found.add(pattern)
        found |= {_filled(pattern, one) for one in ids if "<" in pattern}
    return sorted(found)


def _patterns(given: Any, prefix: str = "/") -> Iterator[str]:
    for pattern in given:
        whole = f"{prefix}{pattern.pattern}"
        if isinstance(pattern, URLResolver):
            yield from _patterns(pattern.url_patterns, whole)
        elif isinstance(pattern, URLPattern):
            yield whole


def _filled(pattern: str, value: object) -> str:
    before, _, rest = pattern.partition("<")
    _, _, after = rest.partition(">")
    filled = f"{before}{value}{after}"
    return _filled(filled, 1) if "<" in filled else filled


def everything() -> dict[str, list[dict[str, Any]]]:
    """Return all that is in the tables."""
    return {model.__name__: list(model._default_manager.order_by("pk").values()) for model in TABLES}


@pytest.fixture
def ids(registry: Any) -> list[object]:
    """Batches that wait, are queued, or have ended with a file; a row, a worker, a received file and an upload."""
    register_batch_processor("bank", "transfer", write_lines)
    ended = batches.submit("bank", "transfer", [{"late.csv": "a"}])
    drain()
    queued, waiting = batches.submit("bank", "other", [{}]), batches.submit("bank", "other", [{}], wait=True)
    worker = Worker.objects.create(name="w", host="h", pid=1, version="1")
    file = BatchFile.objects.create(object_id="in/f", error_object_id="failed/f", checksum="00", file_name="f.csv")
    register_file_checker("txn", lambda *given: iter([BatchInput(1, {})]), app="bank", op="transfer", upload=True)
    checker = checkers.find("txn")
    assert checker is not None
    upload = uploads.keep(b"1", file_name="u.csv", checker=checker, uploaded_by="asha")
    return [ended, queued, waiting, BatchRow.objects.earliest("pk").pk, worker.pk, file.pk, upload]


@pytest.fixture
def viewer(staff_client: Callable[..., Client]) -> Client:
    """Somebody who may look at everything, and nothing else."""
    return staff_client("view_batch", "view_batchrow", "view_batchfile", "view_worker")


class ViewerTests:
    def test_all_pages_are_known(self, ids: list[object]) -> None:
        """The walk does not pass by what it is about."""
        found = addresses(ids)
        assert {f"{BATCHES}{ids[1]}/{act.name}/" for act in acts.ACTS} <= set(found)
        assert f"{BATCHES}{ids[0]}/output/" in found
        assert {f"{BATCHES}upload/{ids[-1]}/{act}/" for act in ("confirm", "discard")} <= set(found)
        ours = [model._meta for model in admin.site._registry if model._meta.app_label == "alya_django"]
        assert all(f"/admin/alya_django/{model.model_name}/" in found for model in ours)

    @pytest.mark.rule("ADM-10")
    def test_no_action_of_a_list_changes_anything(self, ids: list[object], viewer: Client) -> None:
        """Neither ours, nor Django's own, nor one that is made up, asked or confirmed."""
        before = everything()
        names = [*(f"{act.name}_chosen" for act in acts.ACTS), "delete_selected", "made_up"]
        for address in addresses([]):
            for name in names:
                chosen = {"action": name, "_selected_action": [str(one) for one in ids], "index": "0"}
                for more in ({}, POST, {**POST, "select_across": "1"}):
                    viewer.post(address, {**chosen, **more})
        assert everything() == before

    @pytest.mark.rule("ADM-10")
    def test_looking_changes_nothing_for_those_who_may_more(self, ids: list[object], admin_client: Client) -> None:
        """A superuser who only follows links changes no batch; a download is logged, and nothing else is."""
        before = everything()
        for address in addresses(ids):
            admin_client.get(address)
        after = everything()
        assert {name for name in after if after[name] != before[name]} <= {"LogEntry"}

    def test_no_download_is_given(self, ids: list[UUID], viewer: Client) -> None:
        """Neither a file nor the failed lines."""
        assert viewer.get(f"{BATCHES}{ids[0]}/output/", {"name": "late.csv"}).status_code == 403
        assert viewer.get(f"{BATCHES}{ids[0]}/failed-lines/").status_code == 403

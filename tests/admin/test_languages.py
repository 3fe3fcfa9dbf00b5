from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from django.test import Client
from django.utils.translation import gettext, override

from alya_django import BatchInput, batches, intake, register_file_checker
from alya_django.models import Worker
from tests.admin.pages import BATCHES, FILES, WORKERS, line_of, rows_of, text

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

ENGLISH = [
    "rows",
    "failed",
    "in progress",
    "Retry failed rows",
    "Previous failed line",
    "What became of it",
    "requested by",
    "last heartbeat",
    "Type of the file",
    "received at",
    "It is kept in the history of the batch.",
]


@pytest.fixture
def german(settings: Any) -> None:
    settings.LANGUAGE_CODE = "de"


@pytest.mark.usefixtures("german")
class GermanTests:
    @pytest.mark.rule("ADM-60")
    def test_every_page_is_german(self, admin_client: Client, ended: UUID) -> None:
        """No page falls back to English in between."""
        register_file_checker("payments", lambda *_: [BatchInput(1, {})], app="bank", op="transfer", upload=True)
        file_id = intake.process(file="1", file_name="monday.csv", file_type="payments").file_id
        waiting = batches.submit("bank", "transfer", [{}], wait=True)
        Worker.objects.create(name="w", host="h", pid=1, version="1")
        page = f"{BATCHES}{ended}"
        said = [
            text(admin_client.get(address))
            for address in (
                BATCHES,
                f"{page}/change/",
                f"{page}/history/",
                f"{page}/retry/",
                f"{BATCHES}{waiting}/release/",
                f"{BATCHES}{waiting}/abort/",
                rows_of(ended),
                rows_of(ended, status="failed"),
                line_of(ended, 1),
                WORKERS,
                FILES,
                f"{FILES}{file_id}/change/",
                f"{BATCHES}upload/",
            )
        ]
        assert [(word, page) for word in ENGLISH for page in said if f" {word} " in page] == []

    def test_a_page_says_it_in_german(self, admin_client: Client, ended: UUID) -> None:
        """In whole sentences, with German figures."""
        said = text(admin_client.get(f"{BATCHES}{ended}/change/"))
        assert "100,0 % 10 von 10 Zeilen" in said
        assert "eingereicht von asha" in said
        assert "fehlgeschlagen" in said


class LanguageTests:
    def test_states_are_kept_in_no_language(self, ended: UUID, german: None) -> None:
        """What is stored and what verbs return is the same in every language; only what is shown is translated."""
        assert batches.status(ended).status == "failed"
        with override("de"):
            assert gettext("failed") == "fehlgeschlagen"

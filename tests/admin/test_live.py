from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from django.test import Client
from django.utils import translation

from alya_django import Status, batches
from alya_django.models import Batch, BatchProgress
from tests.admin.pages import BATCHES

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

PROGRESS = f"{BATCHES}progress/"


@pytest.fixture
def batch_id() -> UUID:
    """A batch of ten rows, three of which have ended."""
    made = batches.submit("bank", "transfer", range(10))
    Batch.objects.filter(pk=made).update(status=Status.IN_PROGRESS)
    BatchProgress.objects.create(batch_id=made, slot=0, nsuccess=2, nfailed=1)
    return made


def ask(client: Client, *ids: object) -> Any:
    response = client.get(PROGRESS, {"ids": ",".join(map(str, ids))})
    assert response.status_code == 200
    return response.json()["batches"]


class AnswerTests:
    @pytest.mark.rule("ADM-9")
    def test_says_what_the_pages_show(self, batch_id: UUID, admin_client: Client) -> None:
        """The figures, and each text in the words of the page."""
        assert ask(admin_client, batch_id) == {
            str(batch_id): {
                "final": False,
                "look": "inprog",
                "value": 3,
                "max": 10,
                "texts": {
                    "icon": "▶",
                    "state": "in progress",
                    "share": "30.0\xa0%",
                    "amount": "3\xa0of\xa010\xa0rows",
                    "success": "2",
                    "failed": "1",
                    "aborted": "0",
                    "left": "7",
                    "put-off": "0",
                    "rate": "",
                    "time-left": "",
                    "stalled": "",
                },
            }
        }

    def test_answers_for_many_at_once(self, batch_id: UUID, admin_client: Client) -> None:
        """What is no id, or none of a batch, is left out."""
        other = batches.submit("bank", "transfer", [{}])
        assert set(ask(admin_client, batch_id, "nonsense", other, "", uuid4())) == {str(batch_id), str(other)}
        assert ask(admin_client) == {}

    def test_no_more_than_a_hundred(self, admin_client: Client) -> None:
        """A longer list than any page has is cut."""
        ids = [batches.submit("bank", "transfer", [{}]) for _ in range(3)]
        assert set(ask(admin_client, *["x"] * 98, *ids)) == {str(ids[0]), str(ids[1])}

    @pytest.mark.rule("ADM-2")
    def test_is_silent_about_other_apps(self, batch_id: UUID, admin_client: Client, settings: Any) -> None:
        """What was cached for somebody else is not for everybody."""
        shop = batches.submit("shop", "order", [{}])
        ask(admin_client, batch_id, shop)
        settings.ALYA = {"ADMIN_SCOPE": "tests.admin.test_permissions.only_bank"}
        assert set(ask(admin_client, batch_id, shop)) == {str(batch_id)}

    def test_speaks_the_language_of_who_asks(self, batch_id: UUID, admin_client: Client) -> None:
        """What is cached are numbers, not words."""
        ask(admin_client, batch_id)
        with translation.override("de"):
            assert ask(admin_client, batch_id)[str(batch_id)]["texts"]["share"].startswith("30,0")

    def test_needs_the_permission_to_view(self, batch_id: UUID, staff_client: Any, client: Client) -> None:
        """Whoever may not see batches is not told how they go."""
        assert staff_client("abort_batch").get(PROGRESS, {"ids": str(batch_id)}).status_code == 403
        assert client.get(PROGRESS, {"ids": str(batch_id)}).status_code == 302

    def test_only_answers(self, batch_id: UUID, admin_client: Client) -> None:
        """There is nothing to post, and nothing to keep."""
        assert admin_client.post(PROGRESS).status_code == 405
        assert "no-store" in admin_client.get(PROGRESS)["Cache-Control"]

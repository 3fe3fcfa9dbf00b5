from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from alya_django import batches
from alya_django.admin.paging import Keyset
from alya_django.models import Batch
from tests.admin.pages import BATCHES, ROWS, column, links, rows_of, text

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
ORDER = Keyset(Batch, ("-requested_at", "id"))


def submit_many(count: int) -> list[str]:
    """Submit batches, three to the second, and return their short ids in the order of the list."""
    for _ in range(count):
        batches.submit("bank", "transfer", [{}])
    for index, batch in enumerate(Batch.objects.all()):
        Batch.objects.filter(pk=batch.pk).update(requested_at=NOON + timedelta(seconds=index // 3))
    return [str(batch.pk)[:8] for batch in Batch.objects.order_by("-requested_at", "id")]


class PagerTests:
    def test_pages_lead_through_the_list_and_back(self, admin_client: Client) -> None:
        """Next leads to every batch once, previous the same way back, though several share a second."""
        ids = submit_many(60)
        address, pages = BATCHES, []
        for _ in range(3):
            response = admin_client.get(address)
            pages.append(column(response))
            address = BATCHES + links(response).get("Next page", "")
        assert pages == [ids[:25], ids[25:50], ids[50:]]
        assert "Next page" not in links(response)
        response = admin_client.get(BATCHES + links(response)["Previous page"])
        assert column(response) == ids[25:50]
        response = admin_client.get(BATCHES + links(response)["Previous page"])
        assert column(response) == ids[:25]
        assert {"First page", "Previous page"}.isdisjoint(links(response))

    def test_every_page_leads_to_the_first(self, admin_client: Client) -> None:
        """The first page is one click away from any other."""
        batch_id = batches.submit("bank", "transfer", [{}] * 350)
        response = admin_client.get(rows_of(batch_id, q=340))
        assert column(admin_client.get(ROWS + links(response)["First page"]))[0] == "1"

    def test_a_short_page_before_is_the_first_page(self, admin_client: Client) -> None:
        """Where fewer rows precede than fill a page, the first page is shown whole."""
        batch_id = batches.submit("bank", "transfer", [{}] * 150)
        response = admin_client.get(rows_of(batch_id, before=31))
        assert column(response) == [str(line) for line in range(1, 101)]
        assert set(links(response)) & {"First page", "Previous page", "Next page"} == {"Next page"}

    def test_says_how_many_are_on_the_page(self, admin_client: Client) -> None:
        """The page counts itself, not the list."""
        submit_many(26)
        assert "25 batches on this page" in text(admin_client.get(BATCHES))

    def test_beyond_the_end_there_is_the_first_page(self, admin_client: Client) -> None:
        """A page after the last row is empty and leads to the first."""
        batch_id = batches.submit("bank", "transfer", [{}])
        response = admin_client.get(rows_of(batch_id, after=1))
        assert column(response) == []
        assert column(admin_client.get(ROWS + links(response)["First page"])) == ["1"]
        assert "Previous page" not in links(response)

    def test_links_keep_the_filters(self, admin_client: Client) -> None:
        """The next page is the next of what is filtered."""
        batch_id = batches.submit("bank", "transfer", [{}] * 101)
        found = links(admin_client.get(rows_of(batch_id, status="queued")))
        assert found["Next page"] == f"?after=100&batch={batch_id}&status=queued"

    def test_filters_begin_with_the_first_page(self, admin_client: Client) -> None:
        """A filter's link, and the search form, drop the place in the list."""
        batch_id = batches.submit("bank", "transfer", [{}] * 101)
        response = admin_client.get(rows_of(batch_id, after=100))
        assert links(response)["◔ queued"] == f"?batch={batch_id}&status=queued"
        assert 'name="after"' not in response.content.decode()

    @pytest.mark.parametrize("name", ["after", "before"])
    @pytest.mark.parametrize(
        "place",
        [
            "",
            "nonsense",
            ",",
            "\0,\0",
            "2026-11-24T12:00:00+00:00",
            "2026-11-24T12:00:00+00:00,nonsense",
            "2026-11-24T12:00:00,00000000-0000-0000-0000-000000000000",
            "2026-11-24,00000000-0000-0000-0000-000000000000",
            "2026-11-99T12:00:00+00:00,00000000-0000-0000-0000-000000000000",
            "0001-01-01T00:00:00+23:00,00000000-0000-0000-0000-000000000000",
            "9999-12-31T23:59:59-23:00,00000000-0000-0000-0000-000000000000",
        ],
    )
    def test_a_place_that_is_none_is_the_first_page(self, place: str, name: str, admin_client: Client) -> None:
        """Whatever the URL says, it is no error."""
        ids = submit_many(2)
        assert column(admin_client.get(BATCHES, {name: place})) == ids

    @pytest.mark.parametrize("place", ["nonsense", "1,2", "\0", "-1", "-" + "9" * 30, "9" * 5000])
    def test_a_line_that_is_none_is_the_first_page(self, place: str, admin_client: Client) -> None:
        """A place before all lines, or none at all, is the first page."""
        batch_id = batches.submit("bank", "transfer", [{}])
        assert column(admin_client.get(rows_of(batch_id, after=place))) == ["1"]
        assert column(admin_client.get(rows_of(batch_id, before=place))) == ["1"]

    def test_a_line_beyond_all_integers_is_no_error(self, admin_client: Client) -> None:
        """A number that no column holds is after all lines."""
        batch_id = batches.submit("bank", "transfer", [{}])
        assert column(admin_client.get(rows_of(batch_id, after="9" * 30))) == []
        assert column(admin_client.get(rows_of(batch_id, before="9" * 30))) == ["1"]

    def test_nothing_is_counted(self, admin_client: Client) -> None:
        """No list asks how many there are, on any page."""
        submit_many(30)
        with CaptureQueriesContext(connection) as captured:
            response = admin_client.get(BATCHES)
            admin_client.get(BATCHES + links(response)["Next page"])
            admin_client.get(BATCHES, {"p": "2", "all": "", "_facets": "True", "o": "3"})
        assert not [query for query in captured if "COUNT(" in query["sql"].upper()]

    def test_an_extreme_place_is_no_error(self, admin_client: Client) -> None:
        """The ends of the calendar are places too."""
        submit_many(1)
        nobody = UUID(int=0)
        assert column(admin_client.get(BATCHES, {"after": f"0001-01-01T00:00:00+00:00,{nobody}"})) == []
        assert len(column(admin_client.get(BATCHES, {"after": f"9999-12-31T23:59:59+00:00,{nobody}"}))) == 1


class KeysetTests:
    def test_reads_what_it_wrote(self) -> None:
        """The place of a row goes through a URL unchanged, whatever its time zone."""
        batch = Batch(requested_at=NOON.astimezone().replace(microsecond=123456))
        assert ORDER.read(ORDER.write(batch)) == [batch.requested_at, batch.id]

    def test_reads_local_times_where_the_project_has_no_zones(self, settings: Any) -> None:
        """With USE_TZ off, times have no zone, and those that have one mean nothing."""
        settings.USE_TZ = False
        batch = Batch(requested_at=datetime(2026, 11, 24, 12))
        assert ORDER.read(ORDER.write(batch)) == [batch.requested_at, batch.id]
        assert ORDER.read(f"2026-11-24T12:00:00+00:00,{batch.id}") is None

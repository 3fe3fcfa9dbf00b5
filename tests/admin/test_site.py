from __future__ import annotations

import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest
from django.contrib import admin
from django.contrib.admin.sites import AdminSite
from django.test import Client
from django.urls import path

from alya_django import batches
from alya_django.admin import BatchAdmin, register
from alya_django.models import Batch, BatchFile, BatchRow, Worker
from tests.admin.pages import BATCHES, ROWS, WORKERS, column, links, rows_of

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

site = AdminSite(name="operators")
register(site)
urlpatterns = [path("operators/", site.urls), path("admin/", admin.site.urls)]


class NoWriting:
    """A router that reads anywhere and has no database to write Alya's tables to."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        if model._meta.app_label == "alya_django":
            raise AssertionError(f"{model} was asked for to write")
        return None


class SiteTests:
    def test_the_default_site_has_the_pages(self) -> None:
        """Installed apps are enough: the pages are found by themselves."""
        assert all(admin.site.is_registered(model) for model in (Batch, BatchFile, BatchRow, Worker))

    def test_a_site_of_the_project_has_the_pages(self, admin_client: Client, ended: UUID, settings: Any) -> None:
        """Pages of another site lead to pages of the same site."""
        settings.ROOT_URLCONF = __name__
        response = admin_client.get("/operators/alya_django/batch/")
        batch_page = links(response)[str(ended)[:8]]
        rows_page = links(admin_client.get(batch_page))["Rows"]
        row_page = links(admin_client.get(rows_page))["1"]
        back = links(admin_client.get(row_page))[f"bank/transfer {ended}"]
        assert all(address.startswith("/operators/") for address in (batch_page, rows_page, row_page, back))

    def test_what_a_site_has_already_stays(self) -> None:
        """A project's own page of a model is not replaced, and registering again is no error."""

        class OwnAdmin(BatchAdmin):
            pass

        own = AdminSite()
        own.register(Batch, OwnAdmin)
        register(own)
        register(own)
        assert isinstance(own.get_model_admin(Batch), OwnAdmin)
        assert own.is_registered(BatchRow)

    def test_the_pages_read_where_reads_go(self, admin_client: Client, ended: UUID, settings: Any) -> None:
        """No page asks the router for the database that is written to."""
        settings.DATABASE_ROUTERS = [NoWriting()]
        for address in (BATCHES, f"{BATCHES}{ended}/change/", rows_of(ended), f"{BATCHES}{ended}/line/1/", WORKERS):
            assert admin_client.get(address).status_code == 200

    def test_the_engine_stays_away(self) -> None:
        """A web process that shows the pages has not loaded what workers run."""
        code = (
            "import django, sys; django.setup(); import alya_django.admin;"
            "sys.exit(any(name.startswith('alya_django.engine') for name in sys.modules))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class PermissionTests:
    @pytest.mark.parametrize(
        ("codename", "address"), [("view_batch", BATCHES), ("view_batchrow", ROWS), ("view_worker", WORKERS)]
    )
    def test_a_page_needs_its_permission(self, codename: str, address: str, staff_client: Any) -> None:
        """Whoever may see one kind of page sees that one alone."""
        client = staff_client(codename)
        statuses = {page: client.get(page).status_code for page in (BATCHES, ROWS, WORKERS)}
        assert statuses == {page: 200 if page == address else 403 for page in statuses}

    def test_rows_lead_to_the_batch_only_those_who_may_see_it(self, staff_client: Any) -> None:
        """Whoever may see rows alone is not led to a page that refuses."""
        batch_id = batches.submit("bank", "transfer", [{}])
        response = staff_client("view_batchrow").get(rows_of(batch_id))
        assert column(response) == ["1"]
        assert "Batch" not in links(response)

    @pytest.mark.parametrize("address", [BATCHES, ROWS, WORKERS])
    def test_a_visitor_must_log_in(self, address: str, client: Client) -> None:
        """Nothing is shown to whoever is not known."""
        assert client.get(address).status_code == 302

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from django.contrib.admin import AdminSite
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpRequest
from django.test import Client

from alya_django import batches
from alya_django.admin import permissions
from alya_django.models import Batch, BatchRow
from tests.admin.pages import BATCHES, ROWS, column, rows_of, text

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

ACTS = ["submit_batch", "release_batch", "abort_batch", "retry_batch", "download_output", "view_input"]

asked: list[HttpRequest] = []


def only_bank(request: HttpRequest) -> list[str]:
    asked.append(request)
    return ["Bank"]


def everything(request: HttpRequest) -> None:
    return None


def nothing(request: HttpRequest) -> list[str]:
    return []


def a_text(request: HttpRequest) -> str:
    return "bank"


def scope_to(settings: Any, function: Any) -> None:
    settings.ALYA = {"ADMIN_SCOPE": f"{__name__}.{function.__name__}"}


def request_of(*codenames: str, **fields: Any) -> HttpRequest:
    """Return a request of somebody with only the named permissions."""
    user = User.objects.create_user("asha", **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    request = HttpRequest()
    request.user = user
    return request


@pytest.fixture
def bank() -> UUID:
    return batches.submit("bank", "transfer", [{}])


@pytest.fixture
def shop() -> UUID:
    return batches.submit("shop", "order", [{}])


class PermissionTests:
    @pytest.mark.rule("ADM-1")
    def test_there_is_one_for_each_act(self) -> None:
        """Migrations make them beside the one to view."""
        made = Permission.objects.filter(content_type__app_label="alya_django", content_type__model="batch")
        assert set(made.values_list("codename", flat=True)) == {"view_batch", *ACTS}

    @pytest.mark.rule("ADM-1")
    @pytest.mark.parametrize("codename", ["view_batch", *ACTS])
    def test_allows_one_act_alone(self, codename: str) -> None:
        """Whoever may do one thing may do no other."""
        request = request_of(codename)
        assert [name for name in ["view_batch", *ACTS] if permissions.may(request, name)] == [codename]

    def test_a_superuser_may_do_all(self) -> None:
        """As everywhere in Django."""
        request = request_of(is_superuser=True)
        assert all(permissions.may(request, name) for name in ACTS)

    def test_who_is_not_active_or_not_known_may_nothing(self) -> None:
        """Not even with the permission."""
        request = request_of("abort_batch", is_active=False)
        assert not permissions.may(request, "abort_batch")
        request.user = AnonymousUser()
        assert not permissions.may(request, "abort_batch")

    def test_demands_what_one_may(self, bank: UUID) -> None:
        """Who may goes on, who may not is refused."""
        request = request_of("abort_batch")
        permissions.demand(request, permissions.ABORT, Batch.objects.get())
        with pytest.raises(PermissionDenied):
            permissions.demand(request, permissions.RETRY, Batch.objects.get())


class ScopeTests:
    @pytest.mark.rule("ADM-2")
    def test_without_one_everybody_sees_all(self, bank: UUID, shop: UUID, admin_client: Client) -> None:
        """No setting narrows nothing."""
        assert set(column(admin_client.get(BATCHES))) == {str(bank)[:8], str(shop)[:8]}

    @pytest.mark.rule("ADM-2")
    def test_narrows_the_lists_to_its_apps(self, bank: UUID, shop: UUID, admin_client: Client, settings: Any) -> None:
        """The batches of other apps are not there, nor are their rows; upper and lower case make no difference."""
        scope_to(settings, only_bank)
        assert column(admin_client.get(BATCHES)) == [str(bank)[:8]]
        assert column(admin_client.get(rows_of(bank))) == ["1"]
        assert f"There is no batch {shop}." in text(admin_client.get(rows_of(shop)))

    @pytest.mark.rule("ADM-2")
    def test_narrows_the_pages_of_one(self, bank: UUID, shop: UUID, admin_client: Client, settings: Any) -> None:
        """A batch of another app is as one that never was, and so are its rows, and what was logged of it."""
        scope_to(settings, only_bank)
        for batch_id, status, status_of_line in ((bank, 200, 200), (shop, 302, 404)):
            for page in (f"{BATCHES}{batch_id}/change/", f"{BATCHES}{batch_id}/history/"):
                assert admin_client.get(page).status_code == status
            assert admin_client.get(f"{BATCHES}{batch_id}/line/1/").status_code == status_of_line
        row = BatchRow.objects.get(batch=shop)
        assert str(shop) not in admin_client.get(f"{ROWS}{row.pk}/change/").url

    @pytest.mark.rule("ADM-2")
    def test_none_is_all_and_no_app_is_nothing(
        self, bank: UUID, shop: UUID, admin_client: Client, settings: Any
    ) -> None:
        """The function may say None for a person who sees everything."""
        scope_to(settings, everything)
        assert len(column(admin_client.get(BATCHES))) == 2
        scope_to(settings, nothing)
        assert column(admin_client.get(BATCHES)) == []

    @pytest.mark.rule("ADM-2")
    def test_a_batch_out_of_scope_can_have_nothing_done_to_it(self, bank: UUID, shop: UUID, settings: Any) -> None:
        """A permission is worth nothing there, whoever has it."""
        scope_to(settings, only_bank)
        request = request_of(is_superuser=True)
        may = {batch.app: permissions.may(request, "abort_batch", batch) for batch in Batch.objects.all()}
        assert may == {"bank": True, "shop": False}

    def test_is_asked_once_a_request(self, bank: UUID, admin_client: Client, settings: Any) -> None:
        """However often a page needs to know."""
        scope_to(settings, only_bank)
        asked.clear()
        admin_client.get(rows_of(bank))
        assert len(asked) == 1

    def test_a_text_is_no_list_of_apps(self, bank: UUID, admin_client: Client, settings: Any) -> None:
        """A function that forgot the brackets is told, instead of hiding everything."""
        scope_to(settings, a_text)
        with pytest.raises(ImproperlyConfigured) as raised:
            admin_client.get(BATCHES)
        assert str(raised.value) == (
            "tests.admin.test_permissions.a_text returned the text 'bank': it must return names of apps, or None."
        )


class OwnPagesTests:
    @pytest.mark.rule("ADM-16")
    def test_without_a_page_of_batches_the_scope_decides(self, bank: UUID, shop: UUID, settings: Any) -> None:
        """A site may have been left the other pages alone."""
        scope_to(settings, only_bank)
        site, request = AdminSite(), request_of("view_batchrow")
        assert [batch.pk for batch in permissions.seen(site, request, [bank, shop])] == [bank]
        assert permissions.find(site, request, shop) is None

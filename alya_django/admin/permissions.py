"""Who may do what on the pages, and whose batches they are shown: every page, act and download asks here."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

from django.contrib.admin import AdminSite, ModelAdmin
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.module_loading import import_string

from alya_django.conf import settings
from alya_django.models import Batch
from alya_django.validation import OWN_APP

if TYPE_CHECKING:
    from alya_django.querysets import BatchQuerySet

AnyModel = TypeVar("AnyModel", bound=Model)

VIEW = "view_batch"
SUBMIT = "submit_batch"
RELEASE = "release_batch"
ABORT = "abort_batch"
RETRY = "retry_batch"
DOWNLOAD = "download_output"
INPUT = "view_input"

_SCOPE = "_alya_scope"


def may(request: HttpRequest, permission: str, batch: Batch | None = None) -> bool:
    """Tell whether a person has one of Alya's permissions and, where a batch is given, may see its app."""
    if batch is not None and not _sees(request, batch):
        return False
    user: Any = request.user
    return bool(user.is_active and user.has_perm(f"alya_django.{permission}"))


def demand(request: HttpRequest, permission: str, batch: Batch | None = None) -> None:
    """Raise PermissionDenied, which answers 403, unless the person may."""
    if not may(request, permission, batch):
        raise PermissionDenied


def scope(request: HttpRequest) -> frozenset[str] | None:
    """Return the apps whose batches a person may see, as ``ADMIN_SCOPE`` says, asked once a request; None for all."""
    if not hasattr(request, _SCOPE):
        setattr(request, _SCOPE, _ask_scope(request))
    apps: frozenset[str] | None = getattr(request, _SCOPE)
    return apps


def sees_app(request: HttpRequest, app: str) -> bool:
    """Tell whether a person may see the batches of an app."""
    apps = scope(request)
    return apps is None or app in apps


def narrow(queryset: QuerySet[AnyModel], request: HttpRequest, field: str) -> QuerySet[AnyModel]:
    """Return what a person may see of a queryset, ``field`` being where the app's name is found."""
    apps = scope(request)
    if apps is None:
        return queryset
    # What Alya itself does to a batch is seen by those who see the batch.
    own, about = Q(**{field: OWN_APP}), f"{field.removesuffix('app')}parent__app"
    seen = Q(**{f"{field}__in": sorted(apps)}) | own & Q(**{f"{about}__in": sorted(apps)})
    return queryset.filter(Q(**{f"{field}__in": sorted({*apps, OWN_APP})}), seen)


def listed(site: AdminSite, request: HttpRequest) -> BatchQuerySet:
    """Return the batches that a site's page of batches lists for a person; a page of the project's narrows them."""
    if not site.is_registered(Batch):
        return cast("BatchQuerySet", narrow(Batch.objects.present(), request, "app"))
    return cast("BatchQuerySet", site.get_model_admin(Batch).get_queryset(request).order_by())


def shows(site: AdminSite, request: HttpRequest, batch: Batch) -> bool:
    """
    Tell whether a person may see what belongs to a batch that is listed for the person.

    That takes the permission of the page which shows it. Where the project's page of batches decides who looks at
    which, it must allow that too.
    """
    pages = site.get_model_admin(Batch) if site.is_registered(Batch) else None
    if pages is None or type(pages).has_view_permission is ModelAdmin.has_view_permission:
        return True
    return pages.has_view_permission(request, batch)


def find(site: AdminSite, request: HttpRequest, batch_id: UUID) -> Batch | None:
    """Return a batch of which a person may see what belongs to it; None where it is as if it were not there."""
    batch = listed(site, request).filter(pk=batch_id).first()
    return batch if batch is not None and shows(site, request, batch) else None


def seen(site: AdminSite, request: HttpRequest, ids: Collection[UUID]) -> list[Batch]:
    """Return those of some batches that a person may see, without their contexts, which may be large."""
    found = listed(site, request).filter(pk__in=ids).defer("context") if ids else ()
    return [batch for batch in found if shows(site, request, batch)]


def _sees(request: HttpRequest, batch: Batch) -> bool:
    if sees_app(request, batch.app) or batch.app != OWN_APP or batch.parent_id is None:
        return sees_app(request, batch.app)
    about = Batch.objects.filter(pk=batch.parent_id)
    return any(sees_app(request, app) for app in about.values_list("app", flat=True))


def _ask_scope(request: HttpRequest) -> frozenset[str] | None:
    path = settings.ADMIN_SCOPE
    if path is None:
        return None
    apps: Iterable[str] | None = import_string(path)(request)
    if apps is None:
        return None
    # The letters of a name would be taken for names, and hide everything without a word.
    if isinstance(apps, str):
        raise ImproperlyConfigured(f"{path} returned the text {apps!r}: it must return names of apps, or None.")
    return frozenset(app.lower() for app in apps)

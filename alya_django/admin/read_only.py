"""What the pages have in common: they show, by keyset, and change nothing."""

from __future__ import annotations

from collections.abc import Iterable
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import SimpleTemplateResponse
from django.urls import URLPattern
from django.utils.text import capfirst

from alya_django.admin import methods, permissions
from alya_django.admin.paging import KeysetMixin
from alya_django.readable import readable

AnyModel = TypeVar("AnyModel", bound=Model)

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin as _ModelAdmin
    from django.utils.functional import _StrPromise as StrPromise
else:

    class _ModelAdmin(admin.ModelAdmin):
        """Django's own takes no type parameter; only its stubs do."""

        def __class_getitem__(cls, model):
            return cls


class ReadOnlyAdmin(_ModelAdmin[AnyModel]):
    """
    A model to look at. Its ``ordering`` is the keyset of its list: one order, which no header changes.

    ``app_field`` is where the name of an app is found, by which ADMIN_SCOPE narrows what is seen; None for a model
    that belongs to no app.
    """

    actions: Any = None
    sortable_by = ()
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_filter: ClassVar[tuple[type[StaticFilter], ...]] = ()
    change_list_mixin: ClassVar[type[KeysetMixin]] = KeysetMixin
    app_field: ClassVar[str | None] = None

    def get_urls(self) -> list[URLPattern]:
        """Return Django's own pages: they are to look at, and the list takes actions where it has some."""
        names_of_list = [f"{self.opts.app_label}_{self.opts.model_name}_changelist"] if self.actions else []
        return [
            methods.only((*methods.LOOK, *(methods.DO if pattern.name in names_of_list else ())), pattern)
            for pattern in super().get_urls()
        ]

    @property
    def urls(self) -> list[URLPattern]:
        """Return the pages, each of which shows all texts, whoever wrote them, in the order of what is stored."""
        return list(map(_readable, self.get_urls()))

    def get_queryset(self, request: HttpRequest) -> QuerySet[AnyModel]:
        queryset = super().get_queryset(request)
        return queryset if self.app_field is None else permissions.narrow(queryset, request, self.app_field)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        bases = (self.change_list_mixin, super().get_changelist(request, **kwargs))
        return cast("type[ChangeList]", type("KeysetChangeList", bases, {}))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        title = capfirst(self.opts.verbose_name_plural)
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow the filters' own parameters; Django allows any lookup in any column, without an index too."""
        return lookup in {static_filter.parameter_name for static_filter in self.list_filter}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: AnyModel | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: AnyModel | None = None) -> bool:
        return False


class StaticFilter(admin.SimpleListFilter):
    """A filter whose choices are written down, not looked for; what is none of them finds nothing."""

    options: ClassVar[Iterable[tuple[str, StrPromise | str]]] = ()

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, str(label)) for value, label in self.options]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value is None:
            return queryset
        if value not in dict(self.lookup_choices):
            return queryset.none()
        return self.choose(queryset, value)

    def choose(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return what one of the choices leaves; it is stored in the field that the parameter names."""
        return queryset.filter(**{str(self.parameter_name): value})


def _readable(pattern: URLPattern) -> URLPattern:
    """Return an address whose page is made readable as a whole: no template has to think of it."""
    view = pattern.callback

    @wraps(view)
    def show(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response: HttpResponse = view(request, *args, **kwargs)
        if isinstance(response, SimpleTemplateResponse):
            response.add_post_render_callback(_make_readable)
        return response

    pattern.callback = show
    return pattern


def _make_readable(response: HttpResponse) -> None:
    response.content = readable(response.content.decode(response.charset))

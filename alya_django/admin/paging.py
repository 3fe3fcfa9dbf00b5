"""Lists by keyset: a page begins after a row, not after a number of rows, and nothing is ever counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings
from django.contrib.admin.views.main import SEARCH_VAR
from django.core.exceptions import ValidationError
from django.db.models import Field, Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.timezone import is_aware
from django.utils.translation import gettext as _

if TYPE_CHECKING:
    from django.contrib.admin.views.main import ChangeList as _ChangeList
else:
    _ChangeList = object

AFTER = "after"
BEFORE = "before"

Place = Sequence[Any]
"""The values that a row has in the fields of a keyset."""


@dataclass(frozen=True)
class Keyset:
    """
    The order of a list: fields that are unique together, "-" before those that descend.

    It is fast where an index holds the fields in this order.
    """

    model: type[Model]
    order: tuple[str, ...]

    @property
    def backwards(self) -> tuple[str, ...]:
        return tuple(name[1:] if name.startswith("-") else f"-{name}" for name in self.order)

    def write(self, row: Model) -> str:
        """Return the place of a row as the text that ``read`` takes."""
        return ",".join(field.value_to_string(row) for field in self._fields())

    def read(self, text: str) -> Place | None:
        """Return the place that a text from a URL means; None if it means none."""
        try:
            return [_read(field, part) for field, part in zip(self._fields(), text.split(","), strict=True)]
        except (ValidationError, ValueError, OverflowError):
            return None

    def after(self, place: Place) -> Q:
        """Return the condition of the rows that follow a place."""
        return _beyond(self.order, place)

    def before(self, place: Place) -> Q:
        """Return the condition of the rows that precede a place."""
        return _beyond(self.backwards, place)

    def _fields(self) -> list[Field[Any, Any]]:
        fields = (self.model._meta.get_field(name.lstrip("-")) for name in self.order)
        return [field for field in fields if isinstance(field, Field)]


@dataclass(frozen=True)
class Page:
    """
    The rows of one page, and whether there are others.

    ``begins`` and ``ends`` are where it does so, if that is not with its first and last row.
    """

    rows: list[Any]
    has_previous: bool
    has_next: bool
    begins: str = ""
    ends: str = ""


@dataclass(frozen=True)
class KeysetPager:
    """The links to other pages, empty where there is none; in the place of a paginator, whose pages have numbers."""

    template_name: ClassVar[str] = "alya_django/pagination_keyset.html"

    first: str = ""
    previous: str = ""
    next: str = ""


class KeysetMixin(_ChangeList):
    """
    A change list whose only order is its ModelAdmin's ``ordering``, and whose pages the URL names by their neighbour.

    To be mixed into the change list that the ModelAdmin has otherwise.
    """

    keyset: Keyset
    places: dict[str, Place | None]

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        order = self.model_admin.get_ordering(request)
        self.keyset = Keyset(self.model, tuple(map(str, order)))
        self.places = {name: self.keyset.read(self._take(name)) for name in (AFTER, BEFORE)}
        return super().get_queryset(request, exclude_parameters)

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        return list(self.keyset.order)

    def get_results(self, request: HttpRequest) -> None:
        page = self._page()
        self.result_list = page.rows
        self.paginator = self._pager(page)
        # Equal, so that no template says "10 results (of 100)"; and one page, so that none numbers pages.
        self.result_count = self.full_result_count = len(page.rows)
        self.show_full_result_count = False
        self.show_admin_actions = bool(page.rows)
        self.can_show_all = True
        self.multi_page = False

    def start(self) -> Place | None:
        """Return the place after which the page begins; None for the first page."""
        return self.places[AFTER]

    def empty_text(self) -> str:
        """Say why the list is empty."""
        return _("No %(name)s to show.") % {"name": self.opts.verbose_name_plural}

    def _take(self, name: str) -> str:
        """Take a parameter out of those that filters, links and the search form repeat."""
        self.filter_params.pop(name, None)
        return str(self.params.pop(name, ""))

    def _page(self) -> Page:
        before = self.places[BEFORE]
        return (before and self._page_before(before)) or self._page_after(None if before else self.start())

    def _page_after(self, place: Place | None) -> Page:
        rows = self.queryset if place is None else self.queryset.filter(self.keyset.after(place))
        found = list(rows[: self.list_per_page + 1])
        return Page(found[: self.list_per_page], place is not None, len(found) > self.list_per_page)

    def _page_before(self, place: Place) -> Page | None:
        """Return the page that ends before a place; None where less than a page is left, which is the first page."""
        rows = self.queryset.filter(self.keyset.before(place)).order_by(*self.keyset.backwards)
        found = list(rows[: self.list_per_page + 1])
        if len(found) <= self.list_per_page:
            return None
        return Page(found[-2::-1], True, True)

    def _pager(self, page: Page) -> KeysetPager:
        write = self.keyset.write
        leads_back = page.has_previous and (page.begins or page.rows)
        return KeysetPager(
            first=self._link({}) if page.has_previous else "",
            previous=self._link({BEFORE: page.begins or write(page.rows[0])}) if leads_back else "",
            next=self._link({AFTER: page.ends or write(page.rows[-1])}) if page.has_next else "",
        )

    def _link(self, place: dict[str, str]) -> str:
        # The search is a place too; two places in one link would contradict each other.
        return self.get_query_string({SEARCH_VAR: None, **place})


def _read(field: Field[Any, Any], text: str) -> Any:
    """Return a field's value as a URL has it; raise ValueError or OverflowError where no database could compare it."""
    value = field.to_python(text)
    if not isinstance(value, datetime):
        return value
    if is_aware(value) is not settings.USE_TZ:
        raise ValueError(text)
    return value.astimezone(UTC) if settings.USE_TZ else value


def _beyond(order: tuple[str, ...], place: Place) -> Q:
    """Return the condition of the rows after a place, beginning with one range that an index can look up."""
    (name, *names), (value, *values) = order, place
    field, lookup = name.lstrip("-"), "lt" if name.startswith("-") else "gt"
    beyond = Q((f"{field}__{lookup}", value))
    if not names:
        return beyond
    return Q((f"{field}__{lookup}e", value)) & (beyond | _beyond(tuple(names), values))

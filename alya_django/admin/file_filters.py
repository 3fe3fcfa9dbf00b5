"""Which received files a list can be narrowed to, and whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from alya_django.admin import permissions
from alya_django.admin.read_only import StaticFilter
from alya_django.admin.words import ICONS
from alya_django.checkers import checkers

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise as StrPromise


class Outcome(NamedTuple):
    """What has become of a file: the word and the sign for it, and how such files are found."""

    label: StrPromise
    look: str
    condition: Q

    @property
    def icon(self) -> str:
        return ICONS[self.look]


# Who is not accepted has no batch: that is what the index of such files is about.
OUTCOMES: dict[bool | None, Outcome] = {
    True: Outcome(_("accepted"), "success", Q(is_accepted=True)),
    False: Outcome(_("rejected"), "failed", Q(is_accepted=False, batch__isnull=True)),
    None: Outcome(_("not decided"), "queued", Q(is_accepted__isnull=True, batch__isnull=True)),
}
CHOICES = {"accepted": True, "rejected": False, "undecided": None}


def types_seen(request: HttpRequest) -> list[str]:
    """Return the registered types of files for which a person may see all apps that these may be for."""
    apps = permissions.scope(request)
    return [checker.file_type for checker in checkers if apps is None or checker.apps <= apps]


def sees_type(request: HttpRequest, file_type: str) -> bool:
    """Tell whether a person may see the files of a type; what no checker reads any more, only who sees all apps."""
    return permissions.scope(request) is None or file_type in types_seen(request)


class OutcomeFilter(StaticFilter):
    title = _("state")
    parameter_name = "outcome"
    options = tuple((name, OUTCOMES[is_accepted].label) for name, is_accepted in CHOICES.items())

    def choose(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(OUTCOMES[CHOICES[value]].condition)


class TypeFilter(StaticFilter):
    title = _("file type")
    parameter_name = "file_type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(file_type, file_type) for file_type in types_seen(request)]


FILTERS = (OutcomeFilter, TypeFilter)

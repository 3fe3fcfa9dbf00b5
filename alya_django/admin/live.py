"""The endpoint that moves the pages without reload: the figures of some batches in the words of who asks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any
from uuid import UUID

from django.http import JsonResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from alya_django.admin import figure_words, figures, words
from alya_django.admin.figures import Figures
from alya_django.exceptions import InvalidInput
from alya_django.models import Batch
from alya_django.validation import check_id

IDS_MAX = 100

TEXTS: dict[str, Callable[[Figures], str]] = {
    "icon": figure_words.icon,
    "state": figure_words.state,
    "share": lambda one: words.share(one.ended, one.nrows),
    "amount": lambda one: words.amount(one.ended, one.nrows),
    "success": lambda one: words.number(one.nsuccess),
    "failed": lambda one: words.number(one.nfailed),
    "aborted": lambda one: words.number(one.naborted),
    "left": lambda one: words.number(one.left),
    "put-off": lambda one: words.number(one.nput_off),
    "rate": figure_words.rate,
    "time-left": figure_words.time_left,
    "stalled": figure_words.stalled,
}
"""What a page shows of a batch and the endpoint renews, each under its name."""


def text(one: Figures, name: str) -> SafeString:
    """Return one text of a batch as an element that is renewed."""
    return format_html('<span data-alya-batch="{}" data-alya-text="{}">{}</span>', one.id, name, TEXTS[name](one))


def badge(one: Figures) -> SafeString:
    """Return a batch's state as an icon and a word; the endpoint is asked as long as it says that there is more."""
    return format_html(
        '<span class="alya-state" data-alya-batch="{id}" data-alya-look="{look}" data-alya-final="{final}">'
        '<span class="alya-icon" aria-hidden="true" data-alya-batch="{id}" data-alya-text="icon">{icon}</span>\xa0'
        "{state}</span>",
        id=one.id,
        look=figure_words.look(one),
        final="yes" if one.is_final else "no",
        icon=figure_words.icon(one),
        state=text(one, "state"),
    )


def bar(one: Figures) -> SafeString:
    """Return how far a batch has come as a bar."""
    return format_html(
        '<progress class="alya-bar" data-alya-batch="{}" value="{}" max="{}" aria-label="{}"></progress>',
        one.id,
        one.ended,
        max(one.nrows, 1),
        _("Progress of batch %(id)s") % {"id": one.id[:8]},
    )


def answer(asked: str, seen: Callable[[Collection[UUID]], list[Batch]]) -> JsonResponse:
    """Answer with the figures of those batches that were asked for, by ids with commas, and that the person sees."""
    found = figures.read(batch.pk for batch in seen(list(_ids(asked))))
    return JsonResponse({"batches": {one.id: _as_json(one) for one in found.values()}})


def _as_json(one: Figures) -> dict[str, Any]:
    return {
        "final": one.is_final,
        "look": figure_words.look(one),
        "value": one.ended,
        "max": max(one.nrows, 1),
        "texts": {name: say(one) for name, say in TEXTS.items()},
    }


def _ids(given: str) -> Iterator[UUID]:
    for text in given.split(",")[:IDS_MAX]:
        try:
            yield check_id(text)
        except InvalidInput:
            continue

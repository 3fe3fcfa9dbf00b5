"""What a batch's figures say: its state, how fast it goes, how long it will take."""

from __future__ import annotations

from math import ceil, floor, inf
from typing import TYPE_CHECKING, NamedTuple

from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from alya_django.admin.figures import Figures
from alya_django.admin.words import DAY, HOUR, ICONS, MINUTE, number, span, unbroken
from alya_django.status import Status

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise as StrPromise

WHOLE_RATE = 10


class Unit(NamedTuple):
    """What the time left is counted in, up to so many seconds, and how that is said."""

    seconds: int
    up_to: float
    one_figure: StrPromise
    range: StrPromise


UNITS = (
    Unit(
        MINUTE,
        90 * MINUTE,
        gettext_lazy("about %(count)s min left"),
        gettext_lazy("about %(least)s to %(most)s min left"),
    ),
    Unit(HOUR, 2 * DAY, gettext_lazy("about %(count)s h left"), gettext_lazy("about %(least)s to %(most)s h left")),
    Unit(DAY, inf, gettext_lazy("about %(count)s d left"), gettext_lazy("about %(least)s to %(most)s d left")),
)


def look(figures: Figures) -> str:
    """Return the word by which icons and style sheets know a batch's state."""
    if figures.held:
        return "held"
    return "stalled" if figures.is_stalled else figures.status


def icon(figures: Figures) -> str:
    """Return a sign for a state, to stand beside its word."""
    return ICONS[look(figures)]


def state(figures: Figures) -> str:
    """Return a batch's state, and what keeps its rows back if something does."""
    label = str(Status(figures.status).label)
    if figures.status == Status.WAIT:
        return _("%(state)s, until it is released") % {"state": label}
    if figures.held:
        return _("%(state)s, held") % {"state": label}
    if figures.is_stalled:
        return _("%(state)s, stalled") % {"state": label}
    return label


def rate(figures: Figures) -> str:
    """Return how fast a batch goes; empty where it does not."""
    if figures.rate is None:
        return ""
    rows = number(round(figures.rate)) if figures.rate >= WHOLE_RATE else number_format(figures.rate, decimal_pos=1)
    return unbroken(_("%(count)s rows/s") % {"count": rows})


def time_left(figures: Figures) -> str:
    """Return how long a batch will take at the pace of the last minute; empty where nobody can tell."""
    if figures.seconds_left is None:
        return ""
    least, most = figures.seconds_left
    if most < MINUTE:
        return _("less than a minute left")
    unit = next(unit for unit in UNITS if most < unit.up_to or unit is UNITS[-1])
    low, high = max(1, floor(least / unit.seconds)), ceil(most / unit.seconds)
    if low == high:
        return str(unit.one_figure) % {"count": number(high)}
    return str(unit.range) % {"least": number(low), "most": number(high)}


def stalled(figures: Figures) -> str:
    """Say for how long no row has ended; empty where that is as it should be."""
    if not figures.is_stalled:
        return ""
    return _("No row has ended for %(span)s.") % {"span": span(figures.idle_seconds)}

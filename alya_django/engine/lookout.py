"""Ask, in one statement, whether there is anything to do: what an idle worker costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from operator import or_
from typing import Any

from django.db.models import BooleanField, Exists, ExpressionWrapper, Q, QuerySet

from alya_django.models import Batch, BatchRow, Worker
from alya_django.registry import Registration
from alya_django.status import Kind


class Lookout:
    """
    Look out for work of one worker, of the ops it serves and that are usable just now.

    What it sees, somebody else may have taken a moment later. It sees all that a claim and ``Sweeper.look`` see to.
    """

    def __init__(self, *, number: int, registrations: list[Registration], is_usable: Callable[[str], bool]) -> None:
        self._number = number
        self._registrations = registrations
        self._is_usable = is_usable

    def sees_work(self) -> bool:
        """Return whether there is anything to claim, to wake, to finish or to tell of."""
        conditions: list[Any] = [Exists(found) for found in self._work()]
        anything = ExpressionWrapper(reduce(or_, conditions, Q(pk__in=[])), output_field=BooleanField())
        seen = Worker.objects.primary().filter(pk=self._number).values_list(anything).first()
        # A worker without a record was declared dead: that is for the next round to find out.
        return seen is None or bool(seen[0])

    def _work(self) -> Iterator[QuerySet[Any]]:
        served = [entry.key for entry in self._registrations]
        usable = [entry.key for entry in self._registrations if self._is_usable(entry.app)]
        batches, rows = Batch.objects.primary(), BatchRow.objects.primary()
        slow_queries = rows.filter(line=0).of(key for key in usable if key[0] == Kind.SLOW_QUERY)
        yield batches.runnable().of(usable)
        yield slow_queries.queued()
        yield slow_queries.due()
        yield batches.asleep(rows.due())
        yield batches.of(served).complete().unattended()
        yield batches.of(usable).not_marked_done().unattended()

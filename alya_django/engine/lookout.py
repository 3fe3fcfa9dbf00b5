"""Ask, in one statement, whether there is anything to do: what an idle worker costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.db.models import QuerySet

from alya_django.db import Database
from alya_django.models import Batch, BatchRow, Worker
from alya_django.registry import Key, Registration
from alya_django.status import Kind


class Lookout:
    """
    Look out for work of one worker, of the ops it serves and that are usable just now.

    What it sees, somebody else may have taken a moment later. It sees all that a claim and ``Sweeper.look`` see to.
    """

    def __init__(
        self,
        store: Database,
        *,
        number: int,
        registrations: list[Registration],
        is_usable: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._number = number
        self._registrations = registrations
        self._is_usable = is_usable
        # What is usable changes seldom, and the SQL costs more to write than to run.
        self._questions: dict[tuple[Key, ...], Callable[[], list[bool]]] = {}

    def sees_work(self) -> bool:
        """Return whether there is anything to claim, to wake, to finish or to tell of."""
        usable = tuple(entry.key for entry in self._registrations if self._is_usable(entry.app))
        if usable not in self._questions:
            self._questions[usable] = self._store.prepared_exists([self._record(), *self._work(usable)])
        is_registered, *found = self._questions[usable]()
        # A worker without a record was declared dead: that is for the next round to find out.
        return not is_registered or any(found)

    def _record(self) -> QuerySet[Any]:
        return Worker.objects.primary().filter(pk=self._number)

    def _work(self, usable: Sequence[Key]) -> Iterator[QuerySet[Any]]:
        served = [entry.key for entry in self._registrations]
        batches, rows = Batch.objects.primary(), BatchRow.objects.primary()
        slow_queries = rows.filter(line=0).of(key for key in usable if key[0] == Kind.SLOW_QUERY)
        yield batches.runnable().of(usable)
        yield slow_queries.queued()
        yield slow_queries.due()
        yield batches.asleep(rows.due())
        yield batches.of(served).complete().unattended()
        yield batches.of(usable).not_marked_done().unattended()

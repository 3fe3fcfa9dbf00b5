"""The batch that a returned file corrects, and which of its lines may be repeated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from alya_django.checkers import FaultyLine, FileChecker, Route
from alya_django.exceptions import InvalidInput, InvalidState
from alya_django.intake.business_keys import Keyed, blocks
from alya_django.models import Batch, BatchRow
from alya_django.processors import BatchInput
from alya_django.status import Kind, Status
from alya_django.validation import check_id, check_line


@dataclass(frozen=True, slots=True)
class Parent:
    """A finished batch, and the child that a returned file becomes."""

    batch: Batch
    child_id: UUID | None = None

    @classmethod
    def find(cls, batch_id: UUID | str, checker: FileChecker) -> Parent:
        """Return the parent of what a checker makes of a file; raise InvalidInput or InvalidState if it cannot be."""
        batch = Batch.objects.primary().find(check_id(batch_id), Kind.BATCH)
        parent = cls(batch)
        if parent.route not in checker.routes:
            raise InvalidInput(
                f"is a batch of {parent.route}; files of the type {checker.file_type!r} are for "
                f"{', '.join(map(str, checker.routes))}.",
                field="parent",
            )
        if not Status(batch.status).is_final:
            state = Status(batch.status)
            raise InvalidState(f"The batch {batch.id} has not ended: its status is {state.label}.", status=state)
        return parent

    @property
    def route(self) -> Route:
        """Where the rows of the parent have gone, and so those of the child go."""
        return Route(self.batch.app, self.batch.op)

    def lock(self) -> dict[str, Any]:
        """Lock the parent until the transaction ends, and return what its child gets from it."""
        parent = Batch.objects.primary().lock_parent(self.batch)
        return {"parent": parent, "root_id": parent.root_batch_id, "weight": parent.weight}

    def of_child(self, child_id: UUID) -> Parent:
        """Return the parent of this child."""
        return replace(self, child_id=child_id)

    def only_repeatable(self, lines: Iterable[Keyed]) -> Iterator[Keyed]:
        """Yield lines; a row that the parent has not to be repeated becomes a faulty line."""
        for block in blocks(lines):
            named = [check_line(line.line) for line, _, _ in block if isinstance(line, BatchInput)]
            rows = BatchRow.objects.primary().to_retry(self.batch, besides=self.child_id).filter(line__in=named)
            repeatable = set(rows.values_list("line", flat=True))
            for line, digest, amounts in block:
                if isinstance(line, BatchInput) and line.line not in repeatable:
                    yield FaultyLine(line.line, f"has not failed in batch {self.batch.pk}, or was repeated"), None, ()
                else:
                    yield line, digest, amounts

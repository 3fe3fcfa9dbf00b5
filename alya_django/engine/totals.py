"""Compare, when a batch ends, what its file declared with the rows that have succeeded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alya_django.control_totals import Sums, differences
from alya_django.exceptions import InvalidInput
from alya_django.models import Batch, BatchRow
from alya_django.status import Status

BLOCK_ROWS = 2_000


def succeeded(batch: Batch, after_block: Callable[[], object]) -> dict[str, Any]:
    """Return the fields of a batch that say whether its declared sums are those of the rows that have succeeded."""
    totals = batch.control_totals
    if not totals or not totals["declared"]["sums"]:
        return {}
    sums = Sums(list(totals["declared"]["sums"]))
    rows = BatchRow.objects.primary().filter(batch=batch.pk, status=Status.SUCCESS).order_by("line")
    last_line = 0
    while block := list(rows.filter(line__gt=last_line).values_list("line", "input")[:BLOCK_ROWS]):
        for _, input in block:
            _add(sums, input)
        last_line = block[-1][0]
        after_block()
    found = {"sums": sums.as_json()}
    return {
        "control_totals": {**totals, "succeeded": found},
        "totals_mismatch": "; ".join(differences(totals["declared"], found, "succeeded")),
    }


def _add(sums: Sums, input: Any) -> None:
    try:
        sums.add(sums.amounts(input))
    except InvalidInput:
        # Appended by hand, past the file's checker: it adds nothing to what the file declared.
        return

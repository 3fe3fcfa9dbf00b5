"""How late the flights from New York were; a row is a flight, as strings by the file's column names."""

import json
from collections import Counter
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from alya_django import (
    BatchDetails,
    BatchProcessor,
    ErrorMessage,
    Row,
    RowFailed,
    RowResult,
    register_batch_processor,
)

CANCELLED = ErrorMessage("cancelled", field="dep_time", msgid=1)
DIVERTED = ErrorMessage("diverted", field="arr_delay", msgid=2)
MISSING = "NA"
LATE_MINUTES = 15


@register_batch_processor("flights", "punctuality")
class Punctuality(BatchProcessor):
    """Tell each flight's delay at arrival; gather the flights by carrier, and the late ones."""

    def do_batch_job(self, row: Row) -> RowResult:
        flight = row.input
        if flight["dep_time"] == MISSING:
            raise RowFailed(CANCELLED)
        if flight["arr_delay"] == MISSING:
            raise RowFailed(DIVERTED)
        delay = int(flight["arr_delay"])
        is_late = delay > LATE_MINUTES
        text = f"{flight['flight']},{flight['origin']},{flight['dest']},{delay}"
        output_lines = {f"{flight['carrier']}.csv": text}
        if is_late:
            output_lines["late.csv"] = text
        return RowResult.success({"delay": delay, "late": is_late}, output_lines=output_lines)

    def mark_done(self, details: BatchDetails) -> None:
        """Write how many flights each carrier flew to ``summary.json`` in the storage; again is the same."""
        name = f"summaries/{details.id}/summary.json"
        default_storage.delete(name)
        default_storage.save(name, ContentFile(json.dumps(self._summary(details), indent=2)))

    def _summary(self, details: BatchDetails) -> dict[str, Any]:
        carriers: Counter[str] = Counter()
        for logical_name, object_name in details.output_files.items():
            if logical_name != "late.csv":
                with default_storage.open(object_name) as file:
                    carriers[logical_name.removesuffix(".csv")] = sum(1 for _ in file)
        return {
            "success": details.nsuccess,
            "failed": details.nfailed,
            "aborted": details.naborted,
            "carriers": dict(sorted(carriers.items())),
        }

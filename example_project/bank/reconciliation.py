"""Whether a file of payments, the batches that came of it, and the ledger tell the same."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from uuid import UUID

from django.db.models import Q, Sum

from alya_django import RowOutcome, Status, batches
from example_project.bank import ledger
from example_project.bank.models import Account, Entry
from example_project.bank.money import to_text


class Fate(StrEnum):
    """What became of a line of a file, in the end."""

    SUCCESS = "success"
    STILL_FAILED = "still failed"
    FAULTY = "faulty"


def fates(batch_id: UUID, faulty: Collection[int]) -> dict[int, Fate]:
    """Return what became of each line, by the batch of the file, by all that came of it, and by its faulty lines."""
    found = {row.line: _fate(batches.line(batch_id, row.line)) for row in batches.iter_rows(batch_id)}
    return found | dict.fromkeys(faulty, Fate.FAULTY)


def total_cents() -> int:
    """Return what all accounts together have."""
    return Account.objects.aggregate(cents=Sum("cents", default=0))["cents"]


def discrepancies(
    batch_id: UUID, fate_of: Mapping[int, Fate], *, lines: Collection[int], total_before: int
) -> list[str]:
    """
    Return what does not agree, one sentence each; nothing if all does.

    Args:
        lines: Those that the file has.
        total_before: What all accounts had together before the file came.
    """
    return [
        *_money(total_before),
        *ledger.discrepancies(),
        *_unaccounted(fate_of, lines),
        *_payments(batch_id, fate_of),
    ]


def _fate(outcome: RowOutcome) -> Fate:
    tried = [outcome, *outcome.sequels.values()]
    return Fate.SUCCESS if any(row.status is Status.SUCCESS for row in tried) else Fate.STILL_FAILED


def _money(total_before: int) -> Iterator[str]:
    total = total_cents()
    if total != total_before:
        yield f"All accounts together had {to_text(total_before)} and have {to_text(total)}."


def _unaccounted(fate_of: Mapping[int, Fate], lines: Collection[int]) -> Iterator[str]:
    yield from (f"Nobody knows what became of line {line}." for line in lines if line not in fate_of)
    yield from (f"The file has no line {line}." for line in fate_of if line not in lines)


def _payments(batch_id: UUID, fate_of: Mapping[int, Fate]) -> Iterator[str]:
    """Each line that succeeded has moved money once, and nothing else has."""
    family = [batch_id, *batches.children(batch_id)]
    posted = Entry.objects.filter(Q(batch_id__in=family) | Q(reference__startswith=f"{batch_id}:"), cents__gt=0)
    paid = Counter(posted.values_list("reference", flat=True))
    due = Counter(f"{batch_id}:{line}" for line, fate in fate_of.items() if fate is Fate.SUCCESS)
    for reference in sorted(paid | due):
        if paid[reference] != due[reference]:
            yield f"{reference} was paid {paid[reference]} times, not {due[reference]}."

"""Files that the bank receives. Payments: a CSV with the columns of a transfer."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from alya_django import BatchInput, FaultyLine, register_file_checker
from alya_django.intake import read_csv
from example_project.bank.money import to_cents

COLUMNS = ("debtor", "creditor", "amount", "text")


@register_file_checker(
    "payments",
    app="bank",
    op="transfer",
    upload=True,
    label="Payments",
    help_text="A CSV file with the columns debtor, creditor, amount and text; amounts such as 12.34.",
)
def check_payments(file: BinaryIO, file_name: str, context: dict[str, Any]) -> Iterator[BatchInput | FaultyLine]:
    """Yield the transfers; a line whose amount is none, or that lacks an account, is for the sender to correct."""
    for row in read_csv(file, columns=COLUMNS):
        yield _checked(row) if isinstance(row, BatchInput) else row


def _checked(row: BatchInput) -> BatchInput | FaultyLine:
    order = row.input
    for side in ("debtor", "creditor"):
        if not order[side]:
            return FaultyLine(row.line, f"{side} is missing")
    if to_cents(order["amount"]) is None:
        return FaultyLine(row.line, f"{order['amount']!r} is no amount such as 12.34")
    return row

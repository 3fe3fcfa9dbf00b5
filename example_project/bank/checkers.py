"""Files that the bank receives: payments, a CSV with the columns of a transfer, and partners' files, of both kinds."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from alya_django import BatchInput, FaultyLine, Route, register_file_checker
from alya_django.intake import read_csv
from example_project.bank.money import to_cents

COLUMNS = ("debtor", "creditor", "amount", "text")
TRANSFERS, SCREENING = Route("bank", "transfer"), Route("bank", "screening")


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


@register_file_checker(
    "partner",
    routes=[TRANSFERS, SCREENING],
    upload=True,
    label="Partner's file",
    help_text="A CSV file of payments, or one with a column name: the names to be looked for in the lists.",
)
def check_partner(
    file: BinaryIO, file_name: str, context: dict[str, Any]
) -> Iterator[Route | BatchInput | FaultyLine]:
    """Yield transfers, or names to be screened: partners send both, and the header tells which it is."""
    route = None
    for row in read_csv(file):
        if isinstance(row, FaultyLine):
            yield row
            continue
        if route is None:
            route = SCREENING if "name" in row.input else TRANSFERS
            yield route
        yield _named(row) if route is SCREENING else _checked(row)


def _checked(row: BatchInput) -> BatchInput | FaultyLine:
    order = row.input
    for side in ("debtor", "creditor"):
        if not order.get(side):
            return FaultyLine(row.line, f"{side} is missing")
    if to_cents(order.get("amount")) is None:
        return FaultyLine(row.line, f"{order.get('amount')!r} is no amount such as 12.34")
    return row


def _named(row: BatchInput) -> BatchInput | FaultyLine:
    return row if row.input["name"] else FaultyLine(row.line, "name is missing")

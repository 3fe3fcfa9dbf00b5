"""What the demo of files tells of: a few accounts, a file of payments among them, and what its sender corrects."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from django.db import transaction

from example_project.bank import ledger, samples
from example_project.bank.models import Account

COLUMNS = ("order", "debtor", "creditor", "amount", "text")
OPENINGS = {
    "3001": ("Ann", 100_00),
    "3002": ("Bob", 60_00),
    "3003": ("Cid", 80_00),
    "3004": ("Dan", 10_00),
    "3005": ("Eve", 0),
}
# Which of them can be paid does not depend on which are paid first.
ORDERS = (
    ("3001", "3002", "25.00", "Rent"),
    ("3002", "3003", "10.00", "Tickets"),
    ("3001", "3003", "12,50", "A comma where a point should be"),
    ("3003", "3001", "500.00", "A nought too many"),
    ("", "3002", "5.00", "From nobody"),
    ("3001", "3005", "8.00", "Thank you"),
    ("3004", "3001", "300.00", "More than there is"),
    ("3002", "9999", "15.00", "To an account that is closed"),
    ("3003", "3005", "7.50", "Lunch"),
)
FIRST_LINE = 2
LINES = range(FIRST_LINE, FIRST_LINE + len(ORDERS))
CORRECTIONS: Mapping[int, Mapping[str, str]] = {5: {"amount": "50.00"}, 9: {"creditor": "3003"}}


@transaction.atomic
def open_accounts(run: str) -> None:
    """Give the accounts what they have at the beginning of every run, out of the bank's vault or back into it."""
    samples.open_accounts()
    for number, (holder, cents) in OPENINGS.items():
        account, _ = Account.objects.get_or_create(number=number, defaults={"holder": holder})
        lacking = cents - account.cents
        if lacking:
            ledger.post(
                ledger.Transfer(
                    debtor=samples.VAULT if lacking > 0 else number,
                    creditor=number if lacking > 0 else samples.VAULT,
                    cents=abs(lacking),
                    reference=f"opening:{run}:{number}",
                    text="Opening",
                )
            )


def payments(run: str) -> str:
    """Return the file; in a column of its own the sender numbers its orders, and no two runs have the same."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((f"{run}-{number}", *order) for number, order in enumerate(ORDERS, 1))
    return text.getvalue()


def correct(returned: Path, corrected: Path) -> dict[int, dict[str, tuple[str, str]]]:
    """Write a return file anew with the corrections, and return what was changed in which line."""
    changed: dict[int, dict[str, tuple[str, str]]] = {}
    with returned.open(newline="") as source, corrected.open("w", newline="") as target:
        reader = csv.DictReader(source)
        writer = csv.DictWriter(target, reader.fieldnames or ())
        writer.writeheader()
        for record in reader:
            line = int(record["alya_line"])
            values = CORRECTIONS.get(line, {})
            changed[line] = {column: (record[column], value) for column, value in values.items()}
            writer.writerow({**record, **values})
    return changed

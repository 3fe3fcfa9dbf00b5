"""What the tests of received files share: a checker, and the call that receives."""

from __future__ import annotations

from typing import Any

from django.core.files.storage import storages

from alya_django import BatchInput, FaultyLine, Receipt, register_file_checker
from alya_django.intake import process, read_csv

CONTENT = b"debtor,amount\nann,1.00\nbob,x\ncid,3.00\n"


def check_amounts(file, file_name, context):
    """Yield the lines whose amount is a number."""
    for row in read_csv(file):
        if isinstance(row, BatchInput) and not row.input["amount"].replace(".", "").isdigit():
            row = FaultyLine(row.line, f"{row.input['amount']!r} is no amount")
        yield row


def register(check: Any = check_amounts, **options: Any) -> None:
    register_file_checker("txn", check, **{"app": "bank", "op": "transfer", **options})


def receive(file: Any = CONTENT, **options: Any) -> Receipt:
    return process(**{"file": file, "file_name": "TXN 1.csv", "file_type": "txn", **options})


def read(object_id: str) -> bytes:
    with storages["default"].open(object_id) as file:
        return file.read()


def faulty_lines(receipt: Receipt) -> list[str]:
    """Return the lines of the error file, without its header."""
    return read(receipt.error_object_id).decode().splitlines()[1:]

"""What the tests of received files share: a checker, and the call that receives."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.files.storage import storages

from alya_django import (
    BatchInput,
    FaultyLine,
    Receipt,
    Row,
    RowFailed,
    register_batch_processor,
    register_file_checker,
)
from alya_django.intake import process, read_csv
from alya_django.testing import drain

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


def a_batch_that_failed(file_name: str = "TXN 1.csv") -> UUID:
    """Return a batch of a file, with the rows of ann, in line 2, and of bob, in line 4, whose row has failed."""

    def pay(row: Row) -> None:
        if row.input["debtor"] == "bob":
            raise RowFailed("account_closed", field="debtor")

    register_batch_processor("bank", "transfer", pay)
    batch_id = receive(b"debtor,amount\nann,1.00\nann,x\nbob,2.00\n", file_name=file_name).batch_id
    drain()
    assert batch_id is not None
    return batch_id


def read(object_id: str) -> bytes:
    with storages["default"].open(object_id) as file:
        return file.read()


def faulty_lines(receipt: Receipt) -> list[str]:
    """Return the lines of the error file, without its header."""
    return read(receipt.error_object_id).decode().splitlines()[1:]

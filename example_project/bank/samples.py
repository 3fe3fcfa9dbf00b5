"""A bank to look at: accounts, transfers, a batch or slow query in every state, and files. Always the same."""

import csv
import io
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from alya_django import AlreadyDone, Status, batches, intake, slow_queries
from alya_django.status import Kind
from example_project.bank import ledger
from example_project.bank.models import Account, Limit
from example_project.bank.money import to_text

VAULT = "1000"
HOLDERS = (
    *("Adams", "Baker", "Clark", "Davis", "Evans", "Foster", "Green", "Hughes"),
    *("Iron & Sons", "Jones Ltd", "King Bakery", "Lake Hotel"),
)
NPRIVATE = 8
OPENING_CENTS = 5_000_00
AMOUNT_CENTS_MAX = 20_00
LIMITS = {Account.Kind.PRIVATE: 1_000_00, Account.Kind.BUSINESS: 10_000_00}
TEXTS = ("Rent", "Invoice 4711", "Lunch", "Thank you", 'Deposit "red bike"')
BAD_TRANSFERS = (
    {"debtor": "1001", "creditor": "1002", "amount": "1,50", "text": "A comma"},
    {"debtor": "1001", "creditor": "1002", "amount": "1000.01", "text": "Above the limit"},
    {"debtor": "1001", "creditor": "9999", "amount": "1.50", "text": "To nobody"},
    {"debtor": "1001", "creditor": "1001", "amount": "1.50", "text": "To oneself"},
    {"debtor": "1009", "creditor": "1002", "amount": "9999.99", "text": "More than there is"},
)
FAULTY_PAYMENTS = (
    {"debtor": "1001", "creditor": "1002", "amount": "1,50", "text": "A comma"},
    {"debtor": "", "creditor": "1002", "amount": "1.50", "text": "From nobody"},
)
NO_PAYMENTS = "day,name\n2026-12-25,Christmas\n"
SCREENED_NAMES = 10_000
REPORT_SECONDS = 3_600
DAYS = 3_650


@transaction.atomic
def open_accounts() -> None:
    """Make the accounts, each with the same money out of the bank's vault, and the limits; again is the same."""
    for kind, cents in LIMITS.items():
        Limit.objects.get_or_create(kind=kind, defaults={"cents": cents})
    Account.objects.get_or_create(number=VAULT, defaults={"holder": "Vault", "kind": Account.Kind.BANK})
    for index, holder in enumerate(HOLDERS):
        kind = Account.Kind.PRIVATE if index < NPRIVATE else Account.Kind.BUSINESS
        number = str(int(VAULT) + 1 + index)
        Account.objects.get_or_create(number=number, defaults={"holder": holder, "kind": kind})
        opening = ledger.Transfer(
            debtor=VAULT, creditor=number, cents=OPENING_CENTS, reference=f"opening:{number}", text="Opening"
        )
        ledger.post(opening)


def transfers(nrows: int, *, seed: int = 1) -> Iterator[dict[str, str]]:
    """Yield small transfers between the holders' accounts; the same for the same seed."""
    chance = random.Random(seed)
    numbers = [str(int(VAULT) + 1 + index) for index in range(len(HOLDERS))]
    for _ in range(nrows):
        debtor, creditor = chance.sample(numbers, 2)
        amount = to_text(chance.randint(1, AMOUNT_CENTS_MAX))
        yield {"debtor": debtor, "creditor": creditor, "amount": amount, "text": chance.choice(TEXTS)}


@dataclass(frozen=True, slots=True)
class Sample:
    """A batch or slow query, and the state to see it in; ``submit`` takes its unique key."""

    kind: Kind
    status: Status
    submit: Callable[[str], UUID]

    def ensure(self) -> UUID:
        """Submit it, unless there is one that is in its state or on the way there, and return the id."""
        ids = (self._submit(f"sample {self.status} {generation}") for generation in count(1))
        return next(batch_id for batch_id in ids if self._is_to_be_seen(batch_id))

    def _submit(self, unique_key: str) -> UUID:
        batch_id = self.submit(unique_key)
        if self.status is Status.ABORTED:
            with suppress(AlreadyDone):
                batches.abort(batch_id) if self.kind is Kind.BATCH else slow_queries.abort(batch_id)
        return batch_id

    def _is_to_be_seen(self, batch_id: UUID) -> bool:
        answer = batches.status(batch_id) if self.kind is Kind.BATCH else slow_queries.result(batch_id)
        order = list(Status)
        is_before = answer.try_later and order.index(answer.status) < order.index(self.status)
        return answer.status is self.status or is_before


@transaction.atomic
def ensure_samples() -> dict[UUID, Sample]:
    """
    Have a batch and a slow query in every state that they can have, or on the way there, and return them by id.

    In one transaction: workers see all of them at once, and none that is only about to be aborted. A file is among
    what was received that could not be accepted.
    """
    open_accounts()
    intake.process(file=NO_PAYMENTS, file_name="holidays.csv", file_type="payments", unique_key="sample rejected")
    return {sample.ensure(): sample for sample in SAMPLES}


def abort_reports() -> None:
    """Abort the reports in progress, which would keep their worker for an hour."""
    for query in slow_queries.recent("night", "report", days=DAYS):
        if query.status is Status.IN_PROGRESS:
            with suppress(AlreadyDone):
                slow_queries.abort(query.id)


def _transfer(nrows: int, *, seed: int, bad: bool = False) -> Callable[[str], UUID]:
    def submit(unique_key: str) -> UUID:
        rows = [*transfers(nrows, seed=seed), *(BAD_TRANSFERS if bad else ())]
        return batches.submit(
            "bank", "transfer", rows, requested_by="sample", input_file="sample.csv", unique_key=unique_key
        )

    return submit


def _payments(nrows: int, *, seed: int) -> Callable[[str], UUID]:
    """Receive a file whose last lines are faulty."""

    def submit(unique_key: str) -> UUID:
        file = io.StringIO()
        writer = csv.DictWriter(file, ["debtor", "creditor", "amount", "text"])
        writer.writeheader()
        writer.writerows([*transfers(nrows, seed=seed), *FAULTY_PAYMENTS])
        receipt = intake.process(
            file=file.getvalue(),
            file_name="payments.csv",
            file_type="payments",
            wait=True,
            requested_by="sample",
            unique_key=unique_key,
            allow_duplicate=True,
        )
        assert receipt.batch_id is not None
        return receipt.batch_id

    return submit


def _screening(app: str, nrows: int) -> Callable[[str], UUID]:
    def submit(unique_key: str) -> UUID:
        names = ({"name": HOLDERS[index % len(HOLDERS)]} for index in range(nrows))
        return batches.submit(app, "screening", names, requested_by="sample", unique_key=unique_key)

    return submit


def _statement(number: str) -> Callable[[str], UUID]:
    def submit(unique_key: str) -> UUID:
        day = timezone.localdate().isoformat()
        asked = {"account": number, "from": day, "to": day}
        return slow_queries.submit("bank", "statement", asked, requested_by="sample", unique_key=unique_key)

    return submit


def _report(unique_key: str) -> UUID:
    asked = {"seconds": REPORT_SECONDS}
    return slow_queries.submit("night", "report", asked, requested_by="sample", unique_key=unique_key)


# The report in progress is submitted first: it is the one that a worker takes first.
SAMPLES = (
    Sample(Kind.SLOW_QUERY, Status.IN_PROGRESS, _report),
    Sample(Kind.SLOW_QUERY, Status.QUEUED, _report),
    Sample(Kind.SLOW_QUERY, Status.SUCCESS, _statement("1001")),
    Sample(Kind.SLOW_QUERY, Status.FAILED, _statement("9999")),
    Sample(Kind.SLOW_QUERY, Status.ABORTED, _report),
    Sample(Kind.BATCH, Status.WAIT, _payments(50, seed=1)),
    Sample(Kind.BATCH, Status.QUEUED, _screening("night", 1_000)),
    Sample(Kind.BATCH, Status.IN_PROGRESS, _screening("bank", SCREENED_NAMES)),
    Sample(Kind.BATCH, Status.SUCCESS, _transfer(200, seed=2)),
    Sample(Kind.BATCH, Status.FAILED, _transfer(40, seed=3, bad=True)),
    Sample(Kind.BATCH, Status.ABORTED, _screening("night", 100)),
)

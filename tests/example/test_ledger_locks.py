"""Two transfers at once: on PostgreSQL alone, where rows can be locked."""

from __future__ import annotations

import pytest
from django.db import transaction

from example_project.bank import ledger, samples
from example_project.bank.models import Account
from tests.concurrency.connections import (
    DEADLINE_SECONDS,
    elsewhere,
    open_transaction,
    somebody_waits_for_a_lock,
    wait_until,
)

pytestmark = pytest.mark.django_db(transaction=True)

BACK = ledger.Transfer(debtor="1002", creditor="1001", cents=5, reference="back")


@pytest.fixture(autouse=True)
def _bank() -> None:
    samples.open_accounts()


def lock(number: str, **how: bool) -> Account:
    return Account.objects.select_for_update(no_key=True, **how).get(number=number)


class LockTests:
    def test_are_taken_in_the_order_of_accounts(self) -> None:
        """Whatever its direction, a transfer that waits for the first account does not hold the second."""
        with open_transaction(lambda: lock("1001")):
            posted = elsewhere(lambda: ledger.post(BACK))
            wait_until(somebody_waits_for_a_lock, "the transfer waits")
            with transaction.atomic():
                assert lock("1002", nowait=True)
        posted.result(DEADLINE_SECONDS)
        assert ledger.discrepancies() == []

    def test_let_a_reference_move_money_once(self) -> None:
        """The same transfer at the same time waits for the first, and then sees that it was made."""
        with open_transaction(lambda: ledger.post(BACK)):
            posted = elsewhere(lambda: ledger.post(BACK))
            wait_until(somebody_waits_for_a_lock, "the second waits")
        posted.result(DEADLINE_SECONDS)
        assert Account.objects.get(number="1002").cents == samples.OPENING_CENTS - 5
        assert ledger.discrepancies() == []

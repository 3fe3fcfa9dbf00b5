"""Money moved by workers that deadlock and are killed: to the cent, and once."""

from __future__ import annotations

import os
import random
import signal

import pytest

from alya_django import Status, batches
from alya_django.models import Worker
from example_project.bank import ledger
from example_project.bank.models import Account, Entry
from tests.concurrency.connections import wait_until
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

ACCOUNTS = 20
TRANSFERS = 2_000


class LedgerTests:
    @pytest.mark.rule("ATM-2", "ATM-5")
    def test_reconciles_whatever_dies(self, manage) -> None:
        """Two workers, killed again and again, post each transfer once, and none fails for a deadlock."""
        dice = random.Random(1)
        Account.objects.bulk_create(Account(number=str(n), holder="", kind="bank") for n in range(ACCOUNTS))
        orders = []
        for _ in range(TRANSFERS):
            debtor, creditor = dice.sample(range(ACCOUNTS), 2)
            orders.append({"debtor": str(debtor), "creditor": str(creditor), "amount": f"{dice.randint(1, 999)}.00"})
        batch_id = batches.submit("bank", "transfer", orders)
        supervisor = manage("alya_worker", "--processes", "2")
        for kills in range(1, 6):
            wait_until(lambda kills=kills: batches.status(batch_id).nsuccess > 250 * kills, "some rows have ended")
            wait_until(Worker.objects.exists, "there is a worker")
            os.kill(dice.choice(Worker.objects.values_list("pid", flat=True)), signal.SIGKILL)
        wait_until(lambda: not batches.status(batch_id).try_later, "the batch has ended")
        supervisor.terminate()
        assert supervisor.wait(60) == 0
        assert batches.status(batch_id).status is Status.SUCCESS
        assert ledger.discrepancies() == []
        assert Entry.objects.values("reference").distinct().count() == TRANSFERS
        check_invariants()

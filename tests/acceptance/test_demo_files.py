"""``manage.py demo_files``, the story that ``make demo-files`` tells."""

from __future__ import annotations

import pytest

from alya_django import Status, batches
from alya_django.models import Batch, BatchFile
from example_project.bank import ledger
from example_project.bank.models import Account, Entry
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.sqlite]

STORY = [
    "batch ",
    ", 7 rows, 2 faulty lines",
    "line 4: '12,50' is no amount such as 12.34",
    "line 6: debtor is missing",
    "The batch has ended as failed: 4 success, 3 failed.",
    "line 5: insufficient_funds (amount)",
    "line 8: insufficient_funds (amount)",
    "line 9: no_such_account (creditor)",
    "order,debtor,creditor,amount,text,alya_line,alya_reason",
    "line 5: amount 500.00 becomes 50.00",
    "line 8: left as it is",
    "line 9: creditor 9999 becomes 3003",
    ": 3 rows",
    "The batch has ended as failed: 2 success, 1 failed.",
    "line 5: insufficient_funds (amount); then success",
    "line 8: insufficient_funds (amount); then insufficient_funds (amount)",
    "line 9: no_such_account (creditor); then success",
    "3001     Ann         100.00    117.00",
    "3002     Bob          60.00     60.00",
    "3003     Cid          80.00     47.50",
    "3004     Dan          10.00     10.00",
    "3005     Eve           0.00     15.50",
    "6 success: lines 2, 3, 5, 7, 9, 10",
    "1 still failed: line 8",
    "2 faulty: lines 4, 6",
    "Reconciled: all 9 lines are accounted for",
]


class DemoFilesTests:
    def test_tells_the_story_and_reconciles_and_can_be_told_again(self, manage, tmp_path) -> None:
        """The same figures in the same order, twice on one database; what it tells is what the tables have."""
        for times in (1, 2):
            demo = manage("demo_files")
            output, _ = demo.communicate(timeout=180)
            assert demo.returncode == 0, output
            told = output
            for part in STORY:
                assert part in told, f"{part!r} does not come after what came before in\n{output}"
                told = told[told.index(part) :]
            parents = Batch.objects.filter(app="bank", parent=None).order_by("requested_at")
            children = Batch.objects.filter(parent=parents[times - 1])
            assert [(batch.nsuccess, batch.nfailed) for batch in (parents[times - 1], *children)] == [(4, 3), (2, 1)]
            assert {batch.status for batch in (*parents, *children)} == {Status.FAILED}
            assert (parents.count(), BatchFile.objects.count()) == (times, 2 * times)
            assert Entry.objects.filter(batch_id__isnull=False, cents__gt=0).count() == 6 * times
            assert dict(Account.objects.filter(number__startswith="30").values_list("number", "cents")) == {
                "3001": 117_00,
                "3002": 60_00,
                "3003": 47_50,
                "3004": 10_00,
                "3005": 15_50,
            }
        assert ledger.discrepancies() == []
        assert list((tmp_path / "demo-files" / "incoming").glob("*.csv")) == []
        assert batches.children(parents[0].pk)
        check_invariants()

    def test_ends_with_an_error_where_the_ledger_does_not_reconcile(self, manage) -> None:
        """A cent that came from nowhere is found, and the exit code says so."""
        Account.objects.create(number="4711", holder="Nobody", kind=Account.Kind.BANK, cents=1)
        demo = manage("demo_files")
        output, _ = demo.communicate(timeout=180)
        assert demo.returncode == 1, output
        assert output.splitlines()[-1] == (
            "CommandError: It does not reconcile. All accounts together have 0.01, not 0.00. "
            "4711 has 0.01, its entries add up to 0.00."
        )

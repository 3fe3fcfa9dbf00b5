"""Control totals from the file to the end of its batch."""

from __future__ import annotations

from functools import partial

import pytest

from alya_django import (
    BatchInput,
    ControlTotals,
    InvalidInput,
    RowFailed,
    Status,
    batches,
    register_batch_processor,
)
from alya_django.engine import totals as engine_totals
from alya_django.intake import read_csv
from alya_django.models import Batch
from alya_django.testing import drain
from tests.intake.files import faulty_lines, receive
from tests.intake.files import register as register_checker
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry", "storage")]


def check(file, file_name, context):
    """Yield the lines, but a last one of ``total,COUNT,SUM`` as what the file declares."""
    for row in read_csv(file, columns=["debtor", "amount", "sum"], has_header=False):
        if isinstance(row, BatchInput) and row.input["debtor"] == "total":
            yield ControlTotals(int(row.input["amount"]), {"amount": row.input["sum"]})
        else:
            yield row


register = partial(register_checker, check, totals="amount")


def fail_bob(row):
    if row.input["debtor"] == "bob":
        raise RowFailed("unknown")


class ReceivedTests:
    @pytest.mark.rule("FXR-19")
    def test_lets_a_batch_go_whose_totals_are_true(self):
        """What the file declares is kept beside what came."""
        register()
        receipt = receive("ann,0.10,\nbob,0.20,\ntotal,2,0.3\n")
        batch = Batch.objects.get()
        assert (receipt.accepted, receipt.nrows, receipt.totals_mismatch) == (True, 2, "")
        assert batch.status == Status.QUEUED
        assert batch.control_totals == {
            "declared": {"count": 2, "sums": {"amount": "0.3"}},
            "received": {"count": 2, "sums": {"amount": "0.30"}},
        }

    @pytest.mark.rule("FXR-19")
    def test_keeps_a_batch_back_whose_totals_are_not(self):
        """It waits, says why, and a person may release it all the same."""
        register()
        receipt = receive("ann,1.00,\nbob,2.00,\ntotal,3,3.50\n")
        reason = "3 rows declared, 2 received; amount: 3.50 declared, 3.00 received"
        summary = batches.status(receipt.batch_id)
        assert (receipt.accepted, receipt.totals_mismatch) == (True, reason)
        assert (summary.status, summary.totals_mismatch) == (Status.WAIT, reason)
        assert batches.recent("bank", days=1)[0].totals_mismatch == reason
        assert batches.release(receipt.batch_id) == 2

    @pytest.mark.rule("FXR-19")
    def test_faulty_lines_are_missing(self):
        """A file of which something is faulty is not what it declares, and the reason says how many lines are."""
        register()
        receipt = receive("ann,1.00,\nbob,x,\ntotal,2,3.00\n")
        assert faulty_lines(receipt) == ["2,amount: 'x' is no amount."]
        assert receipt.totals_mismatch == (
            "2 rows declared, 1 received; amount: 3.00 declared, 1.00 received; faulty lines: 1"
        )

    @pytest.mark.rule("FXR-19")
    def test_duplicates_are_not_added_up(self):
        """A line that is no row adds nothing."""
        register(unique_by="debtor")
        assert receive("ann,1.00,\nann,1.00,\nbob,1.00,\ntotal,2,2.00\n").totals_mismatch == ""

    def test_a_file_may_declare_nothing(self):
        """Then there is nothing to compare."""
        register()
        receive("ann,1.00,\n")
        assert Batch.objects.get().control_totals is None

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            ([ControlTotals(1), ControlTotals(1)], "The file declares its control totals twice."),
            (
                [ControlTotals(sums={"fee": "1"})],
                "The file declares the sum of 'fee', which its checker has not in totals.",
            ),
            ([ControlTotals(1)], "The file has no usable line."),
        ],
    )
    def test_refuses_what_cannot_be_compared(self, answer, reason):
        """Which totals there are is the checker's to know."""
        register_checker(lambda file, *others: answer, totals=["amount"])
        assert receive().reason == reason

    def test_a_declaration_is_no_line(self, settings):
        """A file of as many lines as there may be can declare how many."""
        settings.ALYA = {"BATCH_ROWS_MAX": 2}
        register()
        assert receive("ann,1.00,\nbob,1.00,\ntotal,2,2.00\n").accepted
        assert not receive("total,3,3.00\nann,1.00,\nbob,1.00,\ncid,1.00,\n").accepted

    @pytest.mark.parametrize("totals", [7, [], [""]], ids=repr)
    def test_refuses_what_names_no_field(self, totals):
        """As for unique_by."""
        with pytest.raises(InvalidInput, match=r"^totals: must name fields of the input, not "):
            register(totals=totals)


class SucceededTests:
    @pytest.mark.rule("FXR-20")
    def test_says_at_the_end_what_has_not_succeeded(self, monkeypatch):
        """The sums of the rows that succeeded are compared with what the file declared, block by block."""
        monkeypatch.setattr(engine_totals, "BLOCK_ROWS", 2)
        register()
        register_batch_processor("bank", "transfer", fail_bob)
        receipt = receive("ann,1.00,\nbob,2.00,\ncid,3.00,\ndan,4.00,\ntotal,4,10.00\n")
        drain()
        summary = batches.status(receipt.batch_id)
        assert (summary.status, summary.nsuccess) == (Status.FAILED, 3)
        assert summary.totals_mismatch == "amount: 10.00 declared, 8.00 succeeded"
        assert Batch.objects.get().control_totals["succeeded"] == {"sums": {"amount": "8.00"}}
        check_invariants()

    @pytest.mark.rule("FXR-20")
    def test_says_nothing_if_all_has(self):
        """A mismatch of what was received is no more one if the rows that were missing have been appended."""
        register()
        register_batch_processor("bank", "transfer", fail_bob)
        receipt = receive("ann,1.00,\ntotal,2,3.00\n")
        assert receipt.totals_mismatch
        batches.append(receipt.batch_id, [{"debtor": "cid", "amount": "2.00"}, {"debtor": "dan"}], wait=False)
        drain()
        assert batches.status(receipt.batch_id).totals_mismatch == ""

    def test_a_count_alone_is_not_compared_again(self):
        """How many rows have failed the batch says anyway."""
        register_checker(lambda file, *others: [ControlTotals(2), BatchInput(1, {"debtor": "ann"})])
        register_batch_processor("bank", "transfer", fail_bob)
        receipt = receive()
        batches.release(receipt.batch_id)
        drain()
        assert batches.status(receipt.batch_id).totals_mismatch == "2 rows declared, 1 received"

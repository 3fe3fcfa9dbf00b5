from __future__ import annotations

from uuid import UUID

import pytest

from alya_django import batches, intake
from alya_django.models import Batch
from alya_django.testing import drain
from example_project.bank import ledger, reconciliation, story
from example_project.bank.models import Account, Entry
from example_project.bank.reconciliation import Fate

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

FAULTY = {4, 6}


@pytest.fixture
def batch_id() -> UUID:
    """The batch of a file, and a child in which line 5 failed again and line 9 was paid."""
    story.open_accounts("test")
    receipt = intake.process(file=story.payments("test"), file_name="TXN1.csv", file_type="payments")
    drain(app="bank")
    batch_id = receipt.batch_id
    with intake.return_file(batch_id) as file:
        corrected = file.read().replace(b"9999", b"3003")
    intake.process(file=corrected, file_name="TXN1.csv", file_type="payments", parent=batch_id)
    drain(app="bank")
    return batch_id


def discrepancies(batch_id: UUID, lines: range = story.LINES) -> list[str]:
    fates = reconciliation.fates(batch_id, FAULTY)
    return reconciliation.discrepancies(batch_id, fates, lines=lines, total_before=0)


class FatesTests:
    def test_says_what_became_of_each_line_in_the_end(self, batch_id: UUID) -> None:
        """Whichever batch it succeeded in."""
        assert reconciliation.fates(batch_id, FAULTY) == {
            2: Fate.SUCCESS,
            3: Fate.SUCCESS,
            4: Fate.FAULTY,
            5: Fate.STILL_FAILED,
            6: Fate.FAULTY,
            7: Fate.SUCCESS,
            8: Fate.STILL_FAILED,
            9: Fate.SUCCESS,
            10: Fate.SUCCESS,
        }


class DiscrepanciesTests:
    def test_finds_none_where_all_agrees(self, batch_id: UUID) -> None:
        """The file, the batches and the ledger."""
        assert discrepancies(batch_id) == []

    def test_finds_a_line_that_nobody_knows_of(self, batch_id: UUID) -> None:
        """And one that the file does not have."""
        assert discrepancies(batch_id, range(2, 12)) == ["Nobody knows what became of line 11."]
        assert discrepancies(batch_id, range(2, 10)) == ["The file has no line 10."]

    def test_finds_a_transfer_that_was_made_twice(self, batch_id: UUID) -> None:
        """The second has another reference, or the ledger would have refused it."""
        again = ledger.Transfer(debtor="3001", creditor="3002", cents=25_00, reference="again", batch_id=batch_id)
        ledger.post(again)
        assert discrepancies(batch_id) == ["again was paid 1 times, not 0."]

    def test_finds_a_success_that_was_never_paid(self, batch_id: UUID) -> None:
        """A row says so, and no entry does; the accounts are where they were."""
        Entry.objects.filter(reference=f"{batch_id}:2").update(reference="other", batch_id=None)
        assert discrepancies(batch_id) == [f"{batch_id}:2 was paid 0 times, not 1."]

    def test_finds_a_payment_of_a_line_that_failed(self, batch_id: UUID) -> None:
        """Whoever has been told that it failed pays once more."""
        paid = ledger.Transfer(debtor="3001", creditor="3002", cents=1, reference=f"{batch_id}:8")
        ledger.post(paid)
        assert discrepancies(batch_id) == [f"{batch_id}:8 was paid 1 times, not 0."]

    def test_finds_money_that_came_from_nowhere(self, batch_id: UUID) -> None:
        """To the cent, and in which account it is."""
        Account.objects.filter(number="3004").update(cents=10_01)
        assert discrepancies(batch_id) == [
            "All accounts together had 0.00 and have 0.01.",
            "All accounts together have 0.01, not 0.00.",
            "3004 has 10.01, its entries add up to 10.00.",
        ]


class StoryTests:
    def test_begins_with_the_same_money_every_time(self, batch_id: UUID) -> None:
        """What the run before has moved goes back through the ledger, which goes on to balance."""
        story.open_accounts("again")
        money = dict(Account.objects.filter(number__in=story.OPENINGS).values_list("number", "cents"))
        assert money == {number: cents for number, (_, cents) in story.OPENINGS.items()}
        assert ledger.discrepancies() == []

    def test_changes_what_can_be_corrected_and_tells(self, batch_id: UUID, tmp_path) -> None:
        """The other lines come back as they are, each with its number."""
        child = batches.children(batch_id)[0]
        assert Batch.objects.get(pk=child).parent_id == batch_id
        returned, corrected = tmp_path / "returned.csv", tmp_path / "corrected.csv"
        with intake.return_file(child) as file:
            returned.write_bytes(file.read())
        assert story.correct(returned, corrected) == {5: {"amount": ("500.00", "50.00")}, 8: {}}
        assert [line.split(",")[3:6:2] for line in corrected.read_text().splitlines()[1:]] == [
            ["50.00", "5"],
            ["300.00", "8"],
        ]

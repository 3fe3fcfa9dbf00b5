from __future__ import annotations

import csv
import datetime
import io
import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.utils import timezone

from alya_django import ErrorMessage, Row, RowFailed, Status, batches, slow_queries
from alya_django.models import BatchFile
from alya_django.status import Kind
from alya_django.testing import drain
from example_project.bank import ledger, processors, samples
from example_project.bank.models import Account, Entry, Limit
from example_project.bank.money import to_cents, to_text
from example_project.bank.night import report, screen
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

GOOD = {"debtor": "1001", "creditor": "1002", "amount": "12.34", "text": "Rent"}


@pytest.fixture
def bank(db: None) -> None:
    """The sample accounts, each with 5000.00."""
    samples.open_accounts()


def balances() -> dict[str, int]:
    return dict(Account.objects.values_list("number", "cents"))


def transfer(*orders: dict[str, Any]) -> UUID:
    """Submit transfers and have them processed."""
    batch_id = batches.submit("bank", "transfer", orders)
    assert drain(app="bank") == len(orders)
    check_invariants()
    return batch_id


def reasons(order: dict[str, Any]) -> tuple[ErrorMessage, ...]:
    """Return why a transfer is refused, and see that it moves nothing."""
    before = balances()
    outcome = batches.line(transfer(order), 1)
    assert outcome.status is Status.FAILED
    assert balances() == before
    return outcome.messages


def output(batch_id: UUID, name: str) -> list[list[str]]:
    with batches.open_output(batch_id, name) as file:
        return list(csv.reader(io.StringIO(file.read().decode())))


def a_row(order: dict[str, Any], **fields: Any) -> Row:
    """Return a row as a worker hands it to the processor."""
    batch_id = uuid4()
    given = {"line": 1, "context": {}, "init_block": processors.Limits(), "attempt": 1, "key": f"{batch_id}:1"}
    return Row(batch_id=batch_id, app="bank", op="transfer", input=order, **{**given, **fields})


@pytest.mark.usefixtures("bank")
class TransferTests:
    def test_moves_the_money(self) -> None:
        """What the debtor loses the creditor gains, to the cent."""
        before = balances()
        batch_id = transfer(GOOD)
        assert batches.line(batch_id, 1).result == {"reference": f"{batch_id}:1", "amount": "12.34"}
        assert balances() == {**before, "1001": before["1001"] - 1234, "1002": before["1002"] + 1234}

    def test_writes_both_entries(self) -> None:
        """Each account has its side of the transfer, with the row it comes from."""
        batch_id = transfer(GOOD)
        entries = Entry.objects.filter(reference=f"{batch_id}:1").order_by("cents")
        assert list(entries.values_list("account__number", "counterpart__number", "cents", "text", "line")) == [
            ("1001", "1002", -1234, "Rent", 1),
            ("1002", "1001", 1234, "Rent", 1),
        ]
        assert {entry.batch_id for entry in entries} == {batch_id}

    @pytest.mark.parametrize("amount", ["1,50", "0", "0.00", "-1.00", "1.5", "1e3", "", "٣", None, 5, 1.5, ["1.00"]])
    def test_refuses_what_is_no_amount(self, amount: Any) -> None:
        """An amount is text with two decimals or none, above zero; never a number of JSON."""
        assert reasons({**GOOD, "amount": amount}) == (ErrorMessage("bad_amount", field="amount", msgid=101),)

    def test_refuses_an_amount_above_the_limit(self) -> None:
        """The message says how much the account's kind may transfer at once."""
        expected = ErrorMessage("bad_amount", field="amount", vals=("1000.00",), msgid=101)
        assert reasons({**GOOD, "amount": "1000.01"}) == (expected,)

    def test_refuses_more_than_there_is(self) -> None:
        """An account cannot fall below zero."""
        message = ErrorMessage("insufficient_funds", field="amount", msgid=102)
        assert reasons({**GOOD, "debtor": "1009", "amount": "5000.01"}) == (message,)

    def test_takes_the_last_cent(self) -> None:
        """An account can be emptied."""
        transfer({**GOOD, "debtor": "1009", "amount": "5000.00"})
        assert balances()["1009"] == 0

    @pytest.mark.parametrize("number", ["9999", "", None, 1001, ["1001"]])
    @pytest.mark.parametrize("field", ["debtor", "creditor"])
    def test_refuses_an_unknown_account(self, field: str, number: Any) -> None:
        """The message names the side on which there is no such account."""
        assert reasons({**GOOD, field: number}) == (ErrorMessage("no_such_account", field=field, msgid=103),)

    def test_names_both_unknown_accounts(self) -> None:
        """Nobody has to repair an order twice."""
        messages = reasons({**GOOD, "debtor": "8888", "creditor": "9999"})
        assert [message.field for message in messages] == ["debtor", "creditor"]

    def test_refuses_a_transfer_to_oneself(self) -> None:
        """Debtor and creditor are two accounts."""
        message = ErrorMessage("same_account", field="creditor", msgid=104)
        assert reasons({**GOOD, "creditor": "1001"}) == (message,)

    def test_a_refusal_keeps_the_other_rows(self) -> None:
        """A batch with a bad row is failed, and its good rows have moved their money."""
        before = balances()["1002"]
        batch_id = transfer(GOOD, {**GOOD, "amount": "x"}, GOOD)
        summary = batches.status(batch_id)
        assert (summary.status, summary.nsuccess, summary.nfailed) == (Status.FAILED, 2, 1)
        assert balances()["1002"] == before + 2 * 1234

    def test_gathers_what_was_posted_and_what_was_rejected(self) -> None:
        """Every row is a line of one of two files, in CSV whatever its cells hold."""
        batch_id = transfer(GOOD, {**GOOD, "amount": "1,50"}, {**GOOD, "creditor": "no\none"})
        assert output(batch_id, "posted.csv") == [["1", "1001", "1002", "12.34", f"{batch_id}:1"]]
        assert output(batch_id, "rejected.csv") == [
            ["2", "1001", "1002", "1,50", "bad_amount:amount"],
            ["3", "1001", "no\none", "12.34", "no_such_account:creditor"],
        ]

    def test_writes_totals_when_it_is_done(self) -> None:
        """mark_done leaves an object in the storage; called again, the same one."""
        batch_id = transfer(GOOD, GOOD, {**GOOD, "amount": "x"})
        details = next(details for details in batches.recent("bank", days=1) if details.id == batch_id)
        processors.TransferProcessor().mark_done(details)
        with default_storage.open(processors.totals_name(batch_id)) as file:
            totals = json.load(file)
        assert totals == {"status": "failed", "posted": 2, "rejected": 1, "aborted": 0, "amount": "24.68"}


@pytest.mark.usefixtures("bank")
class OnceTests:
    def test_a_row_processed_twice_moves_money_once(self) -> None:
        """The second time it answers as the first time, and changes nothing."""
        row, processor = a_row(GOOD), processors.TransferProcessor()
        first = processor.do_batch_job(row)
        before = balances()
        assert processor.do_batch_job(row) == first
        assert balances() == before
        assert Entry.objects.filter(reference=row.key).count() == 2

    def test_a_row_processed_twice_succeeds_without_funds(self) -> None:
        """What was moved needs no cover any more."""
        row, processor = a_row({**GOOD, "debtor": "1009", "amount": "5000.00"}), processors.TransferProcessor()
        assert processor.do_batch_job(row) == processor.do_batch_job(row)

    def test_the_database_refuses_a_second_entry(self) -> None:
        """The guard holds for who does not ask: an account has a reference once."""
        row = a_row(GOOD)
        processors.TransferProcessor().do_batch_job(row)
        entry = Entry.objects.filter(reference=row.key).first()
        entry.pk = None
        with pytest.raises(IntegrityError), transaction.atomic():
            entry.save(force_insert=True)

    def test_a_retry_moves_what_could_not_be_moved(self) -> None:
        """Once there are funds, the failed row goes through, and the others are left alone."""
        drained = {**GOOD, "debtor": "1009", "amount": "5000.00"}
        batch_id = transfer(drained, {**drained, "amount": "1.00"})
        transfer({**GOOD, "creditor": "1009", "amount": "2.00"})
        child = batches.retry(batch_id)
        assert drain(app="bank") == 1
        assert batches.line(child, 2).result == {"reference": f"{batch_id}:2", "amount": "1.00"}
        assert balances()["1009"] == 1_00


@pytest.mark.django_db(transaction=True)
class LostOutcomeTests:
    def test_a_row_that_fails_after_it_has_moved_money_has_moved_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Retried it succeeds; the money has moved once."""
        samples.open_accounts()
        before = balances()["1002"]
        post = ledger.post

        def post_and_fail(*args: Any, **kwargs: Any) -> None:
            post(*args, **kwargs)
            raise ConnectionError("the answer was lost")

        with monkeypatch.context() as patch:
            patch.setattr(ledger, "post", post_and_fail)
            batch_id = batches.submit("bank", "transfer", [GOOD])
            drain(app="bank", raise_errors=False)
        assert batches.line(batch_id, 1).status is Status.FAILED
        assert balances()["1002"] == before
        child = batches.retry(batch_id)
        drain(app="bank")
        assert batches.status(child).status is Status.SUCCESS
        assert balances()["1002"] == before + 1234
        assert ledger.discrepancies() == []


@pytest.mark.usefixtures("bank")
class LedgerTests:
    def test_balances_after_many_transfers(self) -> None:
        """Good rows and bad ones leave the books balanced, and the bank with the same money as before."""
        transfer(*samples.transfers(100), *samples.BAD_TRANSFERS)
        assert sum(balances().values()) == 0
        assert ledger.discrepancies() == []

    def test_finds_money_from_nowhere(self) -> None:
        """A balance that no entry explains is told, to the cent."""
        Account.objects.filter(number="1001").update(cents=5_000_01)
        assert ledger.discrepancies() == [
            "All accounts together have 0.01, not 0.00.",
            "1001 has 5000.01, its entries add up to 5000.00.",
        ]

    def test_finds_half_a_transfer(self) -> None:
        """A transfer has two sides."""
        Entry.objects.filter(reference="opening:1001", cents__gt=0).delete()
        assert "opening:1001 has 1 entries, which add up to -5000.00." in ledger.discrepancies()

    def test_no_account_but_the_banks_falls_below_zero(self) -> None:
        """The database holds it too."""
        with pytest.raises(IntegrityError), transaction.atomic():
            Account.objects.filter(number="1001").update(cents=-1)
        assert balances()[samples.VAULT] < 0

    @pytest.mark.parametrize("cents", [0, -1])
    def test_moves_only_amounts_above_zero(self, cents: int) -> None:
        """Money does not move backwards."""
        backwards = ledger.Transfer(debtor="1001", creditor="1002", cents=cents, reference="test")
        with pytest.raises(RowFailed, match="bad_amount"):
            ledger.post(backwards)


class MoneyTests:
    @pytest.mark.parametrize(
        ("text", "cents"), [("1", 100), ("0.01", 1), ("12.34", 1234), ("999999999999.99", 10**14 - 1)]
    )
    def test_reads_an_amount(self, text: str, cents: int) -> None:
        """Text becomes a whole number of cents, without a detour over fractions."""
        assert to_cents(text) == cents

    @pytest.mark.parametrize(("cents", "text"), [(0, "0.00"), (5, "0.05"), (-5, "-0.05"), (-12345, "-123.45")])
    def test_writes_an_amount(self, cents: int, text: str) -> None:
        """The sign stands before the whole."""
        assert to_text(cents) == text


@pytest.mark.usefixtures("bank")
class LimitsTests:
    def test_reads_the_table_once_for_many_rows(self, django_assert_num_queries) -> None:
        """One block serves a worker's rows; it asks the database when it is made."""
        block = processors.LimitsInitializer().init("bank")
        with django_assert_num_queries(0):
            assert block.cents == {"private": 1_000_00, "business": 10_000_00}
            assert block.is_alive()

    def test_is_made_anew_after_a_minute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A new limit reaches a worker that runs on."""
        block = processors.Limits()
        monkeypatch.setattr(processors, "LIMITS_SECONDS", 0)
        assert not block.is_alive()

    def test_a_kind_without_limit_transfers_any_amount(self) -> None:
        """No line in the table, no limit."""
        Limit.objects.all().delete()
        transfer({**GOOD, "amount": "4000.00"})
        assert balances()["1001"] == 1_000_00


@pytest.mark.usefixtures("bank")
class StatementTests:
    def ask(self, **asked: Any) -> Any:
        """Return the answer to a statement of today, for account 1001 unless asked otherwise."""
        today = timezone.localdate().isoformat()
        self.query_id = slow_queries.submit(
            "bank", "statement", {"account": "1001", "from": today, "to": today, **asked}
        )
        assert drain(app="bank") == 1
        check_invariants()
        return slow_queries.result(self.query_id)

    def content(self) -> list[list[str]]:
        with slow_queries.open_output(self.query_id, "statement.csv") as file:
            return list(csv.reader(io.StringIO(file.read().decode())))

    def test_lists_every_entry_with_its_balance(self) -> None:
        """The file has a line for each entry, in the order of booking."""
        batch_id = transfer(GOOD, {**GOOD, "debtor": "1002", "creditor": "1001", "amount": "0.04", "text": 'A "b", c'})
        answer = self.ask()
        today = timezone.localdate().isoformat()
        assert answer.result == {"account": "1001", "entries": 3, "opening": "0.00", "closing": "4987.70"}
        assert self.content() == [
            ["date", "counterpart", "text", "amount", "balance", "reference"],
            [today, "1000", "Opening", "5000.00", "5000.00", "opening:1001"],
            [today, "1002", "Rent", "-12.34", "4987.66", f"{batch_id}:1"],
            [today, "1002", 'A "b", c', "0.04", "4987.70", f"{batch_id}:2"],
        ]

    def test_begins_with_the_balance_of_the_days_before(self) -> None:
        """Earlier entries are in the opening balance, later ones are not there at all."""
        now = timezone.now()
        Entry.objects.filter(reference="opening:1001").update(created_at=now - datetime.timedelta(days=40))
        for days, reference in ((10, "old"), (-10, "new")):
            order = ledger.Transfer(debtor="1001", creditor="1002", cents=5, reference=reference)
            ledger.post(order)
            Entry.objects.filter(reference=reference).update(created_at=now - datetime.timedelta(days=days))
        first_day = timezone.localdate() - datetime.timedelta(days=20)
        answer = self.ask(**{"from": first_day.isoformat()})
        assert answer.result == {"account": "1001", "entries": 1, "opening": "5000.00", "closing": "4999.95"}

    def test_an_empty_period_has_a_file_too(self) -> None:
        """Nothing happened: the head of the table alone, and the balance stays."""
        answer = self.ask(**{"from": "2001-01-01", "to": "2001-01-31"})
        assert answer.result == {"account": "1001", "entries": 0, "opening": "0.00", "closing": "0.00"}
        assert len(self.content()) == 1

    def test_refuses_an_unknown_account(self) -> None:
        """There is no statement of no account."""
        answer = self.ask(account="9999")
        assert answer.messages == (ErrorMessage("no_such_account", field="account", msgid=103),)
        assert answer.output_files == {}

    @pytest.mark.parametrize("day", ["yesterday", "2026-02-30", "", None, 20261101, "9999-12-31", "0001-01-01"])
    @pytest.mark.parametrize("field", ["from", "to"])
    def test_refuses_what_is_no_day(self, field: str, day: Any) -> None:
        """The message names the day that is wrong."""
        assert self.ask(**{field: day}).messages == (ErrorMessage("bad_date", field=field, msgid=105),)

    def test_refuses_a_period_that_ends_before_it_begins(self) -> None:
        """The last day is at fault."""
        answer = self.ask(**{"from": "2026-11-02", "to": "2026-11-01"})
        assert answer.messages == (ErrorMessage("bad_date", field="to", msgid=105),)


class SamplesTests:
    def test_are_the_same_every_time(self) -> None:
        """The same seed makes the same transfers, another one others."""
        assert list(samples.transfers(20)) == list(samples.transfers(20))
        assert list(samples.transfers(20)) != list(samples.transfers(20, seed=2))

    def test_opening_accounts_twice_opens_them_once(self) -> None:
        """Nobody gets the opening money a second time."""
        samples.open_accounts()
        before = balances()
        samples.open_accounts()
        assert balances() == before
        assert len(before) == 13

    def test_every_state_of_both_kinds_is_there(self) -> None:
        """Drained, the samples show every final state; what waits and what takes long is left."""
        ids = samples.ensure_samples()
        states = {(sample.kind, sample.status) for sample in ids.values()}
        assert states == {(kind, status) for kind in Kind for status in Status} - {(Kind.SLOW_QUERY, Status.WAIT)}
        drain(app="bank", op="transfer")
        drain(app="bank", op="statement")
        for batch_id, sample in ids.items():
            verb = batches.status if sample.kind is Kind.BATCH else slow_queries.result
            expected = Status.QUEUED if sample.status is Status.IN_PROGRESS else sample.status
            assert verb(batch_id).status is expected
        assert ledger.discrepancies() == []
        check_invariants()

    def test_making_them_again_makes_none(self) -> None:
        """What is in its state, or on the way there, is left as it is."""
        assert samples.ensure_samples().keys() == samples.ensure_samples().keys()

    def test_one_that_has_left_its_state_is_made_anew(self) -> None:
        """A batch that was aborted can no more be seen waiting."""
        waiting = next(key for key, sample in samples.ensure_samples().items() if sample.status is Status.WAIT)
        batches.abort(waiting)
        made = samples.ensure_samples()
        assert waiting not in made
        assert Status.WAIT in {sample.status for sample in made.values()}

    def test_files_were_received(self) -> None:
        """One is a batch, but for its faulty lines, and one was rejected; again, they are the same."""
        for _ in range(2):
            samples.ensure_samples()
            rejected, accepted = BatchFile.objects.order_by("file_name")
            assert (rejected.is_accepted, accepted.is_accepted) == (False, True)
            assert accepted.nfaulty == 2

    def test_the_command_says_what_there_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        """``manage.py sample`` can be run at any time."""
        call_command("sample")
        call_command("sample")
        assert capsys.readouterr().out == "Samples: 5 of kind slow query, 6 of kind batch.\n" * 2


class NightTests:
    def test_a_report_tells_whether_the_books_balance(self, bank: None) -> None:
        """When its time is over it counts the accounts and looks for what does not add up."""
        query_id = slow_queries.submit("night", "report", {"seconds": 0})
        drain(app="night")
        assert slow_queries.result(query_id).result == {"accounts": 13, "discrepancies": []}

    def test_an_abort_ends_a_report_early(self) -> None:
        """A report of an hour asks whether anybody still wants it."""
        assert report(a_row({"seconds": 3_600}, is_aborted=lambda: True)) == {"accounts": 0, "discrepancies": []}

    def test_a_screening_finds_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It plays a slow service that knows nothing."""
        monkeypatch.setattr("example_project.bank.night.SCREENING_SECONDS", 0)
        assert screen(a_row({"name": "Adams"})) == {"name": "Adams", "found": False}


class DemoUserTests:
    def test_can_log_in(self, settings, client) -> None:
        """The command names the user and the password, and they work."""
        settings.ALLOWED_HOSTS = ["localhost"]
        call_command("demo_user")
        assert client.login(username="demo", password="demo")

    def test_made_again_it_stays_logged_in(self, settings, django_user_model) -> None:
        """A second call changes nothing, so sessions live on."""
        settings.ALLOWED_HOSTS = ["localhost"]
        call_command("demo_user")
        before = django_user_model.objects.values().get()
        call_command("demo_user")
        assert django_user_model.objects.values().get() == before

    def test_is_refused_where_others_could_reach_it(self, settings, django_user_model) -> None:
        """A password that everybody knows is for a site that nobody else sees."""
        settings.ALLOWED_HOSTS = ["localhost", "bank.example"]
        with pytest.raises(CommandError, match="ALLOWED_HOSTS"):
            call_command("demo_user")
        assert not django_user_model.objects.exists()

"""Failed rows go back as a file, and what comes back corrected is a child of their batch."""

from __future__ import annotations

import csv
from uuid import uuid4

import pytest

from alya_django import (
    BatchInput,
    FaultyLine,
    InvalidInput,
    InvalidState,
    NotFound,
    Receipt,
    RowFailed,
    Status,
    WrongType,
    batches,
    register_batch_processor,
    register_file_checker,
    slow_queries,
)
from alya_django.intake import process, read_csv, return_file, returns
from alya_django.models import Batch, BatchFile, BatchRow
from alya_django.testing import drain
from tests.intake.files import faulty_lines
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry", "storage")]

SOURCE = b"Debtor,Note,Amount\nann,one,1\nbob,=two,x\n\ncid,three,3\ndan,four,y\n"


@pytest.fixture(autouse=True)
def keys(registry):
    """The keys of the rows that were processed; a row fails whose amount is no number."""
    seen: list[str] = []

    def pay(row):
        seen.append(row.key)
        if not row.input["amount"].isdigit():
            raise RowFailed("no_amount", field="amount", vals=(row.input["amount"],))
        return row.input["amount"]

    register_batch_processor("bank", "transfer", pay)
    return seen


def register(**options) -> None:
    """Register a checker that reads two of three columns, under names of its own."""
    arguments = {"columns": {"Debtor": "debtor", "Amount": "amount"}, **options.pop("reader", {})}
    register_file_checker(
        "txn", lambda file, *others: read_csv(file, **arguments), **{"app": "bank", "op": "transfer", **options}
    )


def receive(file: bytes | str = SOURCE, **options) -> Receipt:
    """Receive a file, and have its rows processed."""
    receipt = process(**{"file": file, "file_name": "TXN 1.csv", "file_type": "txn", **options})
    drain()
    return receipt


def returned(batch_id) -> bytes:
    with return_file(batch_id) as file:
        return file.read()


def debtors(batch_id) -> list[tuple[str, str]]:
    """Return the lines and debtors of a return file that has the fields of the inputs."""
    records = csv.DictReader(returned(batch_id).decode().splitlines())
    return [(record["alya_line"], record["debtor"]) for record in records]


def lines(batch_id) -> list[tuple[int, str]]:
    rows = BatchRow.objects.filter(batch=batch_id).order_by("line")
    return [(row.line, row.input["amount"]) for row in rows]


class ReturnFileTests:
    @pytest.mark.rule("FXR-25")
    def test_has_the_failed_records_of_the_source(self):
        """All of its columns as they came, also those that the checker passes over, and the line and the reason."""
        register()
        receipt = receive()
        with return_file(receipt.batch_id) as file:
            assert file.name == "TXN 1.csv.return.csv"
            assert file.read().decode() == (
                "Debtor,Note,Amount,alya_line,alya_reason\r\n"
                "bob,=two,x,3,no_amount (amount: x)\r\n"
                "dan,four,y,6,no_amount (amount: y)\r\n"
            )

    @pytest.mark.rule("FXR-25")
    @pytest.mark.parametrize(
        ("source", "reader", "expected"),
        [
            (
                b'Debtor;Amount\nann;x\n"b;""ob";"y\ny"\n',
                {"dialect": "excel", "delimiter": ";"},
                b"Debtor;Amount;alya_line;alya_reason\r\nann;x;2;no_amount (amount: x)\r\n"
                b'"b;""ob";"y\ny";3;no_amount (amount: y y)\r\n',
            ),
            (
                "Debtor,Amount\nj\u00f6rg,x\n".encode("utf-16"),
                {},
                "Debtor,Amount,alya_line,alya_reason\r\nj\u00f6rg,x,2,no_amount (amount: x)\r\n".encode("utf-16"),
            ),
            (
                "Debtor,Amount\nj\u00f6rg,x\n".encode("utf-8-sig"),
                {},
                "Debtor,Amount,alya_line,alya_reason\r\nj\u00f6rg,x,2,no_amount (amount: x)\r\n".encode("utf-8-sig"),
            ),
            (
                b'Debtor|Amount\n"ann|x,\n',
                {"delimiter": "|", "quoting": csv.QUOTE_NONE},
                b'Debtor|Amount|alya_line|alya_reason\r\n"ann|x,|2|no_amount (amount: x,)\r\n',
            ),
            (
                b'Debtor,Amount\n" ann",x\n',
                {"skipinitialspace": True},
                b'"Debtor","Amount","alya_line","alya_reason"\r\n" ann","x","2","no_amount (amount: x)"\r\n',
            ),
            (
                b"ann,x\nbob,2\n",
                {"columns": ["debtor", "amount"], "has_header": False},
                b"ann,x,1,no_amount (amount: x)\r\n",
            ),
        ],
        ids=["dialect", "utf-16", "utf-8", "no quotes", "initial space", "no header"],
    )
    def test_is_written_as_the_source_is(self, source, reader, expected):
        """Its reader reads it with the same arguments, and gets the same inputs."""
        register(reader=reader)
        parent = receive(source).batch_id
        assert returned(parent) == expected
        child = receive(expected, parent=parent).batch_id
        failed = BatchRow.objects.filter(batch=parent, status=Status.FAILED).order_by("line")
        assert list(BatchRow.objects.filter(batch=child).order_by("line").values_list("line", "input")) == list(
            failed.values_list("line", "input")
        )

    @pytest.mark.rule("FXR-25")
    def test_looks_beyond_a_block(self, monkeypatch):
        """Blocks are how failed lines are looked up, and nothing depends on where they end."""
        monkeypatch.setattr(returns, "BLOCK_ROWS", 2)
        register()
        parent = receive(b"Debtor,Amount\n" + b"ann,x\nbob,1\ncid,1\n" * 3 + b"short\n").batch_id
        assert [record[2] for record in csv.reader(returned(parent).decode().splitlines()[1:])] == ["2", "5", "8"]
        BatchFile.objects.update(metadata={})
        assert [record[2] for record in csv.reader(returned(parent).decode().splitlines()[1:])] == ["2", "5", "8"]

    @pytest.mark.rule("FXR-25")
    def test_a_reason_is_no_formula(self):
        """What Alya adds does nothing in a spreadsheet; what the sender wrote stays as it was."""

        def fail(row):
            raise RowFailed("=1+1")

        register_batch_processor("bank", "fee", fail)
        register(op="fee")
        assert returned(receive(b"Debtor,Amount\n=2+2,-1\n").batch_id).splitlines()[1:] == [b"=2+2,-1,2,'=1+1"]

    @pytest.mark.rule("FXR-25")
    def test_of_a_retry_has_the_records_of_the_first_file(self):
        """The retry has no file of its own."""
        register()
        parent = receive().batch_id
        child = batches.retry(parent, lines=[6])
        drain()
        assert returned(child).splitlines()[1:] == [b"dan,four,y,6,no_amount (amount: y)"]

    @pytest.mark.rule("FXR-25")
    def test_leaves_out_what_is_repeated(self):
        """A line that a retry has in hand is not to be corrected meanwhile."""
        register()
        parent = receive().batch_id
        batches.retry(parent, lines=[6])
        assert returned(parent).splitlines()[1:] == [b"bob,=two,x,3,no_amount (amount: x)"]

    @pytest.mark.rule("FXR-26")
    def test_without_a_file_has_the_fields_of_the_inputs(self):
        """What is no text is JSON; what a row lacks is empty."""
        register_batch_processor("bank", "fee", lambda row: 1 / 0)
        batch_id = batches.submit("bank", "fee", [{"a": "=x", "n": [1, "\u00e4"]}, {"b": None}, {"b": True}, 7])
        drain(raise_errors=False)
        with return_file(batch_id) as file:
            assert file.name == f"{batch_id}.return.csv"
            header, *records = csv.reader(file.read().decode().splitlines())
        assert header == ["a", "n", "b", "input", "alya_line", "alya_reason"]
        assert [record[:5] for record in records] == [
            ["=x", '[1, "\u00e4"]', "", "", "1"],
            ["", "", "", "", "2"],
            ["", "", "true", "", "3"],
            ["", "", "", "7", "4"],
        ]
        assert records[0][5] == "processing_error (ZeroDivisionError: division by zero)"

    @pytest.mark.rule("FXR-26")
    @pytest.mark.parametrize("line", [3, 5, 9], ids=["faulty", "trailer", "past the end"])
    def test_an_appended_row_is_no_record_of_the_file(self, line):
        """Not of the faulty line whose number it has, nor of the trailer's, also where a retry of it has failed."""

        def check(file, *others):
            for row in read_csv(file):
                if row.input["debtor"] != "end":
                    yield FaultyLine(3, "is bad") if row.line == 3 else row

        register_file_checker("txn", check, app="bank", op="transfer")
        parent = receive(b"debtor,amount\nann,x\nbob,y\ncid,1\nend,1\n", wait=True).batch_id
        batches.append(parent, [BatchInput(line, {"debtor": "eve", "amount": "z"})], wait=False)
        drain()
        assert debtors(parent) == [("2", "ann"), (str(line), "eve")]
        child = batches.retry(parent)
        drain()
        assert debtors(child) == [("2", "ann"), (str(line), "eve")]

    @pytest.mark.rule("FXR-26")
    def test_a_row_with_a_number_of_its_checkers_own_is_no_record_of_the_file(self):
        """What that number is in the file nobody knows."""

        def check(file, *others):
            return (BatchInput(10 * row.line, row.input) for row in read_csv(file))

        register_file_checker("txn", check, app="bank", op="transfer")
        parent = receive(b"debtor,amount\nann,x\n").batch_id
        assert debtors(parent) == [("20", "ann")]

    @pytest.mark.rule("FXR-26")
    @pytest.mark.parametrize("why", ["appended", "gone", "no form", "not read"])
    def test_where_the_source_does_not_do_has_the_fields_of_the_inputs(self, why, storage):
        """No failed row is left out: where one was appended, or the file is gone, or cannot be written again."""
        register(reader={"doublequote": False, "strict": False} if why == "no form" else {})
        parent = receive(b'Debtor,Amount\na"nn,x\n' if why == "no form" else SOURCE, wait=True)
        if why == "appended":
            batches.append(parent.batch_id, [{"debtor": "eve", "amount": "z"}])
        batches.release(parent.batch_id)
        drain()
        if why == "gone":
            (storage / parent.object_id).unlink()
        if why == "not read":
            BatchFile.objects.update(metadata={})
        header, *records = csv.reader(returned(parent.batch_id).decode().splitlines())
        assert (sorted(header[:2]), header[2:]) == (["amount", "debtor"], ["alya_line", "alya_reason"])
        expected = {"appended": ["3", "6", "7"], "no form": ["2"]}
        assert [record[2] for record in records] == expected.get(why, ["3", "6"])

    @pytest.mark.rule("FXR-25")
    def test_is_refused_where_there_is_nothing_to_return(self):
        """Of a batch that has not ended, or of which nothing has failed; a slow query has no lines."""
        register()
        waiting = receive(wait=True).batch_id
        with pytest.raises(InvalidState) as caught:
            return_file(waiting)
        assert str(caught.value) == f"The batch {waiting} has not ended: its status is wait."
        batch_id = receive(b"Debtor,Amount\nann,1\n").batch_id
        with pytest.raises(InvalidState) as caught:
            return_file(batch_id)
        assert str(caught.value) == f"The batch {batch_id} has no failed row to return: its status is success."
        assert caught.value.status is Status.SUCCESS
        with pytest.raises(WrongType):
            return_file(slow_queries.submit("bank", "ask", 1))
        with pytest.raises(NotFound):
            return_file(uuid4())


class ComeBackTests:
    @pytest.mark.rule("FXR-27")
    def test_makes_a_child_with_the_parents_lines(self, keys):
        """Corrected rows are processed under the keys that the failed ones had."""
        register()
        parent = receive(context={"day": 1}).batch_id
        keys.clear()
        corrected = returned(parent).replace(b"two,x", b"two,2").replace(b"four,y", b"four,z")
        child = receive(corrected, parent=parent).batch_id
        batch = Batch.objects.get(pk=child)
        assert (batch.parent_id, batch.root_id, batch.context) == (parent, parent, {"day": 1})
        assert lines(child) == [(3, "2"), (6, "z")]
        assert keys == [f"{parent}:3", f"{parent}:6"]
        outcome = batches.line(parent, 3)
        assert (outcome.status, outcome.sequels[child].status) == (Status.FAILED, Status.SUCCESS)
        again = receive(returned(child).replace(b"four,z", b"four,4"), parent=child).batch_id
        assert lines(again) == [(6, "4")]
        assert list(batches.line(parent, 6).sequels) == [child, again]
        check_invariants()

    @pytest.mark.rule("FXR-27")
    def test_takes_what_a_retry_would_take(self):
        """Other lines of the parent are faulty, and so is a line that it does not have."""
        register()
        parent = receive().batch_id
        batches.retry(parent, lines=[6], wait=True)
        receipt = receive(
            b"Debtor,Amount,alya_line\nann,1,2\nbob,2,3\ndan,4,6\neve,5,99\n", parent=str(parent), context={"day": 2}
        )
        assert lines(receipt.batch_id) == [(3, "2")]
        assert faulty_lines(receipt) == [
            f'{line},"has not failed in batch {parent}, or was repeated"' for line in (2, 6, 99)
        ]
        assert Batch.objects.get(pk=receipt.batch_id).context == {"day": 2}

    @pytest.mark.rule("FXR-27")
    def test_the_columns_may_stand_anywhere(self):
        """A person may have sorted the file, moved the columns, and have one of that name before."""
        register()
        source = b"alya_line,Debtor,Amount\n7,ann,x\n8,bob,y\n"
        parent = receive(source).batch_id
        child = receive(b"alya_line,alya_reason,Debtor,alya_line,Amount\n8,,bob,3,2\n7,,ann,2,1\n", parent=parent)
        assert lines(child.batch_id) == [(2, "1"), (3, "2")]

    @pytest.mark.rule("FXR-28")
    def test_a_line_that_is_none_is_faulty(self):
        """The number is that of the returned file, and the reason says so; the others go on."""
        register()
        parent = receive().batch_id
        receipt = receive(
            b"Debtor,Amount,alya_line,alya_reason\nbob,2,three,\nbob,2,9999999999,\nbob,2,\nbob,,,2,\nbob,2,3,\nbo\xffb,2,3,\n",
            parent=parent,
        )
        assert lines(receipt.batch_id) == [(3, "2")]
        assert faulty_lines(receipt) == [
            "2,of the returned file: 'three' in alya_line is no line",
            "3,of the returned file: '9999999999' in alya_line is no line",
            '4,"of the returned file: has 3 values, not 4"',
            '5,"of the returned file: has 5 values, not 4"',
            "7,has bytes that are no utf-8",
        ]

    @pytest.mark.rule("FXR-28")
    def test_a_return_file_without_its_parent_is_rejected(self):
        """It would be other rows, with other keys: what was paid under the first ones would be paid again."""
        register()
        parent = receive().batch_id
        content = returned(parent).replace(b",x,", b",2,").replace(b",y,", b",4,")
        assert receive(content).reason == (
            "This is a return file: its header has 'alya_line' and 'alya_reason'. "
            "It is received with the batch that it corrects as its parent."
        )
        assert receive(content, parent=parent).accepted

    @pytest.mark.rule("FXR-28")
    def test_without_a_header_the_columns_are_the_last_two(self):
        """A record that has not even two is faulty."""
        register(reader={"columns": ["debtor", "amount"], "has_header": False})
        parent = receive(b"ann,x\nbob,y\n").batch_id
        receipt = receive(b"ann\nbob,2,2,\nann,x,1\n", parent=parent)
        assert lines(receipt.batch_id) == [(2, "2")]
        assert faulty_lines(receipt) == [
            '1,"of the returned file: has 1 values, not 2"',
            "3,of the returned file: 'x' in alya_line is no line",
        ]

    @pytest.mark.rule("FXR-27", "FXR-28")
    def test_records_of_several_kinds_come_back(self):
        """Each with its own number of values before the two; one that has nothing else is faulty."""
        kinds = {"P": ["kind", "debtor", "amount"], "Q": ["kind", "amount"]}
        register(reader={"columns": kinds, "has_header": False})
        parent = receive(b"P,ann,x\nQ,1\nQ,y\n").batch_id
        assert returned(parent) == b"P,ann,x,1,no_amount (amount: x)\r\nQ,y,3,no_amount (amount: y)\r\n"
        receipt = receive(b"P,ann,1,1,\nQ,2,3,\n2,\n", parent=parent)
        assert lines(receipt.batch_id) == [(1, "1"), (3, "2")]
        assert faulty_lines(receipt) == ["2,\"'' is none of 'P', 'Q', with which records begin\""]

    @pytest.mark.rule("FXR-28")
    @pytest.mark.parametrize(
        ("file", "reason"),
        [
            (SOURCE, "The header lacks 'alya_line': this is no return file."),
            (b"Debtor,Amount,alya_line\nann,1,2\n", "The file has no usable line."),
            (b"Debtor,Amount,alya_line\nbob,1,3\nbob,2,3\n", "line 3: the batch has this line twice."),
        ],
        ids=["source", "not failed", "twice"],
    )
    def test_what_does_not_correct_the_parent_is_rejected(self, file, reason):
        """The file that came first, lines that have not failed, or one line twice."""
        register()
        parent = receive().batch_id
        assert receive(file, parent=parent, allow_duplicate=True).reason == reason
        assert batches.children(parent) == []

    @pytest.mark.rule("FXR-28")
    def test_a_checker_that_does_not_use_read_csv_is_refused(self):
        """The numbers of its lines are those of another file."""
        register()
        parent = receive().batch_id
        register_file_checker("own", lambda *arguments: [BatchInput(3, {"amount": "1"})], app="bank", op="transfer")
        assert receive(parent=parent, file_type="own", file=b"x").reason == (
            "Its checker does not use read_csv, so whose corrected lines these are is not known."
        )
        assert batches.children(parent) == []

    @pytest.mark.rule("FXR-28")
    def test_refuses_a_parent_that_cannot_be_one(self):
        """Nothing is stored of a file whose parent runs, serves another op, or is not there."""
        register()
        running = receive(wait=True).batch_id
        other = batches.submit("bank", "fee", [1])
        count = BatchFile.objects.count()
        with pytest.raises(InvalidState) as state:
            receive(parent=running)
        assert str(state.value) == f"The batch {running} has not ended: its status is wait."
        with pytest.raises(InvalidInput) as caught:
            receive(parent=other)
        assert str(caught.value) == ("parent: is a batch of bank/fee; files of the type 'txn' are for bank/transfer.")
        with pytest.raises(NotFound):
            receive(parent=uuid4())
        assert BatchFile.objects.count() == count

    @pytest.mark.rule("FXR-27")
    def test_a_business_key_of_the_parent_is_no_duplicate(self):
        """What has failed stands in nobody's way; what has succeeded does."""
        register(unique_by="debtor")
        parent = receive().batch_id
        receipt = receive(
            returned(parent).replace(b"two,x", b"two,2").replace(b"dan,four,y", b"ann,four,4"), parent=parent
        )
        assert lines(receipt.batch_id) == [(3, "2")]
        assert faulty_lines(receipt) == [f"6,has the same debtor as line 2 of batch {parent}"]

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from alya_django import BadFile, BatchInput, InvalidInput, batches, register_batch_processor, register_file_checker
from alya_django.intake import business_keys, read_csv
from alya_django.models import BatchRow, BusinessKey
from alya_django.testing import drain
from tests.intake.files import faulty_lines, receive
from tests.intake.files import register as register_checker
from tests.processors import fail_odd

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry", "storage")]


def check(file, file_name, context):
    return read_csv(file)


register = partial(register_checker, check)


def payments(*references: object) -> str:
    return "reference,amount\n" + "".join(f"{reference},1\n" for reference in references)


def lines(receipt) -> list[int]:
    return list(BatchRow.objects.filter(batch=receipt.batch_id).order_by("line").values_list("line", flat=True))


class DuplicateTests:
    @pytest.mark.rule("FXR-16")
    def test_a_key_met_again_in_the_file_makes_a_line_faulty(self):
        """The first line is a row, each other one names it."""
        register(unique_by="reference")
        receipt = receive(payments("a", "b", "a", "c", "a"))
        assert lines(receipt) == [2, 3, 5]
        assert faulty_lines(receipt) == [
            "4,has the same reference as line 2",
            "6,has the same reference as line 2",
        ]

    @pytest.mark.rule("FXR-16")
    def test_a_key_of_an_earlier_file_makes_a_line_faulty(self):
        """The line names the batch and the line that have it."""
        register(unique_by=["reference", "amount"])
        first = receive(payments("a", "b"))
        second = receive(payments("c", "b"))
        assert lines(second) == [2]
        assert faulty_lines(second) == [f'3,"has the same reference, amount as line 3 of batch {first.batch_id}"']

    @pytest.mark.rule("FXR-16")
    def test_looks_beyond_a_block(self, monkeypatch):
        """Blocks are how lines are looked up, and nothing depends on where they end."""
        monkeypatch.setattr(business_keys, "BLOCK_ROWS", 2)
        register(unique_by="reference")
        receipt = receive(payments("a", "b", "c", "a", "b", "b", "d"))
        assert lines(receipt) == [2, 3, 4, 8]
        assert [fault.partition(",")[0] for fault in faulty_lines(receipt)] == ["5", "6", "7"]
        monkeypatch.setattr(business_keys, "BLOCK_CHARS", 1)
        assert lines(receive(payments("e", "a", "f", "e"))) == [2, 4]

    @pytest.mark.rule("FXR-46")
    @pytest.mark.parametrize(
        ("unique_by", "content", "is_accepted"),
        [
            ("Reference", payments("a", "b"), False),
            (["reference", "refrence"], payments("a", "b"), False),
            ("reference", payments("", ""), True),
            ("Reference", "reference,amount\na\n", False),
            (lambda input: None, payments("a"), True),
        ],
        ids=["no row has it", "one of two", "all have it empty", "no rows at all", "a function finds none"],
    )
    def test_a_field_that_no_row_has_refuses_the_file(self, unique_by, content, is_accepted):
        """Else a name misspelt would turn the protection off without a word."""
        register(unique_by=unique_by)
        receipt = receive(content)
        assert receipt.accepted is is_accepted
        assert ("unique_by" in receipt.reason) is (not is_accepted and "b" in content)
        assert BusinessKey.objects.count() == 0

    @pytest.mark.rule("FXR-46")
    def test_one_row_that_has_the_field_is_enough(self):
        """Records of another kind may lack it."""
        register_batch_processor("bank", "pay", fail_odd)
        rows = [BatchInput(1, {"kind": "head"}), BatchInput(2, {"reference": "a"})]
        register_file_checker(
            "kinds", lambda file, name, context: iter(rows), app="bank", op="pay", unique_by="reference"
        )
        assert receive("x", file_type="kinds").accepted

    @pytest.mark.rule("FXR-16")
    def test_faulty_lines_stand_in_the_order_of_the_file(self):
        """Those that the checker names and those that are duplicates are one list."""
        register(unique_by="reference")
        receipt = receive("reference,amount\na,1\nb\na,1\nc\n")
        assert [fault.partition(",")[0] for fault in faulty_lines(receipt)] == ["3", "4", "5"]

    @pytest.mark.rule("FXR-4", "FXR-16")
    def test_a_refused_file_keeps_what_was_found_faulty(self):
        """The lines that its checker named before it refused, also those of a block that was not looked up yet."""

        def refuse(file, *others):
            yield from read_csv(file)
            raise BadFile("The trailer is missing.")

        register_checker(refuse, unique_by="reference")
        receipt = receive("reference,amount\na,1\nb\na,1\n")
        assert receipt.reason == "The trailer is missing."
        assert faulty_lines(receipt) == ['3,"has 1 values, not 2"', "4,has the same reference as line 2"]

    @pytest.mark.rule("FXR-16")
    def test_another_op_has_keys_of_its_own(self):
        """What is unique in one op says nothing of another."""
        register(unique_by="reference")
        register_file_checker("fees", check, app="bank", op="fees", unique_by="reference")
        receive(payments("a"))
        assert receive(payments("a"), file_type="fees").nfaulty == 0

    @pytest.mark.rule("FXR-16")
    @pytest.mark.parametrize(
        "unique_by",
        [lambda input: input["reference"].lower(), lambda input: (input["reference"].lower(), 7)],
        ids=["a value", "several"],
    )
    def test_a_function_may_make_the_key(self, unique_by):
        """It gets the input, and says which lines are alike."""
        register(unique_by=unique_by)
        receipt = receive(payments("a", "A", "b"))
        assert lines(receipt) == [2, 4]
        assert faulty_lines(receipt) == ["3,has the same key as line 2"]

    @pytest.mark.rule("FXR-16")
    def test_a_row_without_any_of_the_values_is_not_compared(self):
        """Two rows that have no reference are not alike."""
        register_checker(
            lambda file, *others: [
                BatchInput(1, {}),
                BatchInput(2, {"reference": None}),
                BatchInput(3, {"amount": None}),
            ],
            unique_by=["reference", "amount"],
        )
        assert lines(receive("x")) == [1, 2, 3]

    def test_values_do_not_run_into_each_other(self):
        """What belongs to which field counts."""
        register_checker(
            lambda file, *others: [BatchInput(1, {"a": "x", "b": ""}), BatchInput(2, {"a": "", "b": "x"})],
            unique_by=["a", "b"],
        )
        assert lines(receive("x")) == [1, 2]

    @pytest.mark.rule("FXR-8")
    def test_a_function_that_fails_refuses_the_file(self):
        """It is part of the checker."""
        register(unique_by=lambda input: input["none"])
        assert receive(payments("a")).reason == "unique_by failed: KeyError: 'none'"

    def test_a_function_may_make_what_is_no_text(self):
        """A key is never stored as it is."""
        register(unique_by=lambda input: f"\ud800{input['reference']}")
        assert lines(receive(payments("a", "b", "a"))) == [2, 3]

    def test_a_row_that_has_no_fields_refuses_the_file(self):
        """That is a mistake of the checker."""
        register_checker(lambda file, *others: [BatchInput(1, "a")], unique_by="reference")
        assert receive("x").reason == (
            "The checker yields a row that is no object, and has unique_by name fields of it."
        )

    @pytest.mark.rule("FXR-16")
    def test_a_rejected_file_leaves_no_key(self):
        """What was not accepted stands in nobody's way."""
        register(unique_by="reference")
        assert not receive('reference,amount\nb,1\nc,"1\n2\n').accepted
        assert not BusinessKey.objects.exists()

    @pytest.mark.parametrize("unique_by", ["", [], [""], [7], 7, {"a": 1}], ids=repr)
    def test_refuses_what_names_no_field(self, unique_by):
        """The error says what it is given."""
        with pytest.raises(InvalidInput) as caught:
            register(unique_by=unique_by)
        assert str(caught.value) == f"unique_by: must name fields of the input, not {unique_by!r}."


class FreeTests:
    @pytest.mark.rule("FXR-17")
    def test_a_key_is_free_after_so_many_days(self, settings):
        """DUPLICATE_DAYS after it was received, a key may come again; with 0 it may the next moment."""
        register(unique_by="reference")
        receive(payments("a", "b"))
        BusinessKey.objects.filter(line=2).update(received_at=Now() - timedelta(days=30, minutes=1))
        BusinessKey.objects.filter(line=3).update(received_at=Now() - timedelta(days=29))
        assert BusinessKey.objects.expired().count() == 1
        assert lines(receive(payments("a", "b", "c"))) == [2, 4]
        settings.ALYA = {"DUPLICATE_DAYS": 0}
        assert lines(receive(payments("c", "b", "d", "d"))) == [2, 3, 4]

    @pytest.mark.rule("FXR-17")
    def test_a_key_is_free_once_its_row_has_failed(self):
        """What has come to nothing may be sent again; what has succeeded may not."""
        register(unique_by="reference")
        register_batch_processor("bank", "transfer", fail_odd)
        receive(payments("a", "b"))
        drain()
        assert lines(receive(payments("c", "a", "b", "b"))) == [2, 4]

    @pytest.mark.rule("FXR-17")
    def test_a_key_is_free_once_its_batch_was_aborted(self):
        """An aborted batch can be sent anew, as another file or knowingly again."""
        register(unique_by="reference")
        first = receive(payments("a", "b"))
        batches.abort(first.batch_id)
        assert lines(receive(payments("a", "b"), allow_duplicate=True)) == [2, 3]
        assert not receive(payments("b", "a")).accepted

    @pytest.mark.rule("FXR-17")
    def test_a_key_is_not_free_while_a_retry_has_its_row(self):
        """A row that is about to be repeated may still succeed."""
        register(unique_by="reference")
        first = receive(payments("a"))
        batches.abort(first.batch_id)
        batches.retry(first.batch_id)
        assert not receive(payments("a", "a")).accepted


class CostTests:
    @pytest.mark.rule("FXR-16")
    def test_asks_once_for_each_block(self):
        """The number of statements does not grow with the rows of a block."""
        register(unique_by="reference")
        with CaptureQueriesContext(
            connection,
        ) as few:
            receive(payments(*range(10)))
        with CaptureQueriesContext(connection) as many:
            receive(payments(*range(10, 400)))
        assert len(many) == len(few)

from __future__ import annotations

from decimal import Decimal
from uuid import uuid4

import pytest

from alya_django import (
    FormatFailed,
    InvalidInput,
    OutputFormat,
    Status,
    batches,
    register_batch_processor,
)
from alya_django.models import Batch
from alya_django.output_formats import PLAIN, Frame, format_of
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.local_storage import files_in, read
from tests.processors import write_lines

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


def amount(text: str) -> str:
    """Return the second field of a line."""
    return text.split(",")[1]


PAYMENTS = OutputFormat(
    header=lambda details: f"H,{details.app},{details.input_file}",
    trailer=lambda totals: f"T,{totals.rows},{totals.lines},{totals.sums['amount']},{totals.details.status}",
    sums={"amount": amount},
)


def frame(**form) -> Frame:
    details = Batch(id=uuid4(), app="app", op="op", kind="B", status="inprog").details(slots=())
    return Frame(OutputFormat(**form), details)


class OutputFormatTests:
    @pytest.mark.parametrize(
        ("wrong", "fault"),
        [
            ({"header": 5}, "header is a text or a function of BatchDetails, not 5."),
            ({"trailer": "T"}, "trailer is a function of OutputTotals, not 'T'."),
            ({"sums": ["amount"]}, "sums maps names to functions of a text, not ['amount']."),
            ({"sums": {"amount": 1}}, "sums maps names to functions of a text, not {'amount': 1}."),
        ],
    )
    def test_refuses_what_it_cannot_use(self, wrong, fault):
        """When it is made, which is when the project starts."""
        with pytest.raises(TypeError) as caught:
            OutputFormat(**wrong)
        assert str(caught.value) == fault

    @pytest.mark.parametrize("given", [5, Decimal("5.00"), "5", " 5\n"])
    def test_reads_amounts(self, given):
        """A whole number, a Decimal, or the text of one."""
        assert OutputFormat(sums={"n": lambda text: given}).amounts("x") == {"n": Decimal(5)}

    @pytest.mark.parametrize(
        ("given", "fault"),
        [
            (5.5, "The amount 'n' is a float, not a Decimal, a whole number or a text."),
            (True, "The amount 'n' is a bool, not a Decimal, a whole number or a text."),
            (None, "The amount 'n' is a NoneType, not a Decimal, a whole number or a text."),
            ("NaN", "The amount 'n' is NaN."),
        ],
    )
    def test_refuses_amounts_that_are_not_exact(self, given, fault):
        """Sums of floats are not what a bank means by a sum."""
        with pytest.raises((TypeError, ValueError)) as caught:
            OutputFormat(sums={"n": lambda text: given}).amounts("x")
        assert str(caught.value) == fault


class FormatOfTests:
    def test_is_that_of_the_name_or_of_a_pattern(self):
        """The name goes first, then the patterns in their order; a file that none fits has no frame."""
        forms = [OutputFormat(header=str(number)) for number in range(3)]
        formats = dict(zip(["*.csv", "a.csv", "*"], forms, strict=True))
        assert [format_of(formats, name) for name in ("a.csv", "b.csv", "c")] == [forms[1], forms[0], forms[2]]
        assert format_of({}, "a.csv") is PLAIN


class FrameTests:
    @pytest.mark.rule("OUT-7")
    def test_counts_rows_lines_and_amounts(self):
        """A row that adds several lines is one; its last line need not end in a newline."""
        made = frame(
            trailer=lambda totals: f"{totals.rows} {totals.lines} {totals.sums['n']} {totals.details.app}",
            sums={"n": lambda text: text.split()[0]},
        )
        made.count(["0.10", "0.20\n"])
        made.count(["5\n6"])
        assert made.trailer() == "3 4 5.30 app"

    def test_has_neither_unless_it_is_told(self):
        """Both are empty, and nothing is counted."""
        made = frame(sums={"n": lambda text: 1 / 0})
        made.count(["x"])
        assert (made.header(), made.trailer()) == ("", "")

    @pytest.mark.rule("OUT-8")
    @pytest.mark.parametrize(
        ("form", "fault"),
        [
            ({"header": lambda details: 5}, "The header of an output file could not be made: AttributeError:"),
            ({"header": lambda details: "\ud800"}, "The header of an output file could not be made: UnicodeEncodeErr"),
            ({"trailer": lambda totals: 1 / 0}, "The trailer of an output file could not be made: ZeroDivisionError:"),
            (
                {"trailer": str, "sums": {"n": lambda text: text}},
                "The amounts of an output file could not be read: InvalidOperation:",
            ),
        ],
    )
    def test_says_what_could_not_be_made(self, form, fault):
        """Whatever the project's code raises is a FormatFailed with its reason."""
        made = frame(**form)

        def use() -> None:
            made.header()
            made.count(["x"])
            made.trailer()

        with pytest.raises(FormatFailed) as caught:
            use()
        assert str(caught.value).startswith(fault)


class OutputFormatsTests:
    @pytest.mark.rule("OUT-7")
    def test_stand_around_the_lines_of_a_batch(self, registry):
        """The header knows the batch, the trailer what lies between; the status is the one that it ends in."""
        register_batch_processor("bank", "write", write_lines, output_formats={"p.csv": PAYMENTS})
        batch_id = batches.submit(
            "bank", "write", [{"p.csv": "a,1.50"}, {"p.csv": "b,2.25\n", "o.csv": "other"}], input_file="in.csv"
        )
        drain()
        assert read(batch_id, "p.csv") == b"H,bank,in.csv\na,1.50\nb,2.25\nT,2,2,3.75,success\n"
        assert read(batch_id, "o.csv") == b"other\n"
        check_invariants()

    @pytest.mark.rule("OUT-8")
    def test_fail_a_row_without_its_amount(self, registry):
        """The row that adds it is told, not the batch: what stays is summed."""
        register_batch_processor("bank", "write", write_lines, output_formats={"p.csv": PAYMENTS})
        batch_id = batches.submit("bank", "write", [{"p.csv": "a,1.50"}, {"p.csv": "b,much"}, {"p.csv": "c"}])
        drain(raise_errors=False)
        assert [row.status for row in batches.result(batch_id).rows] == [Status.SUCCESS, Status.FAILED, Status.FAILED]
        assert read(batch_id, "p.csv") == b"H,bank,\na,1.50\nT,1,1,1.50,failed\n"
        (message,) = batches.line(batch_id, 3).messages
        assert (message.msgid, message.vals) == (10, ("IndexError: list index out of range",))
        check_invariants()

    @pytest.mark.rule("OUT-8")
    def test_keep_the_batch_waiting_until_they_are_mended(self, registry, folder, caplog):
        """A header that raises leaves no half file; once the code is right and the lease has run out it is made."""
        faults = [ZeroDivisionError()]

        def header(details) -> str:
            if faults:
                raise faults.pop()
            return "H"

        register_batch_processor("bank", "write", write_lines, output_formats={"*": OutputFormat(header=header)})
        batch_id = batches.submit("bank", "write", [{"a": "1"}])
        drain(raise_errors=False)
        assert batches.status(batch_id).status is Status.IN_PROGRESS
        assert f"The output files of {batch_id} wait for their format to be mended: FormatFailed from " in caplog.text
        assert files_in(folder) == set()
        assert drain() == 0
        assert batches.status(batch_id).try_later
        Batch.objects.update(finisher_until="2000-01-01T00:00Z")
        drain()
        assert read(batch_id, "a") == b"H\n1\n"

    @pytest.mark.parametrize("value", [None, {"a": "H"}, {1: PAYMENTS}, [PAYMENTS]])
    def test_are_checked_when_they_are_registered(self, registry, value):
        """What is no dict of names and formats is refused."""
        with pytest.raises(InvalidInput, match=r"^output_formats: must be a dict of logical names and OutputFormats"):
            register_batch_processor("bank", "write", write_lines, output_formats=value)

    @pytest.mark.rule("OUT-9")
    def test_name_the_type_of_a_file(self, registry):
        """Where its name does not tell."""
        forms = {"PAY": OutputFormat(content_type="text/x-bank")}
        names = ["PAY", "b.csv", "c.csv.gz", "d.csv.br", "e"]
        register_batch_processor("bank", "write", write_lines, output_formats=forms)
        batch_id = batches.submit("bank", "write", [dict.fromkeys(names, "x")])
        drain()
        assert [batches.output_files(batch_id)[name].content_type for name in names] == [
            "text/x-bank",
            "text/csv",
            "application/gzip",
            "application/octet-stream",
            "application/octet-stream",
        ]

"""Which app and op the rows of a file go to, where its checker says so by what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from alya_django import (
    BatchInput,
    ControlTotals,
    FaultyLine,
    InvalidInput,
    Row,
    RowFailed,
    Status,
    batches,
    register_batch_processor,
    register_slow_query_processor,
)
from alya_django.checkers import Route, checkers
from alya_django.intake import preview, read_csv, return_file
from alya_django.models import Batch, BatchFile, BatchRow
from alya_django.signals import batch_submitted
from alya_django.testing import drain
from tests.intake.files import faulty_lines, receive
from tests.intake.files import register as register_checker
from tests.invariants import check_invariants
from tests.processors import echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry", "storage")]

TRANSFERS, FEES, REFUNDS = Route("bank", "transfer"), Route("bank", "fee"), Route("cards", "refund")
ROW, FAULTY = BatchInput(2, {"reference": "a"}), FaultyLine(3, "no amount")
BY_PURPOSE = {"pay": TRANSFERS, "fee": FEES, "back": REFUNDS}


def register(check: Any, **options: Any) -> None:
    register_checker(check, **{"app": None, "op": None, "routes": [TRANSFERS, FEES, REFUNDS], **options})


def yielding(*yielded: Any) -> Any:
    """Return a checker that yields this, and raises what of it is an exception."""

    def check(file: Any, file_name: str, context: Any) -> Iterator[Any]:
        for one in yielded:
            if isinstance(one, Exception):
                raise one
            yield one() if callable(one) else one

    return check


def by_first_row(file: Any, file_name: str, context: Any) -> Iterator[Any]:
    """Send a file where the purpose of its first row says."""
    is_said = False
    for row in read_csv(file):
        if not is_said and isinstance(row, BatchInput):
            is_said = True
            yield from filter(None, [BY_PURPOSE.get(row.input["purpose"])])
        yield row


def route_of(batch_id: UUID | None) -> Route:
    batch = Batch.objects.get(pk=batch_id)
    return Route(batch.app, batch.op)


ACCEPTED = {
    "before the first row": [FEES, ROW],
    "after a faulty line": [FAULTY, FEES, ROW],
    "after the totals": [ControlTotals(count=1), FEES, ROW],
    "before the totals": [FEES, ROW, ControlTotals(count=1)],
    "in other letters": [Route("BANK", "Fee"), ROW],
}
REJECTED = {
    "never": ([ROW], "before the first row"),
    "after the first row": ([ROW, FEES], "before the first row"),
    "twice": ([FEES, FEES, ROW], "twice"),
    "another one later": ([FEES, ROW, TRANSFERS], "twice"),
    "before every row": ([FEES, ROW, FEES, BatchInput(3, {})], "twice"),
    "one that is not registered for the type": ([Route("bank", "salary"), ROW], "bank/salary"),
    "another app's op of that name": ([Route("cards", "fee"), ROW], "cards/fee"),
    "Alya's own": ([lambda: Route("alya", "load"), ROW], "InvalidInput"),
    "no name": ([lambda: Route("bank", ""), ROW], "InvalidInput"),
    "a text": (["bank/fee", ROW], "TypeError"),
    "a tuple": ([("bank", "fee"), ROW], "TypeError"),
    "the class": ([lambda: Route, ROW], "TypeError"),
    "and raises": ([FEES, ROW, ZeroDivisionError("by zero")], "ZeroDivisionError"),
    "and has no row": ([FEES], "no usable line"),
    "and has faulty lines alone": ([FEES, FAULTY], "no usable line"),
    "never, and has faulty lines alone": ([FAULTY], "no usable line"),
}


class SayTests:
    @pytest.mark.rule("FXR-41")
    @pytest.mark.parametrize("yielded", ACCEPTED.values(), ids=ACCEPTED)
    def test_once_and_before_the_first_row(self, yielded: list[Any], django_capture_on_commit_callbacks: Any) -> None:
        """The batch is of that app and op from the beginning, for whoever hears of it, and is processed there."""
        heard: list[Route] = []

        def hear(app: str, op: str, **others: Any) -> None:
            heard.append(Route(app, op))

        register(yielding(*yielded))
        register_batch_processor("bank", "fee", echo)
        batch_submitted.connect(hear)
        try:
            with django_capture_on_commit_callbacks(execute=True):
                receipt = receive()
        finally:
            batch_submitted.disconnect(hear)
        assert (receipt.accepted, receipt.nrows, route_of(receipt.batch_id)) == (True, 1, FEES)
        assert heard == [FEES]
        drain()
        assert batches.status(receipt.batch_id).status is Status.SUCCESS
        check_invariants()

    @pytest.mark.rule("FXR-42")
    @pytest.mark.parametrize(("yielded", "reason"), REJECTED.values(), ids=REJECTED)
    def test_anything_else_rejects_the_file(self, yielded: list[Any], reason: str) -> None:
        """The reason says what is wrong; nothing is submitted, the file is kept, and its preview says the same."""
        register(yielding(*yielded))
        receipt = receive()
        assert not receipt.accepted
        assert reason in receipt.reason
        assert receipt.object_id
        assert receipt.nfaulty == yielded.count(FAULTY)
        assert not Batch.objects.exists()
        assert not BatchRow.objects.exists()
        checker = checkers.find("txn")
        assert checker is not None
        assert preview.look(BatchFile.objects.get(), checker).reason == receipt.reason

    @pytest.mark.rule("FXR-42")
    @pytest.mark.parametrize(("yielded", "is_taken"), [([ROW], True), ([TRANSFERS, ROW], True), ([FEES, ROW], False)])
    def test_of_a_type_with_one_route_may_be_left_out(self, yielded: list[Any], is_taken: bool) -> None:
        """Said all the same it is taken, and another one is refused."""
        register_checker(yielding(*yielded))
        assert receive().accepted is is_taken

    @pytest.mark.rule("FXR-41")
    @pytest.mark.parametrize("register_op", [lambda: None, lambda: register_slow_query_processor("bank", "fee", echo)])
    def test_an_op_that_is_not_served_here_is_submitted_as_any(self, register_op: Any) -> None:
        """Other workers may serve it; what nobody serves waits as any batch does."""
        register_op()
        register(yielding(FEES, ROW))
        receipt = receive()
        assert drain() == 0
        assert (route_of(receipt.batch_id), batches.status(receipt.batch_id).status) == (FEES, Status.QUEUED)

    @pytest.mark.rule("FXR-41")
    def test_sends_each_file_of_a_type_where_it_says(self) -> None:
        """One physical type feeds several ops, also of several apps."""
        register(by_first_row)
        sent = {purpose: receive(f"purpose,n\n{purpose},1\n").batch_id for purpose in BY_PURPOSE}
        assert {purpose: route_of(batch_id) for purpose, batch_id in sent.items()} == BY_PURPOSE


class PreviewTests:
    @pytest.mark.rule("FXR-30", "FXR-41")
    @pytest.mark.parametrize(
        ("yielded", "route"), [([FEES, ROW], FEES), ([FAULTY] * 2_000, None), ([FEES, *[FAULTY] * 2_000], FEES)]
    )
    def test_says_where_the_rows_go(self, yielded: list[Any], route: Route | None) -> None:
        """As far as the checker has said it in what was looked at."""
        register(yielding(*yielded))
        receive()
        checker = checkers.find("txn")
        assert checker is not None
        assert preview.look(BatchFile.objects.get(), checker).route == route


class DuplicateTests:
    @pytest.mark.rule("FXR-16", "FXR-41")
    def test_are_of_one_op(self) -> None:
        """What makes a row unique is compared with rows of the op that the file goes to."""
        register(by_first_row, unique_by="reference")
        first = receive("purpose,reference\npay,a\n")
        assert receive("purpose,reference\nfee,a\n").nfaulty == 0
        again = receive("purpose,reference\npay,b\npay,a\n")
        assert faulty_lines(again) == [f"3,has the same reference as line 2 of batch {first.batch_id}"]

    @pytest.mark.rule("FXR-6", "FXR-41")
    def test_of_the_content_are_of_the_type(self) -> None:
        """The same bytes are the same file, whatever the checker makes of them by now."""
        routes = iter([TRANSFERS, FEES])
        register(yielding(lambda: next(routes), ROW))
        assert receive().accepted
        assert not receive().accepted


class ReturnTests:
    @pytest.fixture
    def failed(self) -> UUID:
        """A batch of fees that came as a file, with one failed row."""

        def fail(row: Row) -> None:
            raise RowFailed("closed")

        register(by_first_row)
        register_batch_processor("bank", "fee", fail)
        batch_id = receive("purpose,n\nfee,1\n").batch_id
        drain()
        assert batch_id is not None
        return batch_id

    def corrected(self, batch_id: UUID, purpose: str) -> bytes:
        """Return the return file with another purpose in it."""
        with return_file(batch_id) as file:
            content: bytes = file.read()
        return content.replace(b"\nfee,1,", f"\n{purpose},2,".encode())

    @pytest.mark.rule("FXR-27", "FXR-43")
    @pytest.mark.parametrize("purpose", ["fee", ""], ids=["said again", "not said"])
    def test_a_corrected_file_goes_where_its_parent_went(self, failed: UUID, purpose: str) -> None:
        """What says so in the file may not have failed, and then is not in the return file."""
        receipt = receive(self.corrected(failed, purpose), parent=failed)
        assert (receipt.accepted, route_of(receipt.batch_id)) == (True, FEES)
        assert batches.children(failed) == [receipt.batch_id]
        check_invariants()

    @pytest.mark.rule("FXR-43")
    def test_a_corrected_file_goes_nowhere_else(self, failed: UUID) -> None:
        """One that says another app and op is rejected: its rows would have the keys of the parent's."""
        receipt = receive(self.corrected(failed, "pay"), parent=failed)
        assert (receipt.accepted, batches.children(failed)) == (False, [])
        assert "bank/transfer; it may go to bank/fee" in receipt.reason

    @pytest.mark.rule("FXR-28", "FXR-43")
    def test_a_parent_elsewhere_is_refused(self) -> None:
        """The error names where it has gone, and where files of the type go."""
        register(by_first_row)
        parent = batches.submit("bank", "salary", [{}])
        batches.abort(parent)
        with pytest.raises(InvalidInput) as caught:
            receive(parent=parent)
        assert caught.value.field == "parent"
        assert "bank/salary" in str(caught.value)
        assert "bank/transfer, bank/fee, cards/refund" in str(caught.value)

"""The Python of the how-to and reference pages: it runs, does what is said, and its tests pass."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.dispatch import Signal

from alya_django import (
    InvalidInput,
    Receipt,
    Row,
    batches,
    intake,
    register_batch_processor,
    register_file_checker,
    registry,
    signals,
)
from alya_django.models import Batch
from alya_django.status import Kind, Status
from alya_django.testing import drain, isolated_registry, process_row
from example_project.bank.models import Account
from tests.docs import pages

# The code of this page is cut out of the example project.
EXCERPTS = "how-to/poll-a-slow-query.md"
HOW_TO = sorted({path.relative_to(pages.DOCS).as_posix() for path in pages.DOCS.glob("how-to/*.md")} - {EXCERPTS})
OTHERS = ["reference/api.md", "reference/settings.md", "reference/signals.md"]
SIGNALS = [value for value in vars(signals).values() if isinstance(value, Signal)]


def python(page: str) -> Iterator[pages.Block]:
    """Yield the blocks of Python of a page."""
    return (block for block in pages.blocks(pages.read(page)) if block.language == "python")


def run(page: str) -> dict[str, Any]:
    """Run the blocks of a page one after the other, and return the names they made."""
    made: dict[str, Any] = {"__name__": "page"}
    for block in python(page):
        # The lines of an error are those of the page.
        exec(compile("\n" * block.line + block.text, page, "exec"), made)
    return made


@pytest.fixture(autouse=True)
def nothing_registered() -> Iterator[None]:
    """An empty registry, and afterwards the receivers that were there."""
    receivers = [(signal, list(signal.receivers)) for signal in SIGNALS]
    with isolated_registry():
        yield
    for signal, before in receivers:
        signal.receivers[:] = before
        signal.sender_receivers_cache.clear()


class PythonTests:
    @pytest.mark.parametrize("page", [*HOW_TO, *OTHERS])
    def test_is_valid(self, page: str) -> None:
        """Every block can be compiled."""
        for block in python(page):
            compile("\n" * block.line + block.text, page, "exec")

    @pytest.mark.parametrize(
        "page",
        [
            "how-to/control-totals.md",
            "how-to/hold-a-failing-batch.md",
            "how-to/hostile-files.md",
            "how-to/output-files.md",
            "how-to/receive-files.md",
            "how-to/redis.md",
            "how-to/return-files.md",
            *OTHERS,
        ],
    )
    def test_runs(self, page: str) -> None:
        """What the page imports is there, and what it registers is accepted."""
        run(page)


@pytest.mark.django_db
@pytest.mark.usefixtures("folder")
class ReceiveFilesTests:
    @pytest.mark.parametrize(("file_name", "went_to"), [("REFUND 1.csv", "cards/refund"), ("1.csv", "bank/transfer")])
    def test_a_file_goes_where_it_says(self, file_name: str, went_to: str) -> None:
        """The checker of orders tells by the name."""
        run("how-to/receive-files.md")
        receipt = intake.process(file="n\n1\n", file_name=file_name, file_type="orders")
        batch = Batch.objects.get(pk=receipt.batch_id)
        assert f"{batch.app}/{batch.op}" == went_to


class ProcessorsTests:
    @pytest.fixture(autouse=True)
    def page(self) -> None:
        run("how-to/processors.md")

    def test_registers_them_all(self) -> None:
        """The page registers these apps and ops, all for batches."""
        assert {entry.kind for entry in registry} == {Kind.BATCH}
        assert [str(entry) for entry in registry] == [
            "bank/balance",
            "bank/fees",
            "bank/interest",
            "bank/rates",
            "bank/transfer",
            "bank/transfer-check",
            "mail/reminder",
        ]

    def test_function(self) -> None:
        """The function counts with input and context."""
        assert process_row("bank", "fees", {"amount": 200}, context={"percent": 2}).result == {"fee": 4.0}

    def test_class(self) -> None:
        """The class does, too."""
        assert process_row("bank", "interest", {"balance": 100}, context={"rate": 2}).result == {"interest": 200}

    def test_coroutine(self) -> None:
        """The coroutine is run to its end."""
        assert process_row("bank", "rates", {}).result == {"rate": 1.5}

    def test_success_and_failures(self) -> None:
        """The check succeeds, fails by exception and by result, as the page says."""
        good = process_row("bank", "transfer-check", {"amount": 1, "debtor": "a", "creditor": "b"})
        assert (good.result, good.output_lines) == ({"checked": True}, {"good.csv": "1,1"})
        (message,) = process_row("bank", "transfer-check", {"amount": 0}).messages
        assert (message.errcode, message.field, message.vals) == ("not_positive", "amount", ("0",))
        missing = process_row("bank", "transfer-check", {"amount": 1}, line=9)
        assert [message.field for message in missing.messages] == ["debtor", "creditor"]
        assert missing.output_lines == {"rejected.csv": "9,1"}

    def test_key(self) -> None:
        """The payment is asked for under the row's key."""
        assert process_row("bank", "transfer", {"amount": 1}).result == {}


class RetriesTests:
    @pytest.fixture(autouse=True)
    def page(self) -> None:
        run("how-to/retries-and-limits.md")

    def test_later(self) -> None:
        """The row that has no rate is put off, not failed."""
        assert process_row("bank", "exchange", {"currency": "EUR"}).result == {"rate": "1.00"}
        assert process_row("bank", "exchange", {"currency": "USD"}).status is Status.QUEUED

    def test_which_exceptions(self) -> None:
        """A lost connection puts the row off."""
        assert process_row("bank", "notify", {"host": "down.example.com"}).status is Status.QUEUED
        assert process_row("bank", "notify", {"host": "example.com"}).status is Status.SUCCESS

    def test_has_the_limits_that_it_shows(self) -> None:
        """The options are accepted, and are those of the page."""
        options = {entry.op: entry.options for entry in registry}
        assert (options["exchange"].max_attempts, options["score"].time_limit) == (5, 30)
        assert process_row("bank", "score", {"name": "Ada"}).result == {"score": 3}


@pytest.mark.django_db(transaction=True)
class ExactlyOnceTests:
    @pytest.fixture(autouse=True)
    def page(self) -> None:
        run("how-to/exactly-once.md")
        Account.objects.create(number="BANK", holder="the bank", kind=Account.Kind.BANK)

    def test_the_fee_is_collected_or_not(self) -> None:
        """Who can pay pays once; who cannot fails, and nothing is changed."""
        Account.objects.create(number="1", holder="Ada", cents=700)
        batch_id = batches.submit("bank", "collect-fee", [{"account": "1"}, {"account": "1"}])
        drain()
        assert sorted(row.status for row in batches.iter_rows(batch_id)) == [Status.FAILED, Status.SUCCESS]
        assert dict(Account.objects.values_list("number", "cents")) == {"1": 200, "BANK": 500}

    @pytest.mark.parametrize("options", [{"concurrency": 2}, {"is_async": True}])
    def test_refuses_what_it_says(self, options: dict[str, Any]) -> None:
        """Neither threads nor coroutines may be atomic."""

        async def process(row: Row) -> None:
            """Succeed."""

        processor = process if options.pop("is_async", False) else (lambda row: None)
        with pytest.raises(InvalidInput):
            register_batch_processor("bank", "refused", processor, atomic=True, **options)


@pytest.mark.django_db
@pytest.mark.usefixtures("folder")
class ControlTotalsTests:
    @pytest.fixture(autouse=True)
    def page(self) -> None:
        run("how-to/control-totals.md")

    def receive(self, file: str) -> Receipt:
        return intake.process(file=file, file_name="salaries.csv", file_type="salaries")

    def test_what_is_missing_keeps_the_batch_waiting(self) -> None:
        """The mismatch is worded as the page shows it."""
        receipt = self.receive("salary,1001,1200.00\nsalary,1002,\ntrailer,1,1250.00\n")
        assert receipt.totals_mismatch == "amount: 1250.00 declared, 1200.00 received; faulty lines: 1"
        assert batches.status(receipt.batch_id).status is Status.WAIT

    def test_a_file_without_its_trailer_is_rejected(self) -> None:
        """Its rest may be on the way, or lost."""
        assert self.receive("salary,1001,1200.00\n").reason == "The trailer is missing."


@pytest.mark.django_db
@pytest.mark.usefixtures("folder")
class ReturnFilesTests:
    def test_a_line_is_settled_once_it_has_come_back_right(self) -> None:
        """The page sends back what failed, takes it corrected, and asks what became of it."""
        page = run("how-to/return-files.md")
        sent: list[bytes] = []
        mail = SimpleNamespace(attach=lambda name, content, content_type: sent.append(content))
        register_batch_processor("bank", "transfer", lambda row: int(row.input["amount"]))
        register_file_checker(
            "payments", lambda file, file_name, context: intake.read_csv(file), app="bank", op="transfer"
        )
        receipt = intake.process(file="amount\nx\n", file_name="TXN1.csv", file_type="payments")
        drain(raise_errors=False)
        page["send_back"](receipt.batch_id, mail)
        assert not page["is_settled"](receipt.batch_id, 2)
        page["receive_corrected"](ContentFile(sent[0].replace(b"x,2", b"7,2"), name="TXN1.csv"), receipt.batch_id)
        drain()
        assert page["is_settled"](receipt.batch_id, 2)


@pytest.mark.slow
class TestingTests:
    def test_the_tests_of_the_page_pass(self, tmp_path: Path) -> None:
        """The tests that the page shows are run as a project would run them, on SQLite, and all pass."""
        module = tmp_path / "test_page.py"
        module.write_text("\n\n".join(block.text for block in python("how-to/test-your-processors.md")))
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-o", "python_files=test_page.py", f"{module}"]
        done = subprocess.run(
            [*command, "--rootdir", f"{tmp_path}", "-c", os.devnull, "-p", "no:randomly", "-p", "no:cacheprovider"],
            cwd=pages.ROOT,
            env={**os.environ, "ALYA_TEST_DATABASE": "sqlite", "DJANGO_SETTINGS_MODULE": "tests.settings"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "8 passed" in done.stdout

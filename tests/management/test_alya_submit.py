from __future__ import annotations

import json
import sys
from uuid import UUID, uuid4

import pytest

from alya_django import Receipt, Status, batches
from alya_django.management.commands import alya_submit
from alya_django.models import Batch, BatchFile
from tests.intake.files import CONTENT, a_batch_that_failed, register
from tests.management.operators import run
from tests.management.test_terminal import Terminal

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry", "storage")]

GOOD = b"debtor,amount\nann,1.00\n"


@pytest.fixture
def path(tmp_path):
    """A file with one faulty line, and a checker."""
    register()
    path = tmp_path / "TXN1.csv"
    path.write_bytes(CONTENT)
    return path


class AlyaSubmitTests:
    @pytest.mark.rule("OPS-6")
    def test_makes_a_batch_and_ends_with_0(self, path) -> None:
        """Where every line became a row."""
        path.write_bytes(GOOD)
        ending = run("alya_submit", str(path), "--type", "txn", "--context", '{"sender": "ann"}')
        record = BatchFile.objects.get()
        assert ending == (0, f"batch {record.batch_id}: 1 rows\n", "")
        assert (record.file_name, record.batch.context) == ("TXN1.csv", {"sender": "ann"})
        assert record.batch.requested_by == "alya_submit"
        assert path.exists()

    @pytest.mark.rule("OPS-6")
    def test_names_the_faulty_lines_and_ends_with_5(self, path) -> None:
        """There is a batch of the others; who goes on regardless should know."""
        ending = run("alya_submit", str(path), "--type", "txn")
        record = BatchFile.objects.get()
        assert ending.out.splitlines() == [
            "line 3: 'x' is no amount",
            f"all faulty lines: {record.error_object_id}",
            f"batch {record.batch_id}: 2 rows",
        ]
        assert (ending.code, ending.complaint) == (5, "Faulty lines, not in the batch: 1.")

    @pytest.mark.rule("OPS-6")
    def test_names_the_first_of_many(self, path, monkeypatch) -> None:
        """How many more there are is said."""
        monkeypatch.setattr(alya_submit, "FAULTS_SHOWN", 1)
        path.write_bytes(CONTENT + b"bob,y\nbob,z\n")
        assert run("alya_submit", str(path), "--type", "txn").out.splitlines()[:2] == [
            "line 3: 'x' is no amount",
            "and 2 more faulty lines",
        ]

    @pytest.mark.rule("OPS-6")
    def test_ends_with_4_where_the_file_is_rejected(self, path) -> None:
        """No batch; a file that was accepted before can be taken knowingly."""
        path.write_bytes(GOOD)
        run("alya_submit", str(path), "--type", "txn")
        ending = run("alya_submit", str(path), "--type", "txn")
        assert (ending.code, ending.out) == (4, "")
        assert ending.complaint.startswith(f"{path} was rejected: The same content was accepted before: TXN1.csv")
        assert Batch.objects.count() == 1
        assert run("alya_submit", str(path), "--type", "txn", "--allow-duplicate").code == 0

    @pytest.mark.rule("OPS-6")
    def test_tells_of_declared_totals_that_do_not_agree(self, path, monkeypatch) -> None:
        """The batch waits for somebody to decide."""
        receipt = Receipt(file_id=1, batch_id=uuid4(), accepted=True, nrows=3, totals_mismatch="2 rows, not 3.")
        monkeypatch.setattr(alya_submit, "process", lambda **options: receipt)
        ending = run("alya_submit", str(path), "--type", "txn")
        assert (ending.code, ending.complaint) == (5, "The batch waits: 2 rows, not 3.")

    @pytest.mark.rule("OPS-3", "OPS-6")
    def test_prints_json(self, path) -> None:
        """The receipt, and the first faults."""
        (told,) = run("alya_submit", str(path), "--type", "txn", "--json").objects
        record = BatchFile.objects.get()
        assert told["batch_id"] == str(record.batch_id)
        assert told["faults"] == [{"line": 3, "reason": "'x' is no amount"}]
        assert told["accepted"] is True
        (told,) = run("alya_submit", str(path), "--type", "txn", "--json").objects
        assert (told["accepted"], told["batch_id"]) == (False, None)

    @pytest.mark.rule("OPS-6")
    def test_can_keep_the_batch_back(self, path) -> None:
        """Until it is released."""
        (told,) = run("alya_submit", str(path), "--type", "txn", "--wait", "--json").objects
        assert batches.status(told["batch_id"]).status is Status.WAIT

    @pytest.mark.rule("OPS-6", "FXR-27")
    def test_makes_a_child_of_a_batch(self, path, tmp_path) -> None:
        """Of what was corrected of its failed rows; a batch that has not ended is refused, and nothing is stored."""
        parent = a_batch_that_failed()
        corrected = tmp_path / "corrected.csv"
        corrected.write_bytes(b"debtor,amount,alya_line,alya_reason\nbob,2.00,4,\n")
        arguments = [str(corrected), "--type", "txn", "--parent"]
        (told,) = run("alya_submit", *arguments, str(parent)[:13], "--json").objects
        summary = batches.status(told["batch_id"])
        assert (summary.parent, summary.nrows) == (parent, 1)
        assert batches.line(parent, 4).sequels[UUID(told["batch_id"])].status is Status.QUEUED
        assert run("alya_submit", *arguments, told["batch_id"])[::2] == (
            4,
            f"The batch {told['batch_id']} has not ended: its status is queued.",
        )
        assert run("alya_submit", *arguments, "abcdef01")[::2] == (3, "There is no batch and no slow query abcdef01.")

    @pytest.mark.rule("OPS-6")
    def test_names_what_is_not_there(self, path, tmp_path) -> None:
        """A file, a type; and what is no file."""
        assert run("alya_submit", f"{path}x", "--type", "txn")[::2] == (3, f"There is no file {path}x.")
        assert run("alya_submit", str(path), "--type", "tnx")[::2] == (
            3,
            "There is no checker for the file type 'tnx'.",
        )
        assert run("alya_submit", str(tmp_path), "--type", "txn")[::2] == (2, f"file: {tmp_path}: Is a directory.")


class ProgressTests:
    def test_shows_how_far_it_has_come(self, path, monkeypatch) -> None:
        """On a terminal; with --json there is nothing else."""
        monkeypatch.setenv("TERM", "xterm")
        for module in (None, "rich.console"):
            path.write_bytes(GOOD + f"bob,{1 if module else 2}.00\n".encode())
            monkeypatch.setattr(sys, "stdout", Terminal())
            if module:
                monkeypatch.setitem(sys.modules, module, None)
            assert run("alya_submit", str(path), "--type", "txn").code == 0
            assert "100.0%  storing" in sys.stdout.getvalue()
            assert "100.0%  checking" in sys.stdout.getvalue()
        monkeypatch.setattr(sys, "stdout", Terminal())
        assert json.loads(run("alya_submit", str(path), "--type", "txn", "--json").out)["accepted"] is False
        assert sys.stdout.getvalue() == ""

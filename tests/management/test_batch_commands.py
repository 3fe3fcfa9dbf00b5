"""What all commands on one batch do alike."""

from __future__ import annotations

import sqlite3
from unittest.mock import Mock
from uuid import UUID, uuid4

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError

from alya_django import batches, register_batch_processor, slow_queries
from alya_django.management.batch_commands import OperatorCommand, find
from alya_django.management.commands import alya_status
from alya_django.models import Batch
from alya_django.status import Kind, Status
from alya_django.testing import drain
from tests.management.operators import run
from tests.processors import echo, fail_odd

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry")]

COMMANDS = ["alya_status", "alya_abort", "alya_release", "alya_retry", "alya_return_file"]


def a_batch(first_digits: str) -> Batch:
    batch_id = UUID(first_digits + uuid4().hex[len(first_digits) :])
    return Batch.objects.create(id=batch_id, app="app", op="op", kind=Kind.BATCH, status=Status.WAIT, nrows=1)


class FindTests:
    @pytest.mark.rule("OPS-1")
    def test_takes_the_first_digits(self) -> None:
        """As many as tell the batch from all others, with or without dashes, in either case."""
        batch = a_batch("abcd0")
        a_batch("abcd1")
        assert find("abcd0") == find("ABCD-0") == find(str(batch.id)) == find(batch.id.hex) == batch

    @pytest.mark.rule("OPS-1")
    @pytest.mark.parametrize("digits", ["0000", "ffff"])
    def test_finds_at_both_ends(self, digits) -> None:
        """The first and the last of all ids are found, too."""
        batch = a_batch(digits * 8)
        assert find(digits) == batch

    @pytest.mark.rule("OPS-1")
    def test_finds_slow_queries(self) -> None:
        """Who has an id need not know of which kind it is."""
        query_id = slow_queries.submit("app", "op", 1)
        assert find(str(query_id)[:13]).id == query_id


class OperatorCommandTests:
    @pytest.mark.rule("OPS-2")
    @pytest.mark.parametrize("name", COMMANDS)
    def test_ends_with_3_where_there_is_no_such_batch(self, name) -> None:
        """The id is named."""
        ending = run(name, "abcdef01")
        assert ending == (3, "", "There is no batch and no slow query abcdef01.")

    @pytest.mark.rule("OPS-2", "OPS-3")
    def test_ends_with_1_where_something_is_away(self, monkeypatch) -> None:
        """In one line, and in JSON, with its place; for a traceback there is an option."""
        away = OperationalError("connection failed:\n\tis the server running?")
        away.__cause__ = sqlite3.OperationalError()
        away.__cause__.sqlite_errorname = "SQLITE_CANTOPEN"
        told = {
            away: "OperationalError from OperationalError (SQLITE_CANTOPEN) at ",
            PermissionError(13, "Permission denied"): "PermissionError (EACCES) at ",
            KeyError("x"): "KeyError at ",
        }
        for error, text in told.items():
            monkeypatch.setattr(alya_status, "_unfinished_and_latest", Mock(side_effect=error))
            ending = run("alya_status")
            assert (ending.code, ending.out) == (1, "")
            assert ending.complaint.startswith(text)
            (printed,) = run("alya_status", "--json").objects
            assert printed["error"].startswith(text)

    @pytest.mark.rule("OPS-1", "OPS-2")
    @pytest.mark.parametrize("name", COMMANDS)
    def test_ends_with_2_where_no_batch_is_meant(self, name) -> None:
        """An id that is none, and one that several begin with."""
        a_batch("abcd0")
        a_batch("abcd1")
        assert run(name, "xyz").code == 2
        assert run(name, "abcd") == (2, "", "id: 'abcd' is the beginning of several ids.")

    @pytest.mark.rule("OPS-3")
    @pytest.mark.parametrize("name", COMMANDS)
    def test_tells_also_errors_as_json(self, name) -> None:
        """A program that asked for JSON gets it, and the code."""
        ending = run(name, "abcdef01", "--json")
        assert ending.code == 3
        assert ending.objects == [{"error": "There is no batch and no slow query abcdef01."}]

    @pytest.mark.rule("OPS-3")
    def test_tells_all_of_a_batch_as_json(self) -> None:
        """States as they are stored, times in ISO 8601, what is not there as null."""
        register_batch_processor("app", "op", fail_odd)
        batch_id = batches.submit("app", "op", [1, 2], input_file="in.csv", requested_by="eve")
        (waiting,) = run("alya_status", str(batch_id), "--json").objects
        drain()
        (ended,) = run("alya_status", str(batch_id), "--json").objects
        batch = Batch.objects.get()
        assert (waiting["status"], waiting["started_at"], waiting["done_at"]) == ("queued", None, None)
        assert ended == {
            "id": str(batch_id),
            "app": "app",
            "op": "op",
            "kind": "batch",
            "status": "failed",
            "held": False,
            "hold_reason": "",
            "totals_mismatch": "",
            "nrows": 2,
            "nsuccess": 1,
            "nfailed": 1,
            "naborted": 0,
            "nput_off": 0,
            "requested_at": batch.requested_at.isoformat(),
            "started_at": batch.started_at.isoformat(),
            "done_at": batch.done_at.isoformat(),
            "requested_by": "eve",
            "input_file": "in.csv",
            "output_files": {},
            "parent": None,
            "lacks": None,
        }

    def test_must_be_for_something(self) -> None:
        """A command that does nothing is none."""
        with pytest.raises(TypeError, match=r"abstract method '?act'?"):
            OperatorCommand()


class AlyaAbortTests:
    @pytest.mark.rule("OPS-2")
    def test_stops_a_batch(self) -> None:
        """It says how many rows had not ended."""
        batch_id = batches.submit("app", "op", range(1_234))
        assert run("alya_abort", str(batch_id)[:8]) == (
            0,
            f"{batch_id}: aborted, with 1,234 rows that had not ended.\n",
            "",
        )
        assert batches.status(batch_id).status is Status.ABORTED

    def test_stops_a_slow_query(self) -> None:
        """By the same command."""
        query_id = slow_queries.submit("app", "op", 1)
        (query,) = run("alya_abort", str(query_id), "--json").objects
        assert (query["kind"], query["status"], query["naborted"]) == ("slow-query", "aborted", 1)

    @pytest.mark.rule("OPS-2", "OPS-3")
    def test_comes_too_late_for_what_has_ended(self) -> None:
        """It ends with 4, and nothing is changed."""
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", [1])
        drain()
        message = f"The batch {batch_id} has ended already."
        assert run("alya_abort", str(batch_id)) == (4, "", message)
        assert run("alya_abort", str(batch_id), "--json").objects == [{"error": message}]
        assert batches.status(batch_id).status is Status.SUCCESS


class AlyaReleaseTests:
    @pytest.mark.rule("OPS-2")
    def test_lets_a_waiting_batch_go(self) -> None:
        """It says how many rows that is."""
        batch_id = batches.submit("app", "op", [1, 2], wait=True)
        assert run("alya_release", str(batch_id)) == (0, f"{batch_id}: released, with 2 rows.\n", "")
        assert batches.status(batch_id).status is Status.QUEUED
        assert run("alya_release", str(batch_id), "--json").objects[0]["status"] == "queued"

    @pytest.mark.rule("OPS-2")
    def test_refuses_what_is_not_waiting(self) -> None:
        """Also a slow query, which never does."""
        query_id = slow_queries.submit("app", "op", 1)
        assert run("alya_release", str(query_id)) == (4, "", f"{query_id} is a slow query.")


class AlyaRetryTests:
    @pytest.fixture
    def failed(self) -> UUID:
        """A batch of four rows of which lines 1 and 3 have failed."""
        register_batch_processor("app", "op", fail_odd)
        batch_id = batches.submit("app", "op", range(4))
        drain()
        return batch_id

    @pytest.mark.rule("OPS-2")
    def test_prints_the_id_of_the_child(self, failed) -> None:
        """A shell can take it from there."""
        ending = run("alya_retry", str(failed))
        (child_id,) = batches.children(failed)
        assert ending == (0, f"{child_id}\n", "")
        assert [row.line for row in batches.iter_rows(child_id)] == [1, 3]

    def test_takes_the_lines_it_is_told_and_may_keep_them_back(self, failed) -> None:
        """A child of one row that waits."""
        (child,) = run("alya_retry", str(failed), "--lines", "3", "--wait", "--json").objects
        assert (child["parent"], child["status"], child["nrows"]) == (str(failed), "wait", 1)

    @pytest.mark.rule("OPS-2")
    def test_refuses_what_cannot_be_retried(self, failed) -> None:
        """A line that has not failed is an argument at fault; a batch without failed rows refuses."""
        assert run("alya_retry", str(failed), "--lines", "2-3") == (2, "", "line 2: there is no such row to retry.")
        run("alya_retry", str(failed))
        assert run("alya_retry", str(failed)) == (
            4,
            "",
            f"The batch {failed} has no row to retry: its status is failed.",
        )

    def test_names_what_is_no_line(self) -> None:
        """By the parser of the command line."""
        with pytest.raises(CommandError, match=r"argument --lines: 'x' is neither a line nor a range of lines\.$"):
            call_command("alya_retry", "abcd", "--lines", "x")

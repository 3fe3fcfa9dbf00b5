from __future__ import annotations

import sys
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db.models.functions import Now

from alya_django import batches, outputs, register_batch_processor
from alya_django.models import Batch
from alya_django.testing import drain
from tests.local_storage import files_in
from tests.management.operators import run
from tests.management.test_terminal import Terminal
from tests.processors import write_lines

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry")]


@pytest.fixture(autouse=True)
def old(registry, folder) -> None:
    """A batch that ended long ago, with a file, and one as old that waits."""
    register_batch_processor("bank", "write", write_lines)
    batches.submit("bank", "write", [{"a.csv": "x"}] * 1_200)
    drain()
    batches.submit("bank", "write", [1], wait=True)
    long_ago = Now() - timedelta(days=100)
    Batch.objects.update(requested_at=long_ago)
    Batch.objects.filter(done_at__isnull=False).update(done_at=long_ago)


class AlyaPruneTests:
    @pytest.mark.rule("PRN-1")
    def test_says_what_it_has_deleted(self, folder) -> None:
        """And what is as old and waits for somebody to look."""
        assert run("alya_prune", "--older-than", "90d") == (
            0,
            "Deleted: batches 1, rows 1,200, files 1. As old, but waiting to be released: batches 1.\n",
            "",
        )
        assert files_in(folder) == set()

    @pytest.mark.rule("PRN-8")
    def test_may_only_tell(self, folder) -> None:
        """A dry run changes nothing, and says what a run would delete."""
        told = {
            "batches": 1,
            "rows": 1_200,
            "files": 1,
            "kept": 0,
            "failure": "",
            "waiting": 1,
            "keys": 0,
            "dry_run": True,
        }
        assert run("alya_prune", "--older-than", "12w", "--dry-run", "--json").objects == [told]
        assert run("alya_prune", "--older-than", "90d", "--dry-run", "--keep-files").out.startswith(
            "Would be deleted: batches 1, rows 1,200, files 0."
        )
        assert Batch.objects.count() == 2

    def test_is_narrowed(self) -> None:
        """By age, app and op."""
        for narrowed in (["--older-than", "101d"], ["--older-than", "90d", "--app", "other"]):
            assert run("alya_prune", *narrowed, "--json").objects[0]["batches"] == 0
        assert run("alya_prune", "--older-than", "90d", "--op", "write", "--json").objects[0]["batches"] == 1

    @pytest.mark.rule("PRN-6")
    def test_ends_with_1_where_the_storage_fails(self, monkeypatch) -> None:
        """It has said what it did; the next run does the rest."""

        def fail(names):
            raise PermissionError("no deleting here")

        with monkeypatch.context() as patched:
            patched.setattr(outputs, "remove", fail)
            ending = run("alya_prune", "--older-than", "90d", "--json")
        assert ending.code == 1
        assert ending.complaint.startswith(
            f"The storage failed; records kept for the next time: 1. PermissionError at {__name__}:"
        )
        assert (ending.objects[0]["rows"], ending.objects[0]["kept"]) == (1_200, 1)
        assert run("alya_prune", "--older-than", "90d").code == 0

    def test_shows_how_far_it_is_on_a_terminal(self, monkeypatch) -> None:
        """The line moves."""
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stdout", Terminal())
        run("alya_prune", "--older-than", "90d", "--keep-files")
        assert "batches 0, rows 1,200, files 0" in sys.stdout.getvalue()

    @pytest.mark.parametrize(
        ("arguments", "fault"),
        [
            ([], "the following arguments are required: --older-than"),
            (["--older-than", "90"], "argument --older-than: '90' is no age: it is a whole number and h, d or w"),
            (["--older-than", "-1d"], "argument --older-than: "),
            (["--older-than", "9999999999w"], "argument --older-than: '9999999999w' is longer than there are days."),
        ],
    )
    def test_names_what_is_wrong(self, arguments, fault) -> None:
        """Without an age nothing is deleted."""
        with pytest.raises(CommandError, match=fault):
            call_command("alya_prune", *arguments)
        assert Batch.objects.count() == 2

    @pytest.mark.rule("OPS-2")
    def test_ends_with_2_for_a_name_that_is_none(self) -> None:
        """As the other commands do."""
        assert run("alya_prune", "--older-than", "90d", "--app", "a b").code == 2

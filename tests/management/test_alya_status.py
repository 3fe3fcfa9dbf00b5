from __future__ import annotations

import sys
from uuid import uuid4

import pytest
from django.db.models.functions import Now

from alya_django import batches, register_batch_processor, slow_queries
from alya_django.management.commands import alya_status
from alya_django.models import Batch, BatchProgress
from alya_django.status import Kind, Status
from alya_django.testing import drain
from tests.management.operators import run
from tests.management.test_terminal import Terminal
from tests.processors import echo, fail_odd

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry")]


def on_rest(monkeypatch, *acts) -> None:
    """Let something happen each time the command rests; after the last it is interrupted."""
    left = list(acts)

    def rest(seconds: float) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop(0)()

    monkeypatch.setattr(alya_status, "sleep", rest)


def progress_of(batch_id, nsuccess: int) -> None:
    BatchProgress.objects.create(batch_id=batch_id, slot=nsuccess % 16, nsuccess=nsuccess)


class AlyaStatusTests:
    def test_tells_all_of_a_batch(self) -> None:
        """What a person asks, in lines; what there is not is left out."""
        register_batch_processor("app", "op", fail_odd)
        batch_id = batches.submit("app", "op", range(4), input_file="in.csv", requested_by="eve")
        drain()
        child_id = batches.retry(batch_id)
        ended, unfinished = run("alya_status", str(batch_id)), run("alya_status", str(child_id))
        assert ended.out.splitlines()[:3] == [
            f"batch         {batch_id}  app/op",
            "status        failed",
            "rows          4, 2 success, 2 failed, 0 aborted, 0 to go",
        ]
        assert [line.split("  ")[0] for line in ended.out.splitlines()[3:]] == [
            "requested",
            "input file",
            "started",
            "done",
        ]
        assert " by eve\n" in ended.out
        assert f"parent        {batch_id}\n" in unfinished.out
        assert "done" not in unfinished.out

    @pytest.mark.rule("OPS-2")
    def test_ends_with_a_code_that_says_how_it_stands(self) -> None:
        """0 is a success alone: 5 has ended otherwise, and 6 has not ended."""
        register_batch_processor("app", "op", fail_odd)
        good, bad = batches.submit("app", "op", [{}]), batches.submit("app", "op", [1, 2])
        Batch.objects.filter(pk=good).update(op="other")
        register_batch_processor("app", "other", echo)
        assert run("alya_status", str(good))[::2] == (6, "The batch is queued.")
        drain()
        query_id = slow_queries.submit("app", "op", 1)
        slow_queries.abort(query_id)
        assert run("alya_status", str(good))[::2] == (0, "")
        assert run("alya_status", str(bad))[::2] == (5, "The batch is failed.")
        assert run("alya_status", str(query_id))[::2] == (5, "The slow query is aborted.")

    def test_tells_why_a_batch_is_held(self) -> None:
        """The state is held, and the reason stands beside it."""
        batch_id = batches.submit("app", "op", [1])
        Batch.objects.update(status=Status.IN_PROGRESS, held_at=Now(), hold_reason="3 rows have failed")
        assert "status        held: 3 rows have failed\n" in run("alya_status", str(batch_id)).out
        (told,) = run("alya_status", str(batch_id), "--json").objects
        assert (told["held"], told["hold_reason"]) == (True, "3 rows have failed")

    @pytest.mark.rule("FXR-19")
    def test_tells_where_totals_do_not_agree(self) -> None:
        """Whoever asks why a batch waits is told."""
        batch_id = batches.submit("app", "op", [1], wait=True)
        Batch.objects.update(totals_mismatch="2 rows declared, 1 received")
        assert "totals        2 rows declared, 1 received\n" in run("alya_status", str(batch_id)).out

    @pytest.mark.rule("OPS-5")
    def test_watches_until_the_end(self, monkeypatch) -> None:
        """A line for each change, and at the end all of it."""
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", range(2))
        on_rest(monkeypatch, lambda: None, lambda: progress_of(batch_id, 1), lambda: (unprogress(), drain()))

        def unprogress() -> None:
            BatchProgress.objects.all().delete()

        ending = run("alya_status", str(batch_id), "--watch")
        assert ending.code == 0
        assert ending.out.splitlines()[:4] == [
            f"[{' ' * 30}]   0.0%  queued  0 of 2 rows, 0 failed",
            f"[{'#' * 15}{' ' * 15}]  50.0%  queued  1 of 2 rows, 0 failed",
            f"[{'#' * 30}] 100.0%  success  2 of 2 rows, 0 failed",
            f"batch         {batch_id}  app/op",
        ]

    @pytest.mark.rule("OPS-3", "OPS-5")
    def test_watches_for_programs(self, monkeypatch) -> None:
        """An object for each change, the last being the end."""
        register_batch_processor("app", "op", fail_odd)
        batch_id = batches.submit("app", "op", range(2))
        on_rest(monkeypatch, lambda: None, drain)
        ending = run("alya_status", str(batch_id), "--watch", "--json")
        assert ending.code == 5
        assert [told["status"] for told in ending.objects] == ["queued", "failed"]

    @pytest.mark.rule("OPS-5")
    def test_stops_watching_when_interrupted(self, monkeypatch) -> None:
        """It ends as if it had not watched."""
        batch_id = batches.submit("app", "op", [1])
        on_rest(monkeypatch)
        ending = run("alya_status", str(batch_id), "--watch")
        assert (ending.code, ending.complaint) == (6, "The batch is queued.")

    @pytest.mark.rule("OPS-5")
    def test_moves_on_a_terminal(self, monkeypatch) -> None:
        """Where rich is installed the line changes in its place; what stays is the end."""
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stdout", Terminal())
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", [1])
        on_rest(monkeypatch, drain)
        ending = run("alya_status", str(batch_id), "--watch")
        assert ending.out.startswith(f"batch         {batch_id}")
        assert "0 of 1 rows" in sys.stdout.getvalue()
        assert "1 of 1 rows" in sys.stdout.getvalue()


class ListTests:
    @pytest.mark.rule("OPS-4")
    def test_has_what_is_unfinished_and_then_the_latest(self) -> None:
        """Both kinds, each latest first, so many at most."""
        register_batch_processor("app", "op", echo)
        register_batch_processor("app", "late", echo)
        old = batches.submit("app", "late", [1])
        done = [batches.submit("app", "op", [1]) for _ in range(3)]
        drain(op="op")
        waiting = batches.submit("app", "op", [1], wait=True)
        query = slow_queries.submit("app", "op", 1)
        for second, batch_id in enumerate([old, *done, waiting, query]):
            Batch.objects.filter(pk=batch_id).update(requested_at=f"2026-01-01T00:00:{second:02}Z")
        ending = run("alya_status", "--json", "--limit", "5")
        (told,) = ending.objects
        assert [one["id"] for one in told["batches"]] == [str(one) for one in (query, old, waiting, *done[:0:-1])]
        assert ending.code == 0

    @pytest.mark.rule("OPS-4")
    def test_has_a_line_for_each(self) -> None:
        """The beginning of the id, when, how far, how many rows, of what."""
        batch_id = batches.submit("app", "op", range(1_200))
        progress_of(batch_id, 300)
        line = run("alya_status").out.rstrip()
        assert line.startswith(str(batch_id)[:8])
        assert line.endswith("queued        25%      1,200  app/op")

    def test_is_narrowed_to_an_app_and_op(self) -> None:
        """In any case of letters; a name that cannot be one is an error of the command line."""
        batches.submit("app", "op", [1])
        batches.submit("app", "other", [1])
        batches.submit("bank", "op", [1])
        (told,) = run("alya_status", "--json", "--app", "APP", "--op", "op").objects
        assert [(one["app"], one["op"]) for one in told["batches"]] == [("app", "op")]
        assert run("alya_status", "--app", "a b").code == 2

    def test_may_be_empty(self) -> None:
        """That is said."""
        assert run("alya_status") == (0, "Nothing.\n", "")
        assert run("alya_status", "--json").objects == [{"batches": []}]

    @pytest.mark.rule("OPS-4")
    def test_asks_as_much_of_many_as_of_few(self, django_assert_num_queries) -> None:
        """Two statements for batches, one each for their progress."""
        for _ in range(4):
            batches.submit("app", "op", [1])
            Batch.objects.create(
                **{"app": "app", "op": "op", "kind": Kind.BATCH, "status": Status.SUCCESS, "nrows": 1},
                **{"id": uuid4(), "done_at": Now(), "nsuccess": 1, "nfailed": 0, "naborted": 0},
            )
        with django_assert_num_queries(4):
            run("alya_status")

    @pytest.mark.rule("OPS-5")
    def test_can_be_watched(self, monkeypatch) -> None:
        """Until nobody wants to see more; what has not changed is not told again."""
        on_rest(monkeypatch, lambda: None, lambda: batches.submit("app", "op", [1]))
        ending = run("alya_status", "--watch")
        assert ending.code == 0
        assert len(ending.out.splitlines()) == 2

from __future__ import annotations

import sys
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db.models.functions import Now

from alya_django import batches, register_batch_processor, register_slow_query_processor, slow_queries
from alya_django.management.commands import alya_status
from alya_django.management.terminal import bar
from alya_django.models import Batch, BatchProgress, Worker
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

    @pytest.mark.rule("LAT-6")
    def test_tells_how_many_rows_were_put_off(self, monkeypatch) -> None:
        """In the text, in the line of progress, and for programs."""
        batch_id = batches.submit("app", "op", range(4))
        BatchProgress.objects.create(batch_id=batch_id, slot=1, nsuccess=1, nput_off=2)
        shown = run("alya_status", str(batch_id))
        assert "rows          4, 1 success, 0 failed, 0 aborted, 3 to go, 2 of them put off" in shown.out.splitlines()
        assert run("alya_status", str(batch_id), "--json").objects[0]["nput_off"] == 2
        on_rest(monkeypatch)
        assert "1 of 4 rows, 0 failed, 2 put off" in run("alya_status", str(batch_id), "--watch").out

    @pytest.mark.rule("OPS-2")
    def test_ends_with_a_code_that_says_how_it_stands(self) -> None:
        """0 is a success alone: 5 has ended otherwise, and 6 has not ended; none is an error to complain of."""
        register_batch_processor("app", "op", fail_odd)
        good, bad = batches.submit("app", "op", [{}]), batches.submit("app", "op", [1, 2])
        Batch.objects.filter(pk=good).update(op="other")
        register_batch_processor("app", "other", echo)
        held_back = batches.submit("app", "op", [1], wait=True)
        assert run("alya_status", str(good))[::2] == (6, "")
        assert run("alya_status", str(held_back))[::2] == (6, "")
        drain()
        query_id = slow_queries.submit("app", "op", 1)
        slow_queries.abort(query_id)
        assert run("alya_status", str(good))[::2] == (0, "")
        assert run("alya_status", str(bad))[::2] == (5, "")
        assert run("alya_status", str(query_id))[::2] == (5, "")

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
            f"[{' ' * 30}]   0.0%  queued  0 of 2 rows, 0 failed  no worker",
            f"[{'#' * 15}{' ' * 15}]  50.0%  queued  1 of 2 rows, 0 failed  no worker",
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
        assert (ending.code, ending.complaint) == (6, "")

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


@pytest.mark.rule("OPS-8")
class LacksTests:
    @pytest.fixture
    def told(self):
        """Return what is told of a new batch: in full, in the list, and as JSON."""
        batch_id = str(batches.submit("app", "op", [1]))

        def tell() -> tuple[str, str, str | None]:
            full = run("alya_status", batch_id).out.partition("lacks         ")[2].partition(":")[0]
            line = run("alya_status").out.rstrip().partition("app/op")[2].strip()
            (listed,) = run("alya_status", "--json").objects[0]["batches"]
            (alone,) = run("alya_status", batch_id, "--json").objects
            assert alone == listed
            return full, line, alone["lacks"]

        return tell

    def test_an_op_that_nobody_has_registered(self, told) -> None:
        """The other kind of the same name, and a worker of another op, do not count."""
        register_slow_query_processor("app", "op", echo)
        Worker.objects.create(name="w", host="h", pid=1, ops=[(Kind.SLOW_QUERY, "app", "op"), ("b", "app", "other")])
        assert told() == ("a processor", "no processor", "processor")

    def test_an_op_that_only_needs_a_worker(self, told) -> None:
        """It is registered here, and the worker that served it has fallen silent."""
        register_batch_processor("app", "op", echo)
        Worker.objects.create(name="w", host="h", pid=1, ops=[(Kind.BATCH, "app", "op")])
        Worker.objects.update(heartbeat=Now() - timedelta(seconds=30))
        assert told() == ("a worker", "no worker", "worker")

    def test_an_op_that_workers_of_another_project_serve(self, told) -> None:
        """It need not be registered where somebody looks."""
        Worker.objects.create(name="w", host="h", pid=1, ops=[(Kind.BATCH, "app", "op")])
        assert told() == ("", "", None)

    def test_what_has_ended_lacks_nothing(self, told) -> None:
        """Whoever serves it by now."""
        batches.abort(Batch.objects.get().pk)
        assert told() == ("", "", None)


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
        assert line.endswith("queued        25%      1,200  app/op  no processor")

    @pytest.mark.rule("OPS-4")
    def test_nothing_is_at_100_percent_before_it_has_ended(self) -> None:
        """Shares are rounded down, in the list and where one is watched."""
        batch_id = batches.submit("app", "op", range(2_000))
        progress_of(batch_id, 1_999)
        assert "  99%  " in run("alya_status").out
        assert bar(1_999, 2_000) == f"[{'#' * 29} ]  99.9%"
        assert bar(2_000, 2_000) == f"[{'#' * 30}] 100.0%"

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
        """Two statements for batches, one each for their progress, one for the workers."""
        for _ in range(4):
            batches.submit("app", "op", [1])
            Batch.objects.create(
                **{"app": "app", "op": "op", "kind": Kind.BATCH, "status": Status.SUCCESS, "nrows": 1},
                **{"id": uuid4(), "done_at": Now(), "nsuccess": 1, "nfailed": 0, "naborted": 0},
            )
        with django_assert_num_queries(5):
            run("alya_status")

    @pytest.mark.rule("OPS-5")
    def test_can_be_watched(self, monkeypatch) -> None:
        """Until nobody wants to see more; what has not changed is not told again."""
        on_rest(monkeypatch, lambda: None, lambda: batches.submit("app", "op", [1]))
        ending = run("alya_status", "--watch")
        assert ending.code == 0
        assert len(ending.out.splitlines()) == 2

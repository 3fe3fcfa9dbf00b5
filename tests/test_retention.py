from __future__ import annotations

import logging
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from alya_django import (
    BatchInput,
    FaultyLine,
    InvalidInput,
    NotFound,
    QueryResult,
    RowFailed,
    Status,
    batches,
    intake,
    outputs,
    register_batch_processor,
    register_file_checker,
    register_slow_query_processor,
    retention,
    slow_queries,
    status_cache,
)
from alya_django.models import Batch, BatchErrors, BatchFile, BatchProgress, BatchRow, BusinessKey
from alya_django.retention import Pruned, count_prunable, prune
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.local_storage import files_in, use_storage
from tests.processors import echo, fail_odd, write_lines

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sqlite, pytest.mark.usefixtures("registry")]

AGE = timedelta(days=90)
LONG_AGO = Now() - timedelta(days=100)


class BrokenStorage(FileSystemStorage):
    """A storage that deletes nothing whose name has a word in it."""

    word = "late"
    asked = 0

    def delete(self, name: str) -> None:
        type(self).asked += 1
        if self.word in name:
            raise PermissionError(f"{name} is not to be deleted")
        super().delete(name)


def no_rest(seconds: float) -> None:
    """Prune without resting."""


def pruned(**options) -> Pruned:
    return prune(AGE, rest=no_rest, **options)


def age(*ids: UUID) -> None:
    """Let all batches, or some, have ended long ago."""
    chosen = Batch.objects.filter(pk__in=ids) if ids else Batch.objects.all()
    chosen.update(requested_at=LONG_AGO)
    chosen.filter(done_at__isnull=False).update(done_at=LONG_AGO)


def a_batch(rows: int = 2, op: str = "write", lines: dict | None = None) -> UUID:
    """Return a batch that has ended just now."""
    register_batch_processor("bank", op, write_lines)
    batch_id = batches.submit("bank", op, [lines or {"a.csv": "x", "late.csv": "y"}] * rows)
    drain()
    return batch_id


def nothing_is_left() -> bool:
    tables = (Batch, BatchRow, BatchProgress, BatchErrors, BatchFile)
    return not any(table.objects.exists() for table in tables)


class PruneTests:
    @pytest.mark.rule("PRN-1")
    def test_deletes_what_ended_long_ago(self, folder) -> None:
        """Batches and slow queries, their rows, progress, error counts and objects; what is young stays."""
        register_slow_query_processor(
            "bank", "ask", lambda row: QueryResult.success(output_files={"r.txt": ContentFile(b"x")})
        )
        register_batch_processor("bank", "fail", fail_odd)
        slow_queries.submit("bank", "ask", 1)
        batches.submit("bank", "fail", range(3))
        a_batch()
        age()
        young = a_batch(op="young")
        assert pruned() == Pruned(batches=3, rows=6, files=3)
        assert Batch.objects.get().id == young
        assert files_in(folder) == set(batches.status(young).output_files.values())
        check_invariants()
        age()
        pruned()
        assert nothing_is_left()
        assert list((folder / "alya").iterdir()) == []

    @pytest.mark.rule("PRN-1")
    @pytest.mark.parametrize(
        "young",
        [
            {"done_at": Now() - timedelta(days=89)},
            {"marked_done_at": None},
            {"finisher": uuid4(), "finisher_until": Now() + timedelta(minutes=1)},
        ],
        ids=["ended since", "not told", "in hand"],
    )
    def test_leaves_what_is_not_over(self, young) -> None:
        """A batch that ended since, whose end was not told, or that somebody is at work on."""
        batch_id = a_batch()
        age()
        Batch.objects.update(**young)
        assert pruned() == Pruned()
        assert len(batches.result(batch_id).rows) == 2

    @pytest.mark.rule("PRN-1")
    def test_never_touches_what_has_not_ended(self) -> None:
        """However old; those that wait to be released are counted, so that somebody looks."""
        for wait in (True, False):
            batches.submit("bank", "op", [1], wait=wait)
        slow_queries.submit("bank", "op", 1)
        age()
        assert pruned() == Pruned(waiting=1)
        assert Batch.objects.count() == 3

    @pytest.mark.rule("PRN-1")
    def test_can_be_narrowed(self) -> None:
        """To an app and an op, in any case of letters; what is no name is an error."""
        kept, gone = a_batch(op="kept"), a_batch(op="gone")
        age()
        assert pruned(app="other") == Pruned()
        assert pruned(app="BANK", op="Gone").batches == 1
        assert [batch.id for batch in Batch.objects.all()] == [kept]
        with pytest.raises(NotFound):
            batches.status(gone)
        with pytest.raises(InvalidInput):
            pruned(app="a b")

    @pytest.mark.rule("PRN-2")
    def test_takes_a_family_as_a_whole(self) -> None:
        """While one of them is young, or runs, all of them stay: a retry asks what has become of the rows."""
        register_batch_processor("bank", "fail", fail_odd)
        parent = batches.submit("bank", "fail", range(4))
        drain()
        child = batches.retry(parent, lines=[1])
        drain()
        grandchild = batches.retry(child, wait=True)
        age(parent, child)
        assert pruned() == Pruned()
        batches.release(grandchild)
        drain()
        assert pruned() == Pruned()
        age()
        assert pruned() == Pruned(batches=3, rows=6)
        assert nothing_is_left()

    @pytest.mark.rule("PRN-3")
    def test_deletes_large_batches_piece_by_piece(self, monkeypatch, django_assert_num_queries) -> None:
        """So many rows in a transaction at most, whatever gaps there are in the lines."""
        monkeypatch.setattr(retention, "TRANSACTION_ROWS", 10)
        register_batch_processor("bank", "op", echo)
        batches.submit("bank", "op", [BatchInput(line * 7, {}) for line in range(1, 36)])
        small = [batches.submit("bank", "op", [1, 2]) for _ in range(6)]
        drain()
        age()
        seen = []
        prune(AGE, on_progress=lambda done: seen.append(done.rows), rest=no_rest)
        steps = [after - before for before, after in zip([0, *seen], seen, strict=False)]
        assert max(steps) == 10
        assert sum(steps) == 35 + 2 * len(small)
        assert nothing_is_left()

    @pytest.mark.rule("PRN-3")
    def test_takes_as_many_statements_for_many_small_batches_as_for_two(self) -> None:
        """What belongs to a batch is asked for and deleted together with what belongs to the others."""
        register_batch_processor("bank", "op", echo)
        counts = []
        for number in (2, 20):
            for _ in range(number):
                batches.submit("bank", "op", [1])
            drain()
            age()
            with CaptureQueriesContext(connection) as captured:
                assert pruned().batches == number
            counts.append(len(captured))
        assert counts[0] == counts[1]

    @pytest.mark.rule("PRN-3")
    def test_goes_on_in_rounds(self, monkeypatch) -> None:
        """More batches than one round has are all found, also where one of them is left."""
        monkeypatch.setattr(retention, "ROUND_BATCHES", 3)
        register_batch_processor("bank", "op", echo)
        ids = [batches.submit("bank", "op", [1]) for _ in range(10)]
        drain()
        age()
        Batch.objects.filter(pk=ids[4]).update(marked_done_at=None)
        assert pruned().batches == 9
        assert Batch.objects.get().id == ids[4]

    @pytest.mark.rule("PRN-3")
    def test_rests_longer_than_it_has_worked(self, monkeypatch) -> None:
        """The server's time is the workers'."""
        a_batch()
        age()
        clock = iter(range(0, 1_000, 2))
        monkeypatch.setattr(retention, "monotonic", lambda: next(clock))
        rests: list[float] = []
        prune(AGE, rest=rests.append)
        assert rests == [4.0, 4.0]

    @pytest.mark.rule("PRN-4")
    @pytest.mark.parametrize("transactions", range(1, 7))
    def test_may_be_stopped_at_any_moment(self, folder, monkeypatch, transactions) -> None:
        """Between any two transactions a batch is whole or gone for all verbs; the next run goes on to the end."""
        monkeypatch.setattr(retention, "TRANSACTION_ROWS", 2)
        # No two fit in one transaction, whatever the order of their ids is.
        ids = [a_batch(rows=5), *(a_batch(op=f"op{number}") for number in range(2))]
        age()
        left = iter(range(transactions - 1))

        def stop(seconds: float) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prune(AGE, rest=stop)
        for batch_id in ids:
            self.check_whole_or_gone(batch_id)
        assert nothing_is_left() is (transactions == 6)
        pruned()
        assert nothing_is_left()
        assert files_in(folder) == set()

    @pytest.mark.rule("PRN-4")
    def test_may_be_stopped_while_it_deletes_objects(self, folder, monkeypatch) -> None:
        """The records are there until the last object is gone."""
        batch_id = a_batch()
        age()
        removed = []

        def remove_one(names):
            removed.append(outputs.storage().delete(names[0]))
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(outputs, "remove", remove_one)
            with pytest.raises(KeyboardInterrupt):
                pruned()
        assert Batch.objects.get().id == batch_id
        self.check_whole_or_gone(batch_id)
        pruned()
        assert nothing_is_left()
        assert files_in(folder) == set()

    def check_whole_or_gone(self, batch_id: UUID) -> None:
        try:
            result = batches.result(batch_id)
        except NotFound:
            return
        assert len(result.rows) == result.nrows
        for name in result.output_files:
            batches.open_output(batch_id, name).close()

    @pytest.mark.rule("PRN-4")
    def test_two_at_once_do_no_harm(self) -> None:
        """Whatever one deletes the other does not miss."""
        a_batch(), a_batch(op="other")
        age()
        inner = []

        def prune_too(seconds: float) -> None:
            if not inner:
                inner.append(Pruned())
                inner[0] = pruned()

        outer = prune(AGE, rest=prune_too)
        assert (outer.batches + inner[0].batches, outer.rows + inner[0].rows) == (2, 4)
        assert nothing_is_left()

    @pytest.mark.rule("PRN-6")
    def test_keeps_the_record_of_what_the_storage_keeps(self, settings, tmp_path, caplog) -> None:
        """The rows are gone, the batch is gone for all verbs, and the next run has its objects deleted."""
        use_storage(settings, f"{__name__}.BrokenStorage", location=tmp_path)
        late, other = a_batch(), a_batch(op="other", lines={"b.csv": "x"})
        age()
        with caplog.at_level(logging.WARNING, "alya_django"):
            done = pruned()
        assert (done.batches, done.kept, done.rows) == (1, 1, 4)
        assert done.failure.startswith("PermissionError at ")
        (message,) = caplog.messages
        assert message.startswith(f"The objects of the batch {late} could not be deleted; its record is kept. Perm")
        with pytest.raises(NotFound):
            batches.result(late)
        with pytest.raises(NotFound):
            batches.result(other)
        use_storage(settings, "django.core.files.storage.FileSystemStorage", location=tmp_path)
        assert pruned().batches == 1
        assert nothing_is_left()
        assert files_in(tmp_path) == set()

    @pytest.mark.rule("PRN-6")
    def test_asks_a_storage_that_is_away_no_more(self, settings, tmp_path) -> None:
        """After three failures in a row the rest waits, and what needs no storage goes."""
        use_storage(settings, f"{__name__}.BrokenStorage", location=tmp_path)
        for number in range(6):
            a_batch(rows=1, op=f"op{number}", lines={"late.csv": "x"})
        a_batch(op="none", lines={"empty": ""})
        age()
        BrokenStorage.asked = 0
        done = pruned()
        assert (done.batches, done.kept, BrokenStorage.asked) == (1, 6, 3)

    def test_leaves_objects_that_are_not_its_own(self, folder) -> None:
        """What a processor only named was there before, and may be another's."""
        name = outputs.storage().save("reports/old.pdf", ContentFile(b"x"))
        register_slow_query_processor("bank", "ask", lambda row: QueryResult.success(output_files={"r.pdf": name}))
        slow_queries.submit("bank", "ask", 1)
        drain()
        age()
        assert pruned() == Pruned(batches=1, rows=1)
        assert files_in(folder) == {name}

    def test_deletes_what_dead_attempts_have_left(self, folder) -> None:
        """All that lies in the batch's folder goes with it."""
        batch_id = a_batch()
        outputs.save(batch_id, uuid4(), "a.csv", ContentFile(b"half"))
        age()
        assert pruned().files == 2
        assert files_in(folder) == set()

    @pytest.mark.rule("PRN-5")
    def test_frees_the_unique_key(self) -> None:
        """What is gone stands in nobody's way, from the moment it is marked."""
        register_batch_processor("bank", "op", echo)
        first = batches.submit("bank", "op", [1], unique_key="k")
        drain()
        age()
        Batch.objects.filter(pk=first).begin_prune(AGE)
        second = batches.submit("bank", "op", [1], unique_key="k")
        assert second != first


class BeingPrunedTests:
    @pytest.fixture
    def going(self) -> UUID:
        """A batch that is marked, with all of its rows still there, and cached."""
        batch_id = a_batch()
        age()
        batches.status(batch_id)

        def stop(seconds: float) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prune(AGE, rest=stop)
        assert Batch.objects.filter(pk=batch_id, pruned_at__isnull=False).exists()
        return batch_id

    @pytest.mark.rule("PRN-5")
    @pytest.mark.parametrize(
        "verb",
        [
            batches.status,
            batches.result,
            batches.release,
            batches.abort,
            batches.retry,
            batches.children,
            batches.output_files,
            lambda batch_id: list(batches.iter_rows(batch_id)),
            lambda batch_id: batches.line(batch_id, 1),
            lambda batch_id: batches.append(batch_id, [1]),
            lambda batch_id: batches.open_output(batch_id, "a.csv"),
            lambda batch_id: batches.rebuild_output(batch_id, "a.csv"),
        ],
    )
    def test_is_gone_for_every_verb(self, going, verb) -> None:
        """Whatever the cache had of it."""
        with pytest.raises(NotFound, match=rf"^There is no batch {going}\.$"):
            verb(going)
        assert batches.recent("bank", days=1_000) == []

    @pytest.mark.rule("PRN-5")
    def test_has_no_page_in_the_admin(self, going, admin_client) -> None:
        """Neither in the list nor by its address."""
        assert str(going)[:8] not in admin_client.get("/admin/alya_django/batch/").content.decode()
        assert admin_client.get(f"/admin/alya_django/batch/{going}/change/").status_code == 302

    @pytest.mark.rule("PRN-5")
    def test_tells_who_reads_its_rows_meanwhile(self, monkeypatch) -> None:
        """What was yielded is not all, and the reader learns it at the end."""
        monkeypatch.setattr(batches, "PAGE_ROWS", 1)
        batch_id = a_batch(rows=3)
        age()
        reader = batches.iter_rows(batch_id)
        assert next(reader).line == 1
        pruned()
        with pytest.raises(NotFound):
            list(reader)

    @pytest.mark.rule("PRN-5")
    def test_tells_who_asks_for_an_answer_meanwhile(self, monkeypatch) -> None:
        """A slow query whose row has gone between two statements is gone."""
        register_slow_query_processor("bank", "ask", lambda row: 1)
        query_id = slow_queries.submit("bank", "ask", 1)
        drain()
        status_cache.drop(query_id)
        BatchRow.objects.all().delete()
        with pytest.raises(NotFound, match=rf"^There is no slow query {query_id}\.$"):
            slow_queries.result(query_id)

    @pytest.mark.rule("PRN-5")
    def test_is_not_cached_by_who_was_late(self, going) -> None:
        """An entry made after it was marked goes with the record."""
        summary = Batch.objects.get(pk=going).summary()
        status_cache.store(going, summary)
        pruned()
        with pytest.raises(NotFound):
            batches.status(going)


class ReceivedFileTests:
    @pytest.fixture(autouse=True)
    def checker(self, registry) -> None:
        def check(file, file_name, context):
            for number, line in enumerate(file, 1):
                yield FaultyLine(number, "odd") if number % 2 else BatchInput(number, line.decode().strip())

        register_file_checker("lines", check, app="bank", op="op")
        register_batch_processor("bank", "op", lambda row: fail(row))

    @pytest.mark.rule("PRN-7")
    def test_go_with_their_batch(self, folder) -> None:
        """The file, and the one that names its faulty lines."""
        intake.process(file=b"1\n2\n", file_name="in.txt", file_type="lines")
        drain()
        age()
        assert len(files_in(folder)) == 2
        assert pruned(app="bank") == Pruned(batches=1, rows=1, files=2)
        assert files_in(folder) == set()
        assert nothing_is_left()

    @pytest.mark.rule("PRN-7")
    def test_go_by_their_own_age_without_a_batch(self, folder) -> None:
        """Those that were rejected, and those that nobody decided on; not if an app is asked for."""
        intake.process(file=b"1\n", file_name="rejected.txt", file_type="lines")
        left = outputs.storage().save("incoming/half.txt", ContentFile(b"x"))
        BatchFile.objects.create(object_id=left, file_name="half.txt", file_type="lines", content_type="text/plain")
        assert pruned() == Pruned()
        BatchFile.objects.update(received_at=LONG_AGO)
        assert pruned(app="bank") == Pruned()
        assert pruned().files == 3
        assert files_in(folder) == set()
        assert nothing_is_left()

    @pytest.mark.rule("PRN-6", "PRN-7")
    def test_stay_while_the_storage_fails(self, settings, tmp_path) -> None:
        """The record knows where the object is, so it is kept."""
        use_storage(settings, f"{__name__}.BrokenStorage", location=tmp_path)
        intake.process(file=b"1\n", file_name="late.txt", file_type="lines")
        BatchFile.objects.update(received_at=LONG_AGO)
        assert pruned().kept == 1
        assert BatchFile.objects.exists()

    def test_may_be_kept(self, folder) -> None:
        """Their records go, their objects stay."""
        intake.process(file=b"1\n", file_name="in.txt", file_type="lines")
        BatchFile.objects.update(received_at=LONG_AGO)
        before = files_in(folder)
        assert pruned(keep_files=True) == Pruned()
        assert files_in(folder) == before
        assert nothing_is_left()


class BusinessKeyTests:
    @pytest.mark.rule("PRN-9")
    def test_go_once_no_file_is_compared_with_them(self, monkeypatch) -> None:
        """In pieces, by the time they were received; not if an app is asked for."""
        monkeypatch.setattr(retention, "TRANSACTION_ROWS", 2)
        batch_id = a_batch()
        for number in range(8):
            BusinessKey.objects.create(digest=UUID(int=number), batch_id=batch_id, line=number)
        BusinessKey.objects.filter(line__lt=5).update(received_at=Now() - timedelta(days=31))
        assert pruned(app="bank") == Pruned()
        assert count_prunable(AGE) == Pruned(keys=5)
        shown: list[int] = []
        assert pruned(on_progress=lambda so_far: shown.append(so_far.keys)) == Pruned(keys=5)
        assert shown == [2, 4, 5]
        assert sorted(BusinessKey.objects.values_list("line", flat=True)) == [5, 6, 7]


def fail(row) -> None:
    raise RowFailed("odd")


class CountPrunableTests:
    @pytest.mark.rule("PRN-8")
    def test_counts_what_would_go(self, folder) -> None:
        """Exactly what a run deletes then; nothing is changed by the question."""
        register_file_checker("lines", lambda file, name, context: [BatchInput(1, 1)], app="bank", op="write")
        a_batch()
        intake.process(file=b"x", file_name="in.txt", file_type="lines")
        drain(raise_errors=False)
        age()
        BatchFile.objects.create(
            object_id="incoming/x", file_name="x", file_type="lines", content_type="", is_accepted=False
        )
        BatchFile.objects.update(received_at=LONG_AGO)
        batches.submit("bank", "op", [1], wait=True)
        age()
        counted = count_prunable(AGE)
        assert counted == Pruned(batches=2, rows=3, files=4, waiting=1)
        assert count_prunable(AGE, app="bank") == Pruned(batches=2, rows=3, files=3, waiting=1)
        assert count_prunable(AGE) == counted
        done = pruned()
        assert (done.batches, done.rows, done.waiting) == (2, 3, 1)
        assert Status(Batch.objects.get().status) is Status.WAIT

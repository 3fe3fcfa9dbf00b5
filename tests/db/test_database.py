from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, IntegrityError, OperationalError, connection

from alya_django import batches, register_batch_processor, slow_queries
from alya_django.db import database
from alya_django.engine.heartbeat import Heartbeat
from alya_django.engine.worker import Worker
from alya_django.models import Batch
from tests.conftest import IS_SQLITE
from tests.processors import echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


class DatabaseTests:
    def test_refuses_a_database_it_does_not_speak(self, monkeypatch) -> None:
        """Another vendor would be served with the wrong statements."""
        monkeypatch.setattr(connection, "vendor", "mysql")
        monkeypatch.setattr(connection, "display_name", "MySQL")
        with pytest.raises(ImproperlyConfigured, match=r"Alya's tables cannot be in MySQL \('default'\)\."):
            database("default")

    @pytest.mark.rule("API-4")
    def test_a_batch_that_the_database_refuses_is_an_error_of_the_database(self, monkeypatch) -> None:
        """What breaks no unique key is not taken for a repeated submit."""
        taken = slow_queries.submit("app", "op", {})
        monkeypatch.setattr(Batch._meta.get_field("id"), "_get_default", lambda: taken)
        with pytest.raises(IntegrityError):
            batches.submit("app", "op", [1])
        assert Batch.objects.count() == 1

    def test_a_worker_that_cannot_say_goodbye_goes_all_the_same(self, registry, monkeypatch, caplog) -> None:
        """What ended it is raised; that it could not give back its rows is logged."""
        register_batch_processor("app", "op", echo)
        batches.submit("app", "op", [1])
        worker = Worker()

        def fail(*args, **kwargs):
            raise DatabaseError("gone")

        with worker:
            monkeypatch.setattr("alya_django.engine.record.Recorder.gate", fail)
            with pytest.raises(DatabaseError, match="gone"):
                worker.drain()
        assert f"Worker {worker.name} could not give back its rows: DatabaseError at " in caplog.text

    def test_questions_keep_their_places(self, django_assert_num_queries) -> None:
        """Several queries are one statement, asked again and again; one that can find nothing has its answer, too."""
        batch_id = batches.submit("app", "op", [1])
        there, nothing = Batch.objects.filter(pk=batch_id), Batch.objects.filter(pk__in=[])
        ask = database("default").prepared_exists([nothing, there, there.exclude(op="op"), there])
        with django_assert_num_queries(1):
            assert ask() == [False, True, False, True]
        there.delete()
        assert ask() == [False] * 4

    @pytest.mark.django_db(transaction=True)
    def test_an_error_that_is_no_deadlock_is_raised_at_once(self) -> None:
        """Only what other transactions were to blame for is worth another try."""
        tries = []

        def fail() -> None:
            tries.append(None)
            raise OperationalError("gone")

        with pytest.raises(OperationalError, match="gone"):
            database("default").again(fail)
        assert len(tries) == 1

    def test_one_writer_at_a_time_beats_between_chunks(self, monkeypatch) -> None:
        """Where two connections cannot write side by side, the heartbeat has no thread."""
        store = database("default")
        monkeypatch.setattr(type(store), "allows_many_writers", False)
        heart = Heartbeat(store, 1)
        heart.start()
        assert heart._thread is None
        heart.stop()


if not IS_SQLITE:

    class ConstraintTests:
        def test_a_row_that_the_database_refuses_is_an_error_of_the_database(self) -> None:
            """Only a line that is there twice is translated."""
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE alya_batchrows ADD CONSTRAINT not_7 CHECK (line <> 7)")
            with pytest.raises(IntegrityError, match="not_7"):
                batches.submit("app", "op", range(10))
            assert Batch.objects.count() == 0

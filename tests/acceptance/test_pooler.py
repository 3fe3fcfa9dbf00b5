"""Behind pgbouncer in transaction mode, with LISTEN off: submits and workers share connections with strangers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from django.db import connection

from alya_django import Status, batches, slow_queries
from alya_django.models import Worker
from tests import services
from tests.acceptance.questions import is_begun, is_done
from tests.concurrency.connections import wait_until
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@pytest.fixture(autouse=True)
def pooler(environment, postgresql, monkeypatch, settings) -> Iterator[services.PgBouncer]:
    """Let this process and those it starts reach the database through a pooler."""
    settings.ALYA = {"LISTEN": False}
    environment["ALYA"] = json.dumps(settings.ALYA)
    with services.pgbouncer(postgresql) as pooler:
        name = connection.settings_dict
        environment["DATABASE_URL"] = f"postgresql://{name['USER']}@{pooler.host}:{pooler.port}/{name['NAME']}"
        connection.close()
        with monkeypatch.context() as patched:
            patched.setitem(name, "PORT", pooler.port)
            yield pooler
            connection.close()


class PoolerTests:
    @pytest.mark.rule("RUN-7")
    def test_batches_and_slow_queries(self, manage, project_storage) -> None:
        """Submitted, appended, aborted, worked off by two processes, and read: as on connections of one's own."""
        batch_id = batches.submit("acceptance", "write", [f"{number}" for number in range(3_000)])
        waiting = batches.submit("acceptance", "sleep", [0.01] * 50, wait=True)
        aborted = batches.submit("acceptance", "sleep", [0.2] * 50)
        query_id = slow_queries.submit("acceptance", "answer", {"figure": 17})
        worker = manage("alya_worker", "--processes", "2")
        wait_until(lambda: is_begun(aborted), "a row to be aborted is in progress")
        batches.abort(aborted)
        assert batches.append(waiting, [0.01] * 50, wait=False) == 100
        for one in (batch_id, waiting):
            wait_until(lambda one=one: is_done(one), "the batch has ended")
            assert batches.status(one).status is Status.SUCCESS
        wait_until(lambda: not slow_queries.result(query_id).try_later, "the query has ended")
        assert slow_queries.result(query_id).result == {"figure": 17}
        assert sum(1 for _ in batches.iter_rows(batch_id)) == 3_000
        with batches.open_output(batch_id, "lines.txt") as file:
            assert file.read() == "".join(f"{number}\n" for number in range(3_000)).encode()
        worker.terminate()
        output, _ = worker.communicate(timeout=180)
        assert worker.returncode == 0, output
        assert "Traceback" not in output
        assert not Worker.objects.exists()
        check_invariants()

    @pytest.mark.rule("RUN-3")
    def test_a_pooler_that_is_restarted(self, pooler, manage) -> None:
        """The worker waits for it as for a server."""
        batch_id = batches.submit("acceptance", "sleep", [0.01] * 300)
        worker = manage("alya_worker")
        wait_until(lambda: batches.status(batch_id).nsuccess >= 50, "rows have ended")
        connection.close()
        pooler.stop()
        pooler.start()
        wait_until(lambda: is_done(batch_id), "the batch has ended")
        assert batches.status(batch_id).nsuccess == 300
        worker.terminate()
        output, _ = worker.communicate(timeout=180)
        assert worker.returncode == 0, output
        check_invariants()

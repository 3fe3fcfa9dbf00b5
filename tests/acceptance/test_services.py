"""The example project on PostgreSQL, Redis and S3, chosen by environment variables alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches

from alya_django import Status, batches, slow_queries, status_cache
from alya_django.models import Batch, BatchProgress
from example_project.flights.management.commands.demo import flights
from tests import services
from tests.acceptance.questions import is_done, is_left
from tests.concurrency.connections import wait_until
from tests.invariants import check_invariants
from tests.network import Proxy, proxy

REFUSAL = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n"
    b"<Error><Code>AccessDenied</Code><Message>Not now.</Message></Error>"
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@pytest.fixture
def on_redis(environment: dict[str, str], redis: services.Redis, settings: Any) -> services.Redis:
    """Let this process and those it starts share a Redis."""
    environment["CACHE_URL"] = redis.url
    settings.CACHES = {
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": redis.url,
            "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 1, "SOCKET_TIMEOUT": 1},
        }
    }
    caches["default"].clear()
    return redis


@pytest.fixture
def on_s3(environment: dict[str, str], s3: services.S3, settings: Any) -> Iterator[services.S3]:
    """Let this process and those it starts share a bucket, empty before and after."""
    environment.update(s3.environment)
    backend = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": s3.options}
    settings.STORAGES = {**settings.STORAGES, "default": backend}
    _empty(s3)
    yield s3
    s3.start()
    _empty(s3)


@pytest.fixture
def way(environment: dict[str, str], on_s3: services.S3) -> Iterator[Proxy]:
    """The way of the started processes to the S3 server."""
    with proxy(on_s3.host, on_s3.port) as way:
        environment["S3_ENDPOINT_URL"] = f"http://{way.host}:{way.port}"
        yield way


def _empty(server: services.S3) -> None:
    for name in objects(server):
        server.client().delete_object(Bucket=server.bucket, Key=name)


def objects(server: services.S3) -> set[str]:
    listed = server.client().list_objects_v2(Bucket=server.bucket)
    return {entry["Key"] for entry in listed.get("Contents", ())}


def content(server: services.S3, name: str) -> bytes:
    return server.client().get_object(Bucket=server.bucket, Key=name)["Body"].read()


def has_progressed(batch_id, rows: int) -> bool:
    return sum(BatchProgress.objects.filter(batch=batch_id).values_list("nsuccess", flat=True)) >= rows


class FlightsTests:
    @pytest.mark.rule("OUT-1", "OUT-5", "FIN-4", "CACHE-2")
    def test_the_flights_of_january_2013(
        self, environment: dict[str, str], manage: Callable[..., Any], tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        """Every figure, and every file byte for byte that of a run on a local directory."""
        local_id = batches.submit("flights", "punctuality", flights())
        self._drain(manage)
        local = batches.status(local_id).output_files
        expected = {name: (tmp_path / "storage" / stored).read_bytes() for name, stored in local.items()}

        request.getfixturevalue("on_redis")
        server: services.S3 = request.getfixturevalue("on_s3")
        batch_id = batches.submit("flights", "punctuality", flights())
        self._drain(manage)
        assert caches["default"].get(status_cache.status_key(batch_id)) == "failed"
        summary = batches.status(batch_id)
        assert (summary.status, summary.nrows, summary.nsuccess) == (Status.FAILED, 27_004, 26_398)
        reasons = [row.messages[0].errcode for row in batches.iter_rows(batch_id, status=Status.FAILED)]
        assert (len(reasons), reasons.count("cancelled"), reasons.count("diverted")) == (606, 521, 85)

        summary_name = f"summaries/{batch_id}/summary.json"
        assert objects(server) == {*summary.output_files.values(), summary_name}
        assert {name: content(server, stored) for name, stored in summary.output_files.items()} == expected
        assert expected["late.csv"].count(b"\n") == 6_001
        with batches.open_output(batch_id, "late.csv") as file:
            assert file.read() == expected["late.csv"]
        assert sum(json.loads(content(server, summary_name))["carriers"].values()) == 26_398
        check_invariants()

    def _drain(self, manage: Callable[..., Any]) -> None:
        worker = manage("alya_worker", "--drain")
        output, _ = worker.communicate(timeout=180)
        assert worker.returncode == 0, output


class OutageTests:
    @pytest.mark.rule("API-5", "CACHE-5", "CACHE-8")
    @pytest.mark.parametrize("fail", ["stop", "freeze"])
    def test_a_redis_that_goes_while_a_worker_runs(self, on_redis, manage, fail) -> None:
        """The worker goes on and polls answer, neither wrongly; once the Redis is back the end is cached again."""
        batch_id = batches.submit("acceptance", "sleep", [0.01] * 400)
        worker = manage("alya_worker")
        wait_until(lambda: has_progressed(batch_id, 50), "rows have ended")
        assert batches.status(batch_id).status is Status.IN_PROGRESS
        getattr(on_redis, fail)()
        begun = batches.status(batch_id).nsuccess
        wait_until(lambda: has_progressed(batch_id, begun + 100), "more rows have ended")
        assert batches.status(batch_id).nsuccess >= begun
        unasked = batches.submit("acceptance", "sleep", [0])
        wait_until(lambda: not batches.result(batch_id).try_later, "the batch has ended")
        wait_until(lambda: not batches.result(unasked).try_later, "another has, submitted meanwhile")
        on_redis.start()
        status_cache.access.forget()
        later = batches.submit("acceptance", "sleep", [0])
        wait_until(lambda: not batches.result(later).try_later, "one after the outage has ended")
        assert (batches.status(batch_id).nsuccess, batches.status(batch_id).nfailed) == (400, 0)
        assert caches["default"].get(status_cache.status_key(batch_id)) == "success"
        worker.terminate()
        output, _ = worker.communicate(timeout=180)
        assert worker.returncode == 0, output
        assert "Traceback" not in output
        assert output.count("The cache 'default' does not answer") <= 5
        check_invariants()

    @pytest.mark.rule("CACHE-5")
    def test_a_redis_that_is_flushed_while_a_worker_runs(self, on_redis, manage) -> None:
        """Emptied again and again, it hides nothing: polls never go back, and the end is told."""
        batch_id = batches.submit("acceptance", "sleep", [0.01] * 300)
        worker = manage("alya_worker")
        seen = 0
        while (summary := batches.status(batch_id)).try_later:
            assert summary.nsuccess >= seen
            seen = summary.nsuccess
            caches["default"].clear()
            wait_until(lambda: has_progressed(batch_id, min(seen + 50, 300)), "more rows have ended")  # noqa: B023
        assert (summary.status, summary.nsuccess) == (Status.SUCCESS, 300)
        worker.terminate()
        assert worker.wait(60) == 0
        check_invariants()

    @pytest.mark.rule("FIN-3")
    def test_an_s3_that_goes_while_a_worker_runs(self, on_redis, on_s3, manage) -> None:
        """The worker stays, and goes on with what needs no storage; the batch waits, and its files are whole."""
        on_s3.stop()
        batch_id = batches.submit("flights", "punctuality", flights())
        worker = manage("alya_worker")
        wait_until(lambda: has_progressed(batch_id, 26_398), "all rows have ended")
        other = batches.submit("acceptance", "sleep", [0])
        wait_until(lambda: not batches.result(other).try_later, "a batch without files has ended")
        assert worker.poll() is None
        assert Batch.objects.get(pk=batch_id).output_files == {}
        on_s3.start()
        # Another worker does not know that the storage was away.
        second = manage("alya_worker", "--drain")
        output, _ = second.communicate(timeout=180)
        assert second.returncode == 0, output
        summary = batches.status(batch_id)
        assert (summary.status, summary.nsuccess) == (Status.FAILED, 26_398)
        assert sum(content(on_s3, name).count(b"\n") for name in summary.output_files.values()) == 26_398 + 6_001
        worker.terminate()
        output, _ = worker.communicate(timeout=180)
        assert worker.returncode == 0, output
        assert f"The output files of {batch_id} wait: the storage failed. " in output
        check_invariants()

    @pytest.mark.rule("FIN-3")
    def test_an_s3_that_takes_seconds_to_answer(self, on_s3, way, manage) -> None:
        """Every answer comes after five seconds: the batch ends later, at the first attempt, with its file."""
        way.delay_seconds = 5
        batch_id = batches.submit("acceptance", "write", ["a", "b"])
        worker = manage("alya_worker")
        wait_until(lambda: is_done(batch_id), "the batch has ended")
        worker.terminate()
        output, _ = worker.communicate(timeout=180)
        assert worker.returncode == 0, output
        assert "the storage failed" not in output
        (name,) = batches.status(batch_id).output_files.values()
        assert content(on_s3, name) == b"a\nb\n"
        check_invariants()

    @pytest.mark.rule("FIN-3")
    def test_an_s3_that_refuses(self, environment, on_s3, way, manage) -> None:
        """It answers that it will not: the batch waits until it does, and the same worker finishes it by itself."""
        environment["ACCEPTANCE_STORAGE_REST_SECONDS"] = "1"
        way.answer = REFUSAL
        batch_id = batches.submit("acceptance", "write", ["a", "b"])
        worker = manage("alya_worker")
        wait_until(lambda: is_left(batch_id), "it was tried to finish the batch")
        assert not is_done(batch_id)
        way.answer = b""
        wait_until(lambda: is_done(batch_id), "the batch has ended")
        worker.terminate()
        output, _ = worker.communicate(timeout=180)
        assert worker.returncode == 0, output
        assert f"The output files of {batch_id} wait: the storage failed. " in output
        assert "AccessDenied" in output
        assert objects(on_s3) == set(batches.status(batch_id).output_files.values())
        check_invariants()

    @pytest.mark.rule("CACHE-9")
    def test_a_poll_finds_what_a_worker_cached(self, on_redis, manage, django_assert_num_queries) -> None:
        """The answer of a slow query is cached by the worker: the first poll of another process needs no database."""
        query_id = slow_queries.submit("acceptance", "answer", {"figure": 17})
        worker = manage("alya_worker", "--drain")
        output, _ = worker.communicate(timeout=180)
        assert worker.returncode == 0, output
        with django_assert_num_queries(0):
            assert slow_queries.result(query_id).result == {"figure": 17}

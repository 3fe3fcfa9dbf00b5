from __future__ import annotations

import json
import logging
from uuid import UUID, uuid4

import pytest
from django.core.cache import cache, caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.db import transaction

from alya_django import (
    InvalidInput,
    Status,
    Summary,
    batches,
    register_batch_processor,
    register_slow_query_processor,
    slow_queries,
    status_cache,
)
from alya_django.models import Batch
from alya_django.status import Kind
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import echo

# Readers cache what is committed, so these tests commit.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sqlite]

# What may stand in the cache where a summary was, made of that summary.
CORRUPT = {
    "no JSON": lambda entry: "no JSON",
    "empty": lambda entry: "",
    "null": lambda entry: "null",
    "array": lambda entry: "[]",
    "deep": lambda entry: "[" * 100_000,
    "number": lambda entry: 17,
    "bytes": lambda entry: b"\xff",
    "object": lambda entry: {"status": "success"},
    "missing parts": lambda entry: json.dumps({"status": "success"}),
    "unknown status": lambda entry: json.dumps({**entry, "status": "no status"}),
    "array as status": lambda entry: json.dumps({**entry, "status": ["success"]}),
    "no kind": lambda entry: json.dumps({**entry, "kind": None}),
    "malformed parent": lambda entry: json.dumps({**entry, "parent": "no UUID"}),
    "number as parent": lambda entry: json.dumps({**entry, "parent": 5}),
    "array as parent": lambda entry: json.dumps({**entry, "parent": ["x"]}),
}


class RecordingCache(LocMemCache):
    """A cache that keeps the seconds each entry was stored for."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.seconds = {}

    def add(self, key, value, timeout=None, version=None):
        is_new = super().add(key, value, timeout, version)
        if is_new:
            self.seconds[key] = timeout
        return is_new

    def set(self, key, value, timeout=None, version=None):
        self.seconds[key] = timeout
        super().set(key, value, timeout, version)


class DownCache(BaseCache):
    """A cache that cannot be reached."""

    def __init__(self, *arguments):
        super().__init__({})

    def _fail(self, *arguments, **keywords):
        raise ConnectionError("the cache is down")

    get = set = add = delete = get_many = set_many = delete_many = has_key = touch = clear = _fail


@pytest.fixture(autouse=True)
def _empty_cache():
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def use_cache(settings):
    """Use another cache from here on."""

    def use(cache_class: type[BaseCache]) -> BaseCache:
        backend = f"{__name__}.{cache_class.__name__}"
        settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": backend}}
        return caches["default"]

    return use


def summary_key(batch_id: UUID) -> str:
    return f"ALYA_{{{batch_id}}}_SUMMARY"


def a_summary(**values) -> Summary:
    counts = {"nrows": 1, "nsuccess": 0, "nfailed": 0, "naborted": 0}
    return Summary(**{"status": Status.QUEUED, "kind": Kind.BATCH, **counts, **values})


class StatusKeyTests:
    @pytest.mark.rule("CACHE-6")
    def test_keeps_the_keys_of_a_batch_together(self):
        """The id is in literal braces, Redis Cluster's mark for what decides the slot, in every key."""
        batch_id = batches.submit("bank", "echo", [1])
        batches.status(batch_id)
        assert status_cache.status_key(batch_id) == f"ALYA_{{{batch_id}}}_STATUS"
        assert status_cache.status_key(str(batch_id).upper()) == f"ALYA_{{{batch_id}}}_STATUS"
        assert cache.get(f"ALYA_{{{batch_id}}}_STATUS") == "queued"
        assert cache.get(summary_key(batch_id)) is not None

    @pytest.mark.rule("API-1")
    def test_refuses_a_malformed_id(self):
        """A key is made of an id only."""
        with pytest.raises(InvalidInput) as caught:
            status_cache.status_key("17")
        assert str(caught.value) == "id: '17' is no UUID."


class StoreTests:
    @pytest.mark.rule("CACHE-1")
    def test_keeps_an_unfinished_state_for_a_second(self, use_cache):
        """A reader's copy of what may change is a second old at most."""
        recording = use_cache(RecordingCache)
        batch_id = batches.submit("bank", "echo", [1])
        for read in (batches.status, batches.result):
            read(batch_id)
        assert recording.seconds == {status_cache.status_key(batch_id): 1, summary_key(batch_id): 1}

    @pytest.mark.rule("CACHE-1", "CACHE-2")
    def test_keeps_a_final_state_a_hundred_times_as_long_as_set(self, registry, use_cache, settings):
        """What cannot change any more stays, from the moment the batch ends."""
        settings.ALYA = {"STATUS_CACHE_SECONDS": 7}
        recording = use_cache(RecordingCache)
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", [1])
        drain()
        assert recording.seconds == {status_cache.status_key(batch_id): 700, summary_key(batch_id): 700}
        assert recording.get(status_cache.status_key(batch_id)) == "success"

    @pytest.mark.rule("CACHE-1")
    def test_caches_a_final_state_that_a_reader_finds(self, registry, use_cache):
        """A cold cache is filled by the first who asks."""
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", [1])
        drain()
        recording = use_cache(RecordingCache)
        batches.status(batch_id)
        assert recording.seconds == {status_cache.status_key(batch_id): 6000, summary_key(batch_id): 6000}

    @pytest.mark.rule("CACHE-2", "ABT-7")
    def test_has_an_abort_once_it_is_committed(self, use_cache):
        """An abort is cached as final after the commit, not before."""
        recording = use_cache(RecordingCache)
        batch_id = batches.submit("bank", "echo", [1])
        with transaction.atomic():
            batches.abort(batch_id)
            assert recording.get(status_cache.status_key(batch_id)) is None
        assert recording.get(status_cache.status_key(batch_id)) == "aborted"
        assert recording.seconds[status_cache.status_key(batch_id)] == 6000

    @pytest.mark.rule("CACHE-3")
    def test_never_puts_an_unfinished_state_over_a_final_one(self, django_assert_num_queries):
        """A slow reader that stores what it saw earlier changes nothing."""
        batch_id = batches.submit("bank", "echo", [1])
        seen_earlier = batches.status(batch_id)
        batches.abort(batch_id)
        status_cache.store(batch_id, seen_earlier)
        with django_assert_num_queries(0):
            assert batches.status(batch_id).status is Status.ABORTED
        assert cache.get(status_cache.status_key(batch_id)) == "aborted"

    @pytest.mark.rule("CACHE-3")
    def test_puts_a_final_state_over_an_unfinished_one(self):
        """The end replaces what readers stored before."""
        batch_id = uuid4()
        status_cache.store(batch_id, a_summary())
        final = a_summary(status=Status.FAILED, nfailed=1, output_files={"ü.csv": "alya/x"}, parent=uuid4(), held=True)
        status_cache.store(batch_id, final)
        assert status_cache.load(batch_id) == final

    @pytest.mark.rule("API-7")
    def test_stores_nothing_for_a_reader_inside_a_transaction(self):
        """What a transaction sees may never be committed: its readers leave no copy."""
        batch_id = batches.submit("bank", "echo", [1], wait=True)
        with transaction.atomic():
            batches.release(batch_id)
            assert batches.status(batch_id).status is Status.QUEUED
            assert batches.result(batch_id).status is Status.QUEUED
            assert cache.get(summary_key(batch_id)) is None
            transaction.set_rollback(True)
        assert cache.get(status_cache.status_key(batch_id)) is None
        assert batches.status(batch_id).status is Status.WAIT

    @pytest.mark.rule("API-7", "CACHE-2")
    def test_has_no_abort_that_was_rolled_back(self):
        """An abort that the caller takes back never reaches the cache, whoever read it meanwhile."""
        batch_id = batches.submit("bank", "echo", [1])
        with transaction.atomic():
            batches.abort(batch_id)
            assert batches.status(batch_id).status is Status.ABORTED
            transaction.set_rollback(True)
        assert cache.get(summary_key(batch_id)) is None
        assert batches.status(batch_id).status is Status.QUEUED


class DropTests:
    @pytest.mark.rule("CACHE-4")
    @pytest.mark.parametrize(
        ("act", "status", "nrows"),
        [
            (lambda batch_id: batches.append(batch_id, [2]), Status.WAIT, 2),
            (lambda batch_id: batches.append(batch_id, [2], wait=False), Status.QUEUED, 2),
            (batches.release, Status.QUEUED, 1),
            (batches.abort, Status.ABORTED, 1),
        ],
        ids=["append", "append and release", "release", "abort"],
    )
    @pytest.mark.parametrize("is_nested", [False, True], ids=["", "in a transaction"])
    def test_a_verb_drops_the_stale_entry(self, act, status, nrows, is_nested):
        """Who asks after a verb sees what it did, also inside its transaction."""
        batch_id = batches.submit("bank", "echo", [1], wait=True)
        assert batches.status(batch_id).status is Status.WAIT
        if is_nested:
            with transaction.atomic():
                act(batch_id)
                assert (batches.status(batch_id).status, batches.status(batch_id).nrows) == (status, nrows)
        else:
            act(batch_id)
        assert (batches.status(batch_id).status, batches.status(batch_id).nrows) == (status, nrows)

    @pytest.mark.rule("CACHE-4")
    def test_drops_what_a_reader_stored_before_the_commit(self):
        """A reader on another connection may store the old state until the commit; then it is gone."""
        batch_id = batches.submit("bank", "echo", [1], wait=True)
        old = batches.status(batch_id)
        with transaction.atomic():
            batches.release(batch_id)
            status_cache.store(batch_id, old)
        assert batches.status(batch_id).status is Status.QUEUED


class LoadTests:
    @pytest.mark.rule("STA-3")
    def test_answers_an_unfinished_batch_without_the_database(self, django_assert_num_queries):
        """Asked again within the second, the status needs no statement."""
        batch_id = batches.submit("bank", "echo", [1])
        first = batches.status(batch_id)
        status_cache.store(batch_id, first)
        with django_assert_num_queries(0):
            assert batches.status(batch_id) == first

    @pytest.mark.rule("CACHE-5", "DON-3")
    def test_nothing_but_cost_depends_on_the_cache(self, registry):
        """Deleting all entries at any moment changes no answer."""
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", [1], wait=True)
        for act in (lambda: None, lambda: batches.release(batch_id), drain):
            act()
            warm = batches.status(batch_id), batches.result(batch_id)
            cache.clear()
            assert (batches.status(batch_id), batches.result(batch_id)) == warm
        check_invariants()

    @pytest.mark.rule("DON-3", "SQD-5")
    def test_an_old_entry_hides_no_result(self, registry):
        """Where the cache missed the end, being down just then, the next poll for the result finds it all the same."""
        register_batch_processor("bank", "echo", echo)
        register_slow_query_processor("bank", "echo", echo)
        batch_id, query_id = batches.submit("bank", "echo", [1]), slow_queries.submit("bank", "echo", 2)
        old_batch, old_query = batches.status(batch_id), a_summary(kind=Kind.SLOW_QUERY)
        drain()
        cache.clear()
        status_cache.store(batch_id, old_batch)
        status_cache.store(query_id, old_query)
        assert [row.result for row in batches.result(batch_id).rows] == [1]
        assert slow_queries.result(query_id).result == 2
        check_invariants()

    @pytest.mark.rule("CACHE-7")
    @pytest.mark.parametrize("spoil", CORRUPT.values(), ids=CORRUPT)
    def test_takes_a_corrupt_entry_for_none(self, registry, spoil):
        """What cannot be read is a miss: the database answers, and the entry is replaced."""
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", [1])
        drain()
        right = batches.status(batch_id)
        good = cache.get(summary_key(batch_id))
        cache.set(summary_key(batch_id), spoil(json.loads(good)))
        assert batches.status(batch_id) == right
        assert cache.get(summary_key(batch_id)) == good
        cache.set(summary_key(batch_id), spoil(json.loads(good)))
        assert batches.result(batch_id).nsuccess == 1

    @pytest.mark.rule("CACHE-7")
    @pytest.mark.parametrize(
        "wrong",
        [{"nrows": "many"}, {"nfailed": None}, {"outputFiles": None}, {"outputFiles": []}, {"held": "no"}],
        ids=str,
    )
    def test_takes_an_entry_of_wrong_types_for_none(self, registry, wrong):
        """An entry whose figures are no figures, or whose files are no mapping, is corrupt too."""
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", [1])
        drain()
        right = batches.status(batch_id)
        entry = json.loads(cache.get(summary_key(batch_id)))
        cache.set(summary_key(batch_id), json.dumps({**entry, **wrong}))
        assert batches.status(batch_id) == right

    @pytest.mark.rule("API-3")
    def test_does_not_hide_that_an_id_is_of_the_other_kind(self):
        """A slow query's entry is no batch's."""
        query_id = slow_queries.submit("bank", "report", 1)
        slow_queries.abort(query_id)
        assert status_cache.load(query_id).kind is Kind.SLOW_QUERY
        assert slow_queries.result(query_id).status is Status.ABORTED


class DownTests:
    @pytest.mark.rule("API-5")
    def test_every_verb_of_batches_works_without_a_cache(self, registry, use_cache):
        """With the cache down the database answers, and every verb does what it does."""
        use_cache(DownCache)
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", [1], wait=True)
        assert batches.status(batch_id).status is Status.WAIT
        assert batches.append(batch_id, [2]) == 2
        assert batches.release(batch_id) == 2
        assert batches.result(batch_id).try_later
        assert drain() == 2
        assert batches.status(batch_id).nsuccess == 2
        assert [row.result for row in batches.result(batch_id).rows] == [1, 2]
        other = batches.submit("bank", "echo", [1])
        assert batches.abort(other).naborted == 1
        assert batches.status(other).status is Status.ABORTED
        check_invariants()

    @pytest.mark.rule("API-5")
    def test_every_verb_of_slow_queries_works_without_a_cache(self, use_cache):
        """As of batches."""
        use_cache(DownCache)
        query_id = slow_queries.submit("bank", "report", 1)
        assert slow_queries.result(query_id).try_later
        assert slow_queries.abort(query_id).naborted == 1
        assert slow_queries.result(query_id).status is Status.ABORTED
        check_invariants()

    @pytest.mark.rule("API-5")
    def test_is_told_in_the_log(self, use_cache, caplog):
        """An outage of the cache is a warning that names the alias and the fault."""
        use_cache(DownCache)
        batch_id = batches.submit("bank", "echo", [1])
        with caplog.at_level(logging.WARNING, "alya_django"):
            batches.status(batch_id)
        (message,) = caplog.messages
        assert message.startswith("The cache 'default' does not answer: ConnectionError at ")

    @pytest.mark.rule("API-5")
    def test_a_cache_that_does_not_exist_is_down(self, settings):
        """Even a wrong alias loses no batch."""
        settings.ALYA = {"CACHE": "elsewhere"}
        batch_id = batches.submit("bank", "echo", [1])
        assert batches.status(batch_id).status is Status.QUEUED
        assert batches.abort(batch_id).status is Status.ABORTED
        assert Batch.objects.get(pk=batch_id).status == Status.ABORTED

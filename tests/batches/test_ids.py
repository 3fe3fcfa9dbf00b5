from __future__ import annotations

from uuid import uuid4

import pytest

from alya_django import NotFound, WrongType, batches, register_batch_processor, slow_queries
from alya_django.testing import drain
from tests.batches.stored import refusing
from tests.processors import write_lines

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

VERBS = {
    "append": lambda batch_id: batches.append(batch_id, [1]),
    "release": batches.release,
    "status": batches.status,
    "result": batches.result,
    "iter_rows": batches.iter_rows,
    "line": lambda batch_id: batches.line(batch_id, 1),
    "open_output": lambda batch_id: batches.open_output(batch_id, "a.csv"),
    "abort": batches.abort,
}
every_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


class IdTests:
    @pytest.mark.rule("API-1")
    @every_verb
    @pytest.mark.parametrize("batch_id", ["", "17", "not-a-uuid", 17, None, b"x", ["x"]], ids=repr)
    def test_every_verb_refuses_a_malformed_id(self, verb, batch_id):
        """A malformed id is invalid input, whatever the verb."""
        with refusing() as caught:
            verb(batch_id)
        assert str(caught.value) == f"id: {batch_id!r} is no UUID."
        assert caught.value.field == "id"

    @pytest.mark.rule("API-2")
    @every_verb
    def test_every_verb_says_that_there_is_no_such_batch(self, verb):
        """An unknown id is not found, whatever the verb."""
        batch_id = uuid4()
        with refusing(NotFound) as caught:
            verb(batch_id)
        assert str(caught.value) == f"There is no batch {batch_id}."
        assert isinstance(caught.value, LookupError)

    @pytest.mark.rule("API-3")
    @every_verb
    def test_every_verb_refuses_a_slow_query(self, verb):
        """The id of a slow query is of the wrong type, whatever the verb."""
        query_id = slow_queries.submit("bank", "report", {})
        with refusing(WrongType) as caught:
            verb(query_id)
        assert str(caught.value) == f"{query_id} is a slow query."

    @pytest.mark.rule("API-3")
    @every_verb
    def test_every_verb_refuses_a_slow_query_that_is_cached(self, verb, registry, django_capture_on_commit_callbacks):
        """The cache does not hide the type."""
        query_id = slow_queries.submit("bank", "report", {})
        with django_capture_on_commit_callbacks(execute=True):
            slow_queries.abort(query_id)
        with refusing(WrongType):
            verb(query_id)

    @every_verb
    def test_every_verb_takes_an_id_as_text(self, verb, registry):
        """An id that was printed and read again works."""
        register_batch_processor("bank", "write", write_lines)
        running = batches.submit("bank", "other", [1], wait=True)
        done = batches.submit("bank", "write", [{"a.csv": "x"}])
        drain()
        batch_id = done if verb in (VERBS["line"], VERBS["open_output"]) else running
        answer = verb(str(batch_id).upper())
        assert answer is not None
        if verb is VERBS["open_output"]:
            answer.close()

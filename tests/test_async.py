from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.core.asgi import get_asgi_application
from django.db import connections
from django.http import HttpRequest, JsonResponse
from django.test import AsyncClient
from django.urls import path

from alya_django import AlreadyDone, Status, batches, register_batch_processor, slow_queries
from alya_django import register_slow_query_processor as register_slow_query
from alya_django.testing import drain
from tests.processors import echo

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sqlite, pytest.mark.usefixtures("registry")]


async def ask(request: HttpRequest) -> JsonResponse:
    """Submit a slow query, from a coroutine that serves a request."""
    query_id = await slow_queries.asubmit("app", "op", {"q": request.GET["q"]})
    answer = await slow_queries.aresult(query_id)
    return JsonResponse({"id": str(query_id), "try_later": answer.try_later})


def run(coroutine):
    """Run a coroutine to its end, and close the connections of the thread in which it asked the database."""

    async def run_and_close():
        try:
            return await coroutine
        finally:
            await sync_to_async(connections.close_all)()

    return asyncio.run(run_and_close())


urlpatterns = [path("ask/", ask)]


class AsyncTests:
    def test_the_verbs_of_batches_can_be_awaited(self) -> None:
        """Submitted, asked for and aborted inside an event loop."""
        register_batch_processor("app", "op", echo)

        async def story():
            batch_id = await batches.asubmit("app", "op", (n for n in range(3)), wait=True, requested_by="asha")
            summary = await batches.astatus(batch_id)
            result = await batches.aresult(batch_id)
            aborted = await batches.aabort(batch_id)
            return summary.status, result.try_later, aborted.naborted

        assert run(story()) == (Status.WAIT, True, 3)

    def test_the_verbs_of_slow_queries_can_be_awaited(self) -> None:
        """So can those of slow queries, errors and all."""
        register_slow_query("app", "op", echo)

        async def submit():
            return await slow_queries.asubmit("app", "op", {"a": 1})

        query_id = run(submit())
        drain()

        async def answer_and_abort():
            assert (await slow_queries.astatus(query_id)).status is Status.SUCCESS
            answer = await slow_queries.aresult(query_id)
            with pytest.raises(AlreadyDone):
                await slow_queries.aabort(query_id)
            return answer

        assert run(answer_and_abort()).result == {"a": 1}

    @pytest.mark.urls("tests.test_async")
    def test_work_in_an_asgi_application(self) -> None:
        """A coroutine view under ASGI submits and asks."""
        register_slow_query("app", "op", echo)
        assert get_asgi_application() is not None

        async def request():
            return await AsyncClient().get("/ask/", {"q": "x"})

        body = run(request()).json()
        assert body["try_later"] is True
        drain()
        assert slow_queries.result(body["id"]).result == {"q": "x"}

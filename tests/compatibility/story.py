"""The story that every project must be able to tell: ``python -m tests.compatibility.story``."""

from __future__ import annotations

import django
from django.core.files.base import ContentFile
from django.core.management import call_command

SECRET = "a password"


def main() -> None:
    django.setup()
    from django.apps import apps
    from django.conf import settings

    for alias in settings.DATABASES:
        call_command("migrate", database=alias, verbosity=0)
        call_command("check", databases=[alias], fail_level="WARNING")
    batch_id, query_id = work()
    if apps.is_installed("django.contrib.admin"):
        look(batch_id, query_id)
    from django.db import connections

    connections.close_all()
    print("told")


def work():
    """Submit, work off by the command, abort, retry and read back."""
    from alya_django import (
        QueryResult,
        RowFailed,
        RowResult,
        Status,
        batches,
        register_batch_processor,
        register_slow_query_processor,
        slow_queries,
    )

    failing = {2}

    @register_batch_processor("story", "copy")
    def copy(row):
        if row.line in failing:
            raise RowFailed("no")
        return RowResult.success(row.input, output_lines={"all.csv": row.input["name"]})

    @register_slow_query_processor("story", "report")
    def report(row):
        return QueryResult.success({"n": 1}, output_files={"r.txt": ContentFile(b"report")})

    batch_id = batches.submit("story", "copy", ({"name": f"n{line}"} for line in range(1, 40)), requested_by="me")
    query_id = slow_queries.submit("story", "report", {})
    aborted = batches.submit("story", "copy", [{"name": "x"}], wait=True)
    assert batches.append(aborted, [{"name": "y"}]) == 2
    assert batches.abort(aborted).naborted == 2
    call_command("alya_worker", "--drain")
    result = batches.result(batch_id)
    assert (result.status, result.nsuccess, result.nfailed) == (Status.FAILED, 38, 1), result
    (details,) = [d for d in batches.recent("story", days=1) if d.id == batch_id]
    assert details.requested_at <= details.started_at <= details.done_at, details
    with batches.open_output(batch_id, "all.csv") as file:
        assert file.read().count(b"\n") == 38
    with slow_queries.open_output(query_id, "r.txt") as file:
        assert file.read() == b"report"
    failing.clear()
    child = batches.retry(batch_id)
    call_command("alya_worker", "--drain")
    assert batches.status(child).status is Status.SUCCESS
    return batch_id, query_id


def look(batch_id, query_id) -> None:
    """See the pages, on the default site and on the project's own."""
    from django.contrib.auth import get_user_model
    from django.test import Client
    from django.test.utils import setup_test_environment

    setup_test_environment()
    user = get_user_model().objects.create_superuser("boss", password=SECRET)
    client = Client()
    client.force_login(user)
    for site in ("admin", "own"):
        for page in (
            "batch/",
            f"batch/{batch_id}/change/",
            f"batch/{query_id}/change/",
            f"batchrow/?batch={batch_id}&status=failed",
            "worker/",
        ):
            response = client.get(f"/{site}/alya_django/{page}")
            assert response.status_code == 200, (site, page, response.status_code)


if __name__ == "__main__":
    main()

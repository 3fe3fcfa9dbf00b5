from __future__ import annotations

import pytest

from alya_django import Status, batches, slow_queries
from alya_django.models import Worker
from tests.concurrency.connections import wait_until
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


def workers_serve(*ops: str) -> bool:
    """Tell whether there is one worker for each of these ops of the app ``acceptance``."""
    served = [[op for _, app, op in worker.ops if app == "acceptance"] for worker in Worker.objects.all()]
    return sorted(served) == sorted([op] for op in ops)


class ReleaseTests:
    @pytest.mark.rule("SCO-3", "SCO-2", "ERR-2")
    def test_two_releases_with_different_ops_run_side_by_side(self, manage, environment) -> None:
        """What the other release alone knows is not failed while that lives; what nobody knows is, with message 2."""
        environment["ACCEPTANCE_CONFIG_FAILURE_SECONDS"] = "0.5"
        environment["ACCEPTANCE_RELEASE"] = "old"
        old = manage("alya_worker")
        environment["ACCEPTANCE_RELEASE"] = "new"
        new = manage("alya_worker")
        wait_until(lambda: workers_serve("old", "new"), "both releases serve")
        of_old = batches.submit("acceptance", "old", [0.05] * 40)
        of_new = batches.submit("acceptance", "new", [0.05] * 40)
        unknown = batches.submit("acceptance", "gone", [0])
        wait_until(lambda: not batches.status(unknown).try_later, "nobody's op is given up")
        wait_until(lambda: not batches.status(of_old).try_later, "the old release has done its own")
        wait_until(lambda: not batches.status(of_new).try_later, "the new release has done its own")
        assert batches.status(of_old).status is Status.SUCCESS
        assert batches.status(of_new).status is Status.SUCCESS
        (message,) = batches.line(unknown, 1).messages
        assert message.msgid == 2
        # Once the old release has gone, the new one finds its op to be nobody's.
        old.terminate()
        assert old.wait(60) == 0
        orphan = slow_queries.submit("acceptance", "old", 0)
        wait_until(lambda: not slow_queries.result(orphan).try_later, "the orphan is given up")
        assert slow_queries.result(orphan).messages[0].msgid == 2
        new.terminate()
        assert new.wait(60) == 0
        check_invariants()

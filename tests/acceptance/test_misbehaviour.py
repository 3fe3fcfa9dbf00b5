"""Whatever comes out of a processor, under the real command: what becomes of its row, the others and the service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import cycle
from uuid import UUID

import pytest

from alya_django import Status, batches, slow_queries
from alya_django.models import Batch, BatchRow
from tests.acceptance.ops.misbehaviour import (
    APP,
    DEATHS,
    EXHAUST,
    FAULTS,
    LOOP_FAULTS,
    NEED,
    RARE_FAULTS,
    WAYS,
    WELL,
)
from tests.acceptance.questions import is_done
from tests.concurrency.connections import wait_until
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

# More than a worker needs, and less than would hurt the machine.
MEMORY_BYTES = 3 * 2**29
BATCH_WAYS = [way for way in WAYS if "slow" not in way]
COROUTINES = [way for way in WAYS if "coroutine" in way]
ONE_BY_ONE = ["batch", "coroutine", "slow-query", "slow-coroutine"]

Ending = tuple[Status, int | None, int]
WELL_ENDED: Ending = (Status.SUCCESS, None, 0)


@pytest.fixture
def work(manage):
    """Have a worker command see to all that was submitted; it goes on with other work, and stops when told to."""

    def work() -> str:
        worker = manage("alya_worker")
        wait_until(lambda: not Batch.objects.filter(done_at=None).exists(), "all batches have ended", seconds=120)
        another = batches.submit("acceptance", "sleep", [0])
        wait_until(lambda: is_done(another), "the service goes on")
        worker.terminate()
        output, _ = worker.communicate(timeout=60)
        assert worker.returncode == 0, output
        check_invariants()
        return output

    return work


def submit(way: str, deeds: Iterable[str]) -> list[UUID]:
    """Submit one batch whose rows do these things between rows that do well, or a slow query for each."""
    if way not in BATCH_WAYS:
        return [slow_queries.submit(APP, way, deed) for deed in deeds]
    return [batches.submit(APP, way, [WELL, *(row for deed in deeds for row in (deed, WELL))])]


def endings(way: str) -> dict[str, set[Ending]]:
    """Return how the rows of a way have ended, by what they did: state, message and deaths counted."""
    found: dict[str, set[Ending]] = {}
    for row in BatchRow.objects.filter(batch__app=APP, batch__op=way):
        msgid = row.messages[0]["msgid"] if row.messages else None
        found.setdefault(row.input, set()).add((Status(row.status), msgid, row.lost))
    return found


@pytest.fixture
def calls(tmp_path):
    """Tell how often each row of some ways was begun."""

    def count(ways: Iterable[str]) -> Counter[int]:
        ids = {str(batch_id) for batch_id in Batch.objects.filter(op__in=ways).values_list("pk", flat=True)}
        keys = Counter(key for key in (tmp_path / "calls").read_text().splitlines() if key.split(":")[0] in ids)
        return Counter(keys.values())

    return count


class FaultTests:
    @pytest.mark.rule("ERR-6")
    def test_whatever_is_raised_fails_its_row_alone(self, environment, work, calls) -> None:
        """
        Message 10, and each row was begun once.

        That is every exception that Python has, and some that others have; memory that runs out, which is there for
        the next row, though the failure is not recorded yet; and what ends an event loop. Where several share that,
        those in hand are begun again.
        """
        environment["ACCEPTANCE_MEMORY_BYTES"] = str(MEMORY_BYTES)
        # A slow query costs more than a row: two ways to answer one do with what the third has not shown.
        deeds = {way: FAULTS if way in [*BATCH_WAYS, "slow-query"] else RARE_FAULTS for way in WAYS}
        for way in WAYS:
            submit(way, deeds[way])
            submit(way, [EXHAUST, NEED, EXHAUST, NEED] if way in ONE_BY_ONE else [EXHAUST])
        for way in COROUTINES:
            submit(way, LOOP_FAULTS)
        output = work()
        for way in WAYS:
            failed = {*deeds[way], EXHAUST, *(LOOP_FAULTS if way in COROUTINES else ())}
            found = endings(way)
            assert set().union(*(found.pop(deed) for deed in failed)) == {(Status.FAILED, 10, 0)}, way
            assert set().union(*found.values()) <= {WELL_ENDED}, way
        assert set(calls(ONE_BY_ONE)) == set(calls(["threads"])) == {1}
        assert set(calls(["coroutines"])) <= {1, 2}
        assert "has died" not in output


class DeathTests:
    @pytest.mark.rule("REC-6")
    def test_what_ends_the_process_is_blamed_on_its_row(self, work) -> None:
        """With any exit code, each in turn: message 11 after as many deaths as it may have; its neighbours succeed."""
        deaths = dict(zip(WAYS, cycle(DEATHS), strict=False))
        for way, death in deaths.items():
            submit(way, [death])
        work()
        for way, death in deaths.items():
            found = endings(way)
            assert found.pop(death) == {(Status.FAILED, 11, 2)}, way
            assert {ending[:2] for ending in found.pop(WELL, set())} <= {WELL_ENDED[:2]}

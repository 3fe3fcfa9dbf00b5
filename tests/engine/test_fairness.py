from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as some

from alya_django import Status, batches, register_batch_processor, slow_queries
from alya_django import register_slow_query_processor as register_slow_query
from alya_django.db import RowEnding
from alya_django.engine.claim import OLDEST_EVERY, Chunk, Claimer
from alya_django.engine.deliver import Deliverer
from alya_django.engine.finish import Finisher
from alya_django.engine.init_blocks import InitBlocks
from alya_django.engine.record import Recorder
from alya_django.engine.recover import Recovery
from alya_django.models import Batch, BatchRow, database
from alya_django.registry import Registration
from alya_django.registry import registry as all_registered
from alya_django.status import PENDING, Kind
from alya_django.testing import isolated_registry
from tests.invariants import check_invariants
from tests.processors import echo

pytestmark = pytest.mark.django_db

SECONDS = {"quick": 0.01, "plain": 0.03, "slow": 0.7}
CHUNK_ROWS = {"quick": 8, "plain": 4, "slow": 1}
ROUNDING = 1e-6


class KnownPace:
    """A pace that knows how long rows take, so that nobody has to wait for them."""

    def seconds(self, registration: Registration) -> float:
        return SECONDS[registration.op]

    def chunk_rows(self, registration: Registration) -> int:
        return CHUNK_ROWS[registration.op]


class Workers:
    """Some workers, step by step; ``served`` is the seconds of work that each batch was given."""

    def __init__(self, count: int = 1) -> None:
        self._claimers = {number: self._claimer(number) for number in range(1, count + 1)}
        self._recorders = {
            number: Recorder(database(), number=number, name=f"worker-{number}") for number in self._claimers
        }
        self._finisher = Finisher(database(), self._recorders[1], Deliverer(database(), InitBlocks()))
        self._takes: Counter[int] = Counter()
        self.hands: dict[int, Chunk] = {}
        self.served: defaultdict[UUID, float] = defaultdict(float)

    def take(self, number: int = 1) -> tuple[Chunk | None, bool]:
        """Let a worker end what it has in hand and claim; return the chunk and whether it goes by age."""
        self.end(number)
        self._takes[number] += 1
        chunk = self._claimers[number].take()
        if chunk is not None:
            self.hands[number] = chunk
            self.served[chunk.batch.pk] += len(chunk.rows) * SECONDS[chunk.batch.op]
        return chunk, self._takes[number] % OLDEST_EVERY == 0

    def order(self, takes: int) -> list[UUID]:
        """Return the batches of so many claims of one worker."""
        return [chunk.batch.pk for chunk in (self.take()[0] for _ in range(takes)) if chunk is not None]

    def restart(self, number: int = 1) -> None:
        """Put a worker that remembers nothing in the place of another."""
        self.end(number)
        self._claimers[number], self._takes[number] = self._claimer(number + 100), 0

    def end(self, number: int) -> None:
        if chunk := self.hands.pop(number, None):
            endings = [RowEnding(row.id, Status.SUCCESS, "{}", None, None) for row in chunk.rows]
            self._recorders[number].record(chunk.batch.pk, chunk.claim, endings)
            self._finisher.finish(chunk.batch.pk)

    def requeue(self, number: int, *, delay: float = 0.0) -> None:
        if chunk := self.hands.pop(number, None):
            self._recorders[number].requeue(chunk.batch.pk, chunk.claim, delay=delay)
            wake()

    def die(self, number: int) -> None:
        if chunk := self.hands.pop(number, None):
            Recovery(database()).bury(number)
            self._finisher.finish(chunk.batch.pk)

    def _claimer(self, number: int) -> Claimer:
        return Claimer(
            database(),
            number=number,
            name=f"worker-{number}",
            registrations=list(all_registered),
            is_usable=lambda app: True,
            pace=KnownPace(),  # type: ignore[arg-type]
        )


def wake() -> None:
    """Do what every worker does in passing: look again where a row is due."""
    Batch.objects.all().wake(BatchRow.objects.all().due())


def submit(op: str = "quick", rows: int = 1_000, *, weight: float = 1.0, wait: bool = False) -> UUID:
    return batches.submit("app", op, range(rows), weight=weight, wait=wait)


def register() -> None:
    for op in SECONDS:
        register_batch_processor("app", op, echo)


def runnable() -> dict[UUID, Batch]:
    """Return the batches that have a row to claim, by what their rows say."""
    claimable = Q(rows__status=Status.QUEUED) & (Q(rows__retry_at=None) | Q(rows__retry_at__lte=Now()))
    found = Batch.objects.filter(claimable, status__in=PENDING, held_at=None).distinct()
    return {batch.pk: batch for batch in found}


class Shares:
    """
    What start-time fair queueing promises, checked claim by claim.

    While two batches both have rows to claim, the seconds of one, over its weight, are ahead of the other's by no more
    than a chunk of each; a batch that is queued goes first, and competes from then on. That is exact: what is charged
    is what was claimed, and whoever comes, or comes back, starts beside the one that is furthest behind. Allowed for
    is the claim by age, every eighth: it is there so that the oldest batch goes on whatever its weight, so what it
    gives is not held against the others, and a batch that it has sent ahead waits until they have caught up.

    Source: Goyal, Vin and Cheng 1996, theorem 1.
    """

    def __init__(self) -> None:
        self._ahead: defaultdict[tuple[UUID, UUID], float] = defaultdict(float)
        self._sent_ahead: set[UUID] = set()

    def note(self, before: dict[UUID, Batch], chunk: Chunk | None, *, by_age: bool) -> None:
        """Take in a claim, and what could have been claimed from before it."""
        if chunk is None:
            assert not before
            return
        given = chunk.batch.pk
        queued = {batch_id for batch_id, batch in before.items() if batch.status == Status.QUEUED}
        assert by_age or not queued or given in queued
        competing = before.keys() - queued
        self._ahead = defaultdict(
            float, {pair: ahead for pair, ahead in self._ahead.items() if competing >= set(pair)}
        )
        time = len(chunk.rows) * SECONDS[chunk.batch.op] / chunk.batch.weight
        if by_age:
            self._sent_ahead.add(given)
        for other in competing - {given}:
            if not by_age:
                self._ahead[given, other] += time
            self._ahead[other, given] -= time
            if other not in self._sent_ahead:
                allowed = largest_time(before[other]) + largest_time(before[given]) + ROUNDING
                assert self._ahead[given, other] <= allowed


def largest_time(batch: Batch) -> float:
    return CHUNK_ROWS[batch.op] * SECONDS[batch.op] / batch.weight


BATCHES = some.tuples(some.sampled_from(sorted(SECONDS)), some.sampled_from([0.2, 1.0, 1.0, 3.0, 10.0]))
STEPS = some.lists(
    some.one_of(
        *[some.tuples(some.just("take"), some.integers(1, 3))] * 4,
        some.tuples(some.just("run"), some.integers(1, 3)),
        some.tuples(some.just("submit"), BATCHES),
        some.tuples(some.sampled_from(["release", "hold"]), some.integers(0, 5)),
        some.tuples(some.sampled_from(["requeue", "put_off", "die", "restart"]), some.integers(1, 3)),
        some.tuples(some.sampled_from(["fall_due", "retry"]), some.integers(0, 5)),
    ),
    min_size=20,
    max_size=40,
)


class ShareTests:
    @examples(
        max_examples=15,
        phases=[Phase.explicit, Phase.generate],
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(first=some.lists(BATCHES, min_size=2, max_size=4), steps=STEPS)
    @pytest.mark.rule("CLM-7")
    def test_no_batch_falls_behind_its_share(self, first: list[Any], steps: list[Any]) -> None:
        """Whatever comes, goes, fails and comes back: none that has rows is more than a chunk behind."""
        with isolated_registry(), transaction.atomic():
            register()
            known = [submit(op, 60, weight=weight) for op, weight in first]
            workers, shares = Workers(3), Shares()
            for step, about in steps:
                self.do(step, about, known, workers, shares)
            check_invariants()
            transaction.set_rollback(True)

    def do(self, step: str, about: Any, known: list[UUID], workers: Workers, shares: Shares) -> None:
        steps: dict[str, Callable[[], object]] = {
            "take": lambda: self.take(about, workers, shares),
            "run": lambda: [self.take(about, workers, shares) for _ in range(10)],
            "submit": lambda: known.append(submit(about[0], 60, weight=about[1], wait=len(known) % 3 == 0)),
            "release": lambda: self.release(known[about % len(known)]),
            "hold": lambda: Batch.objects.filter(pk=known[about % len(known)]).hold("no", nforgiven=0),
            "requeue": lambda: workers.requeue(about),
            "put_off": lambda: workers.requeue(about, delay=3_600.0),
            "die": lambda: workers.die(about),
            "restart": lambda: workers.restart(about),
            "fall_due": lambda: self.fall_due(known[about % len(known)]),
            "retry": lambda: self.retry(known, about),
        }
        steps[step]()

    def take(self, number: int, workers: Workers, shares: Shares) -> None:
        workers.end(number)
        before = runnable()
        chunk, by_age = workers.take(number)
        shares.note(before, chunk, by_age=by_age)

    def release(self, batch_id: UUID) -> None:
        batch = Batch.objects.get(pk=batch_id)
        if batch.is_held or batch.status == Status.WAIT:
            batches.release(batch_id)

    def fall_due(self, batch_id: UUID) -> None:
        BatchRow.objects.filter(batch=batch_id).requeued().update(retry_at=Now())
        wake()

    def retry(self, known: list[UUID], about: int) -> None:
        """Abort a batch and have what it had left done by a child."""
        batch_id = known[about % len(known)]
        if batch_id in runnable():
            batches.abort(batch_id)
            known.append(batches.retry(batch_id))


@pytest.fixture
def workers(registry: Any) -> Workers:
    register()
    register_slow_query("app", "plain", echo)
    return Workers()


@pytest.mark.rule("CLM-7")
class CaseTests:
    def test_a_small_batch_behind_a_large_one_is_next(self, workers: Workers) -> None:
        """However long the large one has run, the claim after the submit is of the small one."""
        submit()
        workers.order(20)
        small = submit(rows=8)
        assert small in workers.order(2)

    def test_a_batch_of_slow_rows_does_not_take_the_machine(self, workers: Workers) -> None:
        """Rows that take seventy times as long are claimed seventy times less often."""
        slow, quick = submit("slow"), submit(rows=4_000)
        workers.order(200)
        assert workers.served[slow] - workers.served[quick] <= 200 / OLDEST_EVERY * SECONDS["slow"]
        assert workers.served[quick] > 10

    def test_ten_times_the_weight_is_ten_times_the_time(self, workers: Workers) -> None:
        """The seconds of two batches are to each other as their weights, give or take a chunk."""
        heavy, light = submit(rows=4_000, weight=10.0), submit(rows=4_000)
        workers.order(220)
        assert abs(workers.served[heavy] - 10 * workers.served[light]) <= 11 * 8 * SECONDS["quick"]

    def test_the_oldest_goes_on_whatever_its_weight(self, workers: Workers) -> None:
        """One claim in eight is of the oldest."""
        oldest = submit(weight=0.001)
        submit(rows=4_000, weight=100.0)
        assert workers.order(81).count(oldest) >= 10

    def test_the_oldest_does_not_level_the_others(self, workers: Workers) -> None:
        """Beside an oldest one of little weight the other two still share by theirs."""
        submit(weight=0.1)
        heavy, light = submit(rows=4_000, weight=10.0), submit(rows=4_000)
        workers.order(160)
        assert abs(workers.served[heavy] - 10 * workers.served[light]) <= 11 * 8 * SECONDS["quick"]

    def test_what_was_held_does_not_claim_back_its_time(self, workers: Workers) -> None:
        """Released, it shares with the other, also where the worker remembers nothing."""
        other, held = submit(), submit()
        workers.order(4)
        Batch.objects.filter(pk=held).hold("no", nforgiven=0)
        workers.order(50)
        batches.release(held)
        workers.restart()
        assert 8 <= workers.order(20).count(other) <= 12

    def test_what_waited_does_not_claim_back_its_time(self, workers: Workers) -> None:
        """A batch that is released late starts beside the others."""
        other, late = submit(), submit(wait=True)
        workers.order(50)
        batches.release(late)
        workers.restart()
        assert 8 <= workers.order(20).count(other) <= 12

    @pytest.mark.parametrize("is_dead", [False, True])
    def test_rows_that_come_back_do_not_claim_back_their_time(self, workers: Workers, is_dead: bool) -> None:
        """All rows in retry, or of a dead worker: they come back beside the others."""
        away = submit(rows=8)
        workers.take()
        chunk = workers.hands[1]
        workers.requeue(1, delay=3_600.0)
        other = submit()
        workers.order(50)
        rows = BatchRow.objects.filter(batch=away)
        if is_dead:
            rows.update(status=Status.IN_PROGRESS, claim=chunk.claim + 2**40, done_by="worker-9", retry_at=None)
            Recovery(database()).recover()
        else:
            rows.update(retry_at=Now())
            wake()
        turn = Batch.objects.values_list("turn", flat=True)
        assert turn.get(pk=away) >= turn.get(pk=other)

    def test_a_newcomer_to_an_idle_machine_starts_where_it_stopped(self, workers: Workers) -> None:
        """While all others wait for their retries it gets no claim on the time that they have had."""
        early = submit(rows=400)
        workers.order(40)
        workers.requeue(1, delay=3_600.0)
        BatchRow.objects.filter(batch=early, status=Status.QUEUED).update(retry_at="2100-01-01T00:00Z")
        workers.take()
        newcomer = submit()
        workers.order(2)
        BatchRow.objects.filter(batch=early).requeued().update(retry_at=Now())
        wake()
        workers.restart()
        assert 8 <= workers.order(20).count(newcomer) <= 12

    @pytest.mark.rule("CLM-6")
    def test_slow_queries_alternate_with_batches(self, workers: Workers) -> None:
        """Neither a heap of slow queries nor a large batch has the worker to itself."""
        submit()
        for _ in range(5):
            slow_queries.submit("app", "plain", {})
        kinds = [Batch.objects.get(pk=batch_id).kind for batch_id in workers.order(10)]
        assert kinds == [Kind.SLOW_QUERY, Kind.BATCH] * 5

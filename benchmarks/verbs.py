"""
All verbs and several workers on the same batches at random: no deadlock reaches a caller, and no rule is broken.

Processes of three kinds share one server. Callers submit, append, release, abort, retry, ask and read, each verb on a
batch chosen at random among the latest, some in a transaction that is rolled back. Half of the batches are of an
atomic op, and in all of them rows fail and are put off. Workers come, work off some chunks, and go. A recoverer looks
for the dead, and declares living workers dead, so that what they record comes too late. Meanwhile this process asks,
in snapshots of the database, for whatever breaks a rule (``tests.invariants``). After each round, of a quarter of a
minute, everybody stops; what is left is worked off, and looked at once more.

``refused`` counts the verbs that raised one of Alya's own errors, as they must: an append to a batch that runs.
``deadlocks_seen_by_callers`` counts what reached a caller, ``deadlocks_in_workers`` what reached the loop of a worker,
which begins the round anew, ``deadlocks_in_server`` what the server has broken up; ``stuck`` the released batches that
have not ended when nothing is left to do.

Not shown: how fast. Processes that are killed: see ``chaos``.

Budget: ``deadlocks_seen_by_callers``, ``broken_invariants`` and ``stuck`` 0.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from itertools import count
from typing import Any
from uuid import UUID

import django
from django.db import Error, connection, connections, transaction

from benchmarks import harness

APP, OPS, QUERY = "benchmarks", ["mixed", "mixed-atomic"], "answer"
ROUND_SECONDS = 15.0
CALLERS, WORKERS = 2, 2
THREADS = 3
LATEST = 40
CHUNKS_MAX = 30
REST_SECONDS = 0.01
LOOK_EVERY_SECONDS = 0.5
DEATHS_EVERY_SECONDS = 0.5
DEADLOCK, SERIALIZATION_FAILURE = "40P01", "40001"

UNWANTED = ["deadlocks_seen_by_callers", "broken_invariants", "stuck", "other_errors"]
TOLD = ["deadlocks_in_workers", "deadlocks_in_server"]

Counts = Counter[str]


def main() -> None:
    parser = argparse.ArgumentParser(description="Call all verbs at random beside workers.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    counts: Counts = Counter()
    spawn = multiprocessing.get_context("spawn")
    with harness.alya(), ProcessPoolExecutor(CALLERS + WORKERS + 1, spawn, set_up) as processes:
        print(f"seed {options.seed}", flush=True)
        until = time.monotonic() + options.minutes * 60
        for number in count():
            seconds = min(ROUND_SECONDS, until - time.monotonic())
            if seconds <= 0:
                break
            counts += play(processes, seconds, options.seed + number)
            print(f"round {number + 1}: {counts['verbs']:,} verbs, {counts['rows']:,} rows", flush=True)
    harness.report(
        "verbs at random",
        {"minutes": options.minutes, **{name: counts[name] for name in [*UNWANTED, *TOLD, *sorted(counts)]}},
    )
    if any(counts[name] for name in UNWANTED):
        raise SystemExit(1)


def set_up() -> None:
    """Make a process one of the project."""
    django.setup()
    # What is meant to go wrong here need not be told.
    logging.disable(logging.ERROR)


def play(processes: ProcessPoolExecutor, seconds: float, seed: int) -> Counts:
    """Let everybody act for some seconds, look meanwhile and afterwards, and return what was counted."""
    harness.empty_tables()
    roles = [call_verbs] * CALLERS + [work] * WORKERS + [recover]
    running = [processes.submit(role, seconds, f"{seed}/{number}") for number, role in enumerate(roles)]
    counts = look(running)
    for role in running:
        counts += role.result()
    with counting(counts, "in_workers"):
        work_off()
    counts["stuck"] += unfinished()
    counts["broken_invariants"] += count_broken()
    counts["deadlocks_in_server"] = deadlocks_in_server() - counts["deadlocks_in_server"]
    return counts


def look(running: list[Future[Counts]]) -> Counts:
    """Look for broken rules until everybody has stopped."""
    counts: Counts = Counter(deadlocks_in_server=deadlocks_in_server())
    while wait(running, LOOK_EVERY_SECONDS).not_done:
        counts["broken_invariants"] += count_broken()
        counts["looks"] += 1
    return counts


def count_broken() -> int:
    """Return 1 if a snapshot of the tables breaks a rule, and say which."""
    from tests.invariants import check_invariants

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        try:
            check_invariants()
        except AssertionError as broken:
            print(f"broken: {broken}", flush=True)
            return 1
    return 0


def work_off() -> None:
    """Bring to its end what the round has left."""
    from alya_django.engine.recover import Recovery
    from alya_django.engine.worker import Worker
    from alya_django.models import database

    while not Recovery(database()).recover().is_all:
        pass
    with Worker() as worker:
        worker.drain()


def unfinished() -> int:
    """Return how many batches that should have ended have not."""
    from alya_django.models import Batch
    from alya_django.status import FINAL, Status

    return Batch.objects.exclude(status__in=[*FINAL, Status.WAIT]).filter(held_at__isnull=True).count()


def deadlocks_in_server() -> int:
    """Return how many deadlocks the server has broken up."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT PG_STAT_CLEAR_SNAPSHOT(), deadlocks FROM pg_stat_database WHERE datname = 'alya'")
        return int(cursor.fetchone()[1])


# One process each.


def call_verbs(seconds: float, seed: str) -> Counts:
    """Call verbs in some threads."""
    return in_threads(lambda dice, counts: Caller(dice, counts).call_one(), seconds, seed, "seen_by_callers")


def work(seconds: float, seed: str) -> Counts:
    """Have workers come and go in some threads."""
    return in_threads(work_some, seconds, seed, "in_workers")


def recover(seconds: float, seed: str) -> Counts:
    """Recover again and again, and declare a living worker dead now and then."""
    return in_threads(recover_once, seconds, seed, "in_recovery", threads=1)


def in_threads(
    act: Callable[[random.Random, Counts], None], seconds: float, seed: str, where: str, *, threads: int = THREADS
) -> Counts:
    """Act again and again in some threads, and return what was counted in all of them."""
    until = time.monotonic() + seconds

    def run(number: int) -> Counts:
        counts: Counts = Counter()
        dice = random.Random(f"{seed}/{number}")
        while time.monotonic() < until:
            with counting(counts, where):
                act(dice, counts)
        connections.close_all()
        return counts

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(run, range(threads)), Counter())


@contextmanager
def counting(counts: Counts, where: str) -> Iterator[None]:
    """Count what is raised: refused by Alya, a deadlock, or what nobody expects."""
    from alya_django import AlyaError

    try:
        yield
    except AlyaError:
        counts["refused"] += 1
    except Exception as error:
        is_deadlock = getattr(error.__cause__, "sqlstate", None) in (DEADLOCK, SERIALIZATION_FAILURE)
        counts[f"deadlocks_{where}" if isinstance(error, Error) and is_deadlock else "other_errors"] += 1
        print(f"{where}: {type(error).__name__}: {error}", flush=True)


def work_some(dice: random.Random, counts: Counts) -> None:
    """Work off a few chunks as a new worker."""
    from alya_django.engine.watch import NoWatch
    from alya_django.engine.worker import Worker

    class Counting(NoWatch):
        def count(self, rows: int) -> None:
            counts["rows"] += rows

    with Worker(watch=Counting()) as worker:
        counts["workers"] += 1
        for _ in range(dice.randint(1, CHUNKS_MAX)):
            if worker.round() is None and not worker.run_once():
                time.sleep(REST_SECONDS)


def recover_once(dice: random.Random, counts: Counts) -> None:
    """Look for the dead, or bury one who is alive."""
    from alya_django.engine.recover import Recovery
    from alya_django.models import Worker, database

    recovery = Recovery(database())
    recovered = recovery.recover()
    if dice.random() < REST_SECONDS / DEATHS_EVERY_SECONDS and (numbers := Worker.objects.values_list("pk")):
        recovered += recovery.bury(dice.choice(list(numbers))[0])
        counts["declared_dead"] += 1
    counts["recovered"] += recovered.rows
    time.sleep(REST_SECONDS)


class Caller:
    """Somebody who calls one verb after the other, on whatever batch."""

    def __init__(self, dice: random.Random, counts: Counts) -> None:
        self._dice = dice
        self._counts = counts

    def call_one(self) -> None:
        """Call a verb, one time in twenty in a transaction that is then rolled back."""
        verbs: dict[Callable[[], Any], int] = {
            self.submit: 6,
            self.append: 6,
            self.release: 5,
            self.abort: 4,
            self.retry: 5,
            self.read: 6,
            self.submit_query: 4,
            self.abort_query: 2,
            self.read_query: 4,
        }
        (verb,) = self._dice.choices(list(verbs), list(verbs.values()))
        self._counts["verbs"] += 1
        self._counts[verb.__name__] += 1
        with transaction.atomic() if self._dice.random() < 0.05 else nullcontext():
            verb()
            if connection.in_atomic_block:
                transaction.set_rollback(True)

    def submit(self) -> None:
        from alya_django import batches

        few, many = self._dice.randint(1, 60), self._dice.randint(300, 1_000)
        batches.submit(
            APP,
            self._dice.choice(OPS),
            range(self._dice.choice([few] * 7 + [many])),
            wait=self._dice.random() < 0.3,
            unique_key=self._dice.choice([None, None, f"key {self._dice.randint(1, 200)}"]),
            weight=self._dice.choice([0.5, 1.0, 1.0, 100.0]),
        )

    def append(self) -> None:
        from alya_django import batches

        rows = range(self._dice.randint(1, 50))
        batches.append(self._batch("wait"), rows, wait=self._dice.random() < 0.7)

    def release(self) -> None:
        from alya_django import batches

        batches.release(self._batch("wait"))

    def abort(self) -> None:
        from alya_django import batches

        batches.abort(self._batch("wait", "queued", "inprog"))

    def retry(self) -> None:
        from alya_django import batches

        lines = self._dice.choice([None, None, [self._dice.randint(1, 14)]])
        batches.retry(self._batch("failed", "aborted"), lines=lines, wait=self._dice.random() < 0.2)

    def read(self) -> None:
        from alya_django import batches

        batch_id = self._batch("inprog", "success", "failed")
        batches.status(batch_id)
        result = batches.result(batch_id)
        assert result.try_later or len(result.rows) == result.nrows
        assert len(list(batches.iter_rows(batch_id))) >= len(result.rows)
        batches.line(batch_id, 1)
        batches.children(batch_id)
        for name in result.output_files:
            with batches.open_output(batch_id, name) as file:
                assert file.read()

    def submit_query(self) -> None:
        from alya_django import slow_queries

        slow_queries.submit(APP, QUERY, {})

    def abort_query(self) -> None:
        from alya_django import slow_queries

        slow_queries.abort(self._query("queued", "inprog"))

    def read_query(self) -> None:
        from alya_django import slow_queries

        answer = slow_queries.result(self._query("queued", "inprog", "success", "failed"))
        assert answer.status != "success" or answer.result

    def _batch(self, *states: str) -> UUID:
        from alya_django import batches

        return self._choice(batches.recent(APP, self._dice.choice(OPS), days=1, limit=LATEST), states)

    def _query(self, *states: str) -> UUID:
        from alya_django import slow_queries

        return self._choice(slow_queries.recent(APP, QUERY, days=1, limit=LATEST), states)

    def _choice(self, found: list[Any], states: tuple[str, ...]) -> UUID:
        """Return one at random, mostly one in a state that the verb is for."""
        from alya_django import NotFound

        fitting = [details for details in found if details.status in states]
        if not found:
            raise NotFound("There is nothing yet.")
        is_fitting = fitting and self._dice.random() < 0.8
        chosen: UUID = self._dice.choice(fitting if is_fitting else found).id
        return chosen


if __name__ == "__main__":
    main()

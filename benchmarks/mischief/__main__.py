"""
What becomes of a service whose ops misbehave, on machinery that fails.

Three worker commands with two processes each serve thirty ops: batches, plain and atomic, in threads and as
coroutines, and slow queries. In half of the ops some rows misbehave, each in one of the ways of ``ways``; and of
their batches a third has a ``mark_done`` that raises, a third one that takes its worker along. Meanwhile processes
are killed at random, and for a second or two now and then the storage takes nothing, or the database is out of reach.
Every row leaves a trace in a table. At the end all batches must have ended, and been told of.

``lost`` are well-behaved rows that did not succeed, or succeeded without a trace; ``doubled`` are rows of atomic ops
with more traces than they may have: one, or none where they failed; ``wrong_ending`` are misbehaving rows that did not
end as ``ways`` says, which are listed; ``unfinished`` are batches that have not ended, or that nobody was told of;
``service_ended`` counts the worker commands that ended by themselves.

Budget: all five 0.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from django.db import connection

from benchmarks import harness
from benchmarks.mischief.storage import AWAY
from benchmarks.mischief.ways import SUCCESS, TRANSACTIONS, WAYS
from tests.network import Proxy, proxy

COMMANDS = 3
COMMAND = [sys.executable, "-m", "django", "alya_worker", "--processes", "2"]
SETTINGS = {"HEARTBEAT_SECONDS": 1, "WORKER_TTL_SECONDS": 4, "SWEEP_SECONDS": 5}
ROWS = 40
MISBEHAVING_SHARE = 0.05
BATCHES_WAITING_MAX = 60
PAUSE_SECONDS = (0.2, 1.0)
AWAY_SECONDS = (0.2, 2.0)
KILL_SHARE, STORAGE_SHARE, DATABASE_SHARE = 0.3, 0.1, 0.05
DEADLINE_SECONDS = 240
UNWANTED = ("lost", "doubled", "wrong_ending", "unfinished", "service_ended")


def main() -> None:
    parser = argparse.ArgumentParser(description="Run ops that misbehave on machinery that fails.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    os.environ.update(ALYA=json.dumps(SETTINGS), BENCHMARKS_APPS=json.dumps(["benchmarks.mischief"]))
    with harness.alya("benchmarks.mischief.settings") as server, proxy(server.host, server.port) as way:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE effects (batch_id uuid NOT NULL, line integer NOT NULL)")
            cursor.execute("CREATE TABLE told (batch_id uuid PRIMARY KEY)")
        service = Service(way, server.url.replace(f":{server.port}/", f":{way.port}/"))
        counts = Counter(dict.fromkeys(UNWANTED, 0))
        try:
            play(service, random.Random(options.seed), time.monotonic() + options.minutes * 60)
            wait_for_end(service)
        finally:
            service.stop()
        counts.update(service_ended=service.ended, kills=service.kills, **count())
    harness.report("mischief", {"minutes": options.minutes, **counts})
    if any(counts[name] for name in UNWANTED):
        raise SystemExit(1)


class Service:
    """The worker commands, their way to the database, and their storage: whatever can be taken away from ops."""

    def __init__(self, way: Proxy, url: str) -> None:
        self._way = way
        self._environment = {**os.environ, "DATABASE_URL": url}
        self._away = Path(os.environ["STORAGE_DIR"], AWAY)
        self._commands = [self._start() for _ in range(COMMANDS)]
        self.ended = self.kills = 0

    def look_after(self) -> None:
        """Start another command in the place of one that has ended by itself."""
        for place, command in enumerate(self._commands):
            if command.poll() is not None:
                print(f"a worker command ended with {command.returncode}", flush=True)
                self.ended += 1
                self._commands[place] = self._start()

    def kill_one(self, dice: random.Random) -> None:
        """Kill one process of a command, or the whole of it, in whose place another is started."""
        place = dice.randrange(COMMANDS)
        command = self._commands[place]
        children = psutil.Process(command.pid).children()
        if dice.random() < 0.2:
            command.kill()
            command.wait()
            self._commands[place] = self._start()
        else:
            children = children[:1]
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.kills += 1

    def take_storage_away(self, seconds: float) -> None:
        """Let the storage take nothing for a while."""
        self._away.touch()
        time.sleep(seconds)
        self._away.unlink()

    def take_database_away(self, seconds: float) -> None:
        """Break all connections, and let nobody connect for a while."""
        self._way.break_off()
        time.sleep(seconds)
        self._way.restore()

    def stop(self) -> None:
        """Stop all commands gently, and those that do not stop at once."""
        for command in self._commands:
            command.terminate()
        for command in self._commands:
            with suppress(subprocess.TimeoutExpired):
                command.wait(60)
            command.kill()
            command.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(COMMAND, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def play(service: Service, dice: random.Random, until: float) -> None:
    """Submit batches, and kill and take away, until the time is over."""
    while time.monotonic() < until:
        if waiting() < BATCHES_WAITING_MAX:
            submit_some(dice)
        for share, act in acts(service, dice):
            if dice.random() < share:
                act()
        service.look_after()
        time.sleep(dice.uniform(*PAUSE_SECONDS))


def acts(service: Service, dice: random.Random) -> list[tuple[float, Callable[[], None]]]:
    """Return what may be done to the service, each with its probability."""
    seconds = dice.uniform(*AWAY_SECONDS)
    return [
        (KILL_SHARE, lambda: service.kill_one(dice)),
        (STORAGE_SHARE, lambda: service.take_storage_away(seconds)),
        (DATABASE_SHARE, lambda: service.take_database_away(seconds)),
    ]


def submit_some(dice: random.Random) -> None:
    """Submit to some ops, drawn at random, good ones and bad ones alike."""
    from alya_django import batches, slow_queries
    from alya_django.registry import registry
    from alya_django.status import Kind
    from benchmarks.mischief.ops import APP, BAD

    entries = [entry for entry in registry if entry.app == APP]
    for entry in dice.sample(entries, 5):
        nature, flavour, _ = entry.op.split(".")
        ways = [name for name, way in WAYS.items() if flavour in way.flavours]
        share = MISBEHAVING_SHARE if nature == BAD else 0
        if entry.kind is Kind.SLOW_QUERY:
            slow_queries.submit(APP, entry.op, dice.choice(ways) if nature == BAD else "")
        else:
            rows = [dice.choice(ways) if dice.random() < share else "" for _ in range(ROWS)]
            batches.submit(APP, entry.op, rows)


def waiting() -> int:
    """Return how many batches have not ended."""
    from alya_django.models import Batch

    return Batch.objects.filter(done_at=None).count()


def wait_for_end(service: Service) -> None:
    """Wait until all batches have ended and been told of, or no longer."""
    until = time.monotonic() + DEADLINE_SECONDS
    while unfinished() and time.monotonic() < until:
        service.look_after()
        time.sleep(0.5)


def unfinished() -> int:
    """Return how many batches have not ended, or wait for their mark_done."""
    from alya_django.models import Batch

    return Batch.objects.filter(marked_done_at=None).count()


def count() -> dict[str, int]:
    """Compare every row with the ending that it must have, and with its traces."""
    from alya_django.models import BatchRow

    with connection.cursor() as cursor:
        cursor.execute("SELECT batch_id, line, COUNT(*) FROM effects GROUP BY batch_id, line")
        traces = {(batch_id, line): number for batch_id, line, number in cursor.fetchall()}
    counts: Counter[str] = Counter(unfinished=unfinished())
    wrong: Counter[tuple[str, str, str]] = Counter()
    rows = BatchRow.objects.values_list("batch_id", "batch__op", "line", "input", "status", "messages")
    for batch_id, op, line, way, status, messages in rows.iterator():
        ending = str(messages[0]["msgid"]) if messages else str(status)
        left = traces.get((batch_id, line), 0)
        counts["misbehaving" if way else "well_behaved"] += 1
        if not way and (ending != SUCCESS or not left):
            counts["lost"] += 1
        if way and ending != WAYS[way].ending:
            counts["wrong_ending"] += 1
            wrong[op.split(".")[1], way, ending] += 1
        if op.split(".")[1] in TRANSACTIONS and left > (status == SUCCESS):
            counts["doubled"] += 1
    for (flavour, way, ending), number in sorted(wrong.items()):
        print(f"{number} x {flavour}: {way!r} ended with {ending}, not {WAYS[way].ending}", flush=True)
    return dict(counts)


if __name__ == "__main__":
    main()

"""
What is lost, done twice or left behind when workers and supervisors are killed at random.

Two worker commands with two processes each work off batches of a plain op and of an atomic one, while every fraction
of a second one of their processes is killed by SIGKILL, or now and then a supervisor, in whose place another is
started. Each row leaves a trace in a table. At the end all batches must be finished.

``lost`` are rows that did not succeed, or succeeded without a trace; ``doubled`` are rows of the atomic op with more
than one trace; ``stuck`` are rows that have not ended, or whose batch has not; ``reruns`` are traces of plain rows
beyond the first, which a plain op cannot avoid.

Not shown: a server that is killed.

Budget: nothing lost, doubled or stuck.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from contextlib import suppress

import psutil
from django.db import connection

from benchmarks import harness

SUPERVISORS = 2
SUPERVISOR_SHARE = 0.2
PAUSE_SECONDS = (0.05, 0.4)
DEADLINE_SECONDS = 120
COMMAND = [sys.executable, "-m", "django", "alya_worker", "--processes", "2"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill workers at random while they work off batches.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rows", type=int, default=200, help="of each of the two batches submitted before a kill")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    os.environ["ALYA"] = json.dumps({"HEARTBEAT_SECONDS": 1, "WORKER_TTL_SECONDS": 4, "SWEEP_SECONDS": 5})
    with harness.alya():
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE effects (batch_id uuid NOT NULL, line integer NOT NULL)")
        supervisors = [start() for _ in range(SUPERVISORS)]
        try:
            rage(supervisors, dice, options.kills, options.rows)
            wait_for_end()
        finally:
            for supervisor in supervisors:
                supervisor.terminate()
            for supervisor in supervisors:
                supervisor.wait(60)
        harness.report("after kills at random", {"kills": options.kills, **count()})


def start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(COMMAND, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def rage(supervisors: list[subprocess.Popen[bytes]], dice: random.Random, kills: int, rows: int) -> None:
    """Submit batches and kill, in turn."""
    from alya_django import batches

    for _ in range(kills):
        for op in ("effect", "atomic_effect"):
            batches.submit("benchmarks", op, range(rows))
        while not kill_one(supervisors, dice):
            time.sleep(0.05)
        time.sleep(dice.uniform(*PAUSE_SECONDS))


def kill_one(supervisors: list[subprocess.Popen[bytes]], dice: random.Random) -> bool:
    """Kill a child or a supervisor, in whose place another is started; return False if there is no child to kill."""
    place = dice.randrange(len(supervisors))
    chosen = supervisors[place]
    children = psutil.Process(chosen.pid).children()
    if not children:
        return False
    if dice.random() < SUPERVISOR_SHARE:
        chosen.kill()
        chosen.wait()
        supervisors[place] = start()
        # As if the host were gone, or so that its children find themselves alone.
        children = children if dice.random() < 0.5 else []
    else:
        children = [dice.choice(children)]
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    return True


def wait_for_end() -> None:
    """Wait until all batches have ended, or no longer."""
    from alya_django.models import Batch

    until = time.monotonic() + DEADLINE_SECONDS
    while Batch.objects.filter(done_at=None).exists() and time.monotonic() < until:
        time.sleep(0.1)


def count() -> harness.Figures:
    """Compare rows and traces."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT COUNT(*), COUNT(*) FILTER (WHERE r.status <> 'success' OR e.traces IS NULL),
                COUNT(*) FILTER (WHERE b.op = 'atomic_effect' AND e.traces > 1),
                COUNT(*) FILTER (WHERE r.status IN ('queued', 'inprog') OR b.done_at IS NULL),
                COALESCE(SUM(e.traces - 1) FILTER (WHERE b.op = 'effect'), 0)
            FROM alya_batchrows r JOIN alya_batches b ON b.id = r.batch_id
                LEFT JOIN (SELECT batch_id, line, COUNT(*) AS traces FROM effects GROUP BY batch_id, line) e
                ON e.batch_id = r.batch_id AND e.line = r.line
            """
        )
        rows, lost, doubled, stuck, reruns = map(int, cursor.fetchone())
    return {"rows": rows, "lost": lost, "doubled": doubled, "stuck": stuck, "reruns": reruns}


if __name__ == "__main__":
    main()

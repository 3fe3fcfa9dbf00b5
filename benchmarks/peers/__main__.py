"""
How many no-op rows a second Alya works off beside other task queues, each with two worker processes.

Every peer is installed in an environment of its own (``var/peers``), gets the inputs that Alya gets, enqueues them as
fast as it can, which is not counted, and has two processes work them off. Those on PostgreSQL use Alya's server, with
fsync on, and a database of their own, analysed once it is full; Celery has a Redis that writes nothing to disk.

In doubt, what favours the peer was chosen. The clock runs from the first task's start to the last one's end, by the
peer's own tables, so that neither starting processes nor connecting is counted; Celery has no such table, so its tasks
note the time, and what comes after the last one's start is free. Tasks of asyncio peers are coroutines. Each has the
settings that its documentation recommends for throughput; where it leaves a choice, the fastest of those tried, which
the peers' programs list. None was made less durable than it is by default. A peer that needs a newer Python than
Alya's gets the newest there is. Slow peers get fewer tasks; the rate is what counts. The rates are medians of the
rounds.

Not shown: what a task costs that does something, what a peer can do that Alya cannot, such as run a single task soon,
or what it keeps: pgqueuer, for one, deletes a job that ended and keeps a line of its log.

Budget: at least 8 times the fastest peer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psycopg
from django.db import connection

from benchmarks import harness
from benchmarks.peers import environments
from benchmarks.peers.program import PROCESSES
from benchmarks.throughput import rate_of
from tests import services

ROOT = Path(__file__).resolve().parents[2]


class Peer(NamedTuple):
    """A task queue: what to install, the oldest Python that takes it, and how many tasks take it some 5 to 15 s."""

    name: str
    requirements: tuple[str, ...]
    tasks: int
    python: tuple[int, int] = (3, 11)

    @property
    def module(self) -> str:
        return self.name.replace("-", "_")


PEERS = (
    Peer("procrastinate", ("procrastinate~=3.10", "psycopg[binary,pool]~=3.3"), 8_000),
    Peer("celery", ("celery[redis]~=5.7", "hiredis~=3.0"), 20_000),
    Peer("django-ox", ("django-ox~=1.9", "Django~=6.0", "psycopg[binary]~=3.3"), 6_000, python=(3, 12)),
    Peer("django-tasks-db", ("django-tasks-db~=0.13.0", "Django~=6.0", "psycopg[binary]~=3.3"), 5_000, python=(3, 12)),
    Peer("pgqueuer", ("pgqueuer~=1.6", "asyncpg~=0.32.0", "uvloop~=0.23.0"), 200_000),
)


class Run(NamedTuple):
    """What a peer did in one round."""

    rate: float
    versions: str
    settings: str


class PeerFailed(Exception):
    """A peer did not do its tasks; the text is its last line of complaint."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Work off no-op rows, and as many tasks of other queues.")
    parser.add_argument("--rows", type=int, default=200_000, help="Alya's; the peers have their own numbers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=[peer.name for peer in PEERS], action="append", help="may be repeated")
    parser.add_argument("--environments", type=Path, default=ROOT / "var" / "peers")
    parser.add_argument("--offline", action="store_true", help="install nothing: take the peers that are installed")
    options = parser.parse_args()

    peers = [peer for peer in PEERS if peer.name in (options.only or peer.name)]
    with harness.alya(), services.redis() as redis:
        os.environ["REDIS_URL"] = redis.url
        pythons = installed(peers, options.environments, offline=options.offline)
        ours, theirs = run_rounds(
            options.rounds,
            lambda: rate_of("worker", options.rows, PROCESSES),
            {peer: lambda peer=peer, python=python: run_peer(peer, python) for peer, python in pythons.items()},
        )
    report(options.rows, ours, theirs)


def installed(peers: list[Peer], folder: Path, *, offline: bool) -> dict[Peer, Path]:
    """Return the Python of each peer that can be had, and say of the others why not."""
    pythons = {}
    for peer in peers:
        try:
            place = folder / peer.name
            pythons[peer] = environments.python_of(place, peer.requirements, peer.python, offline=offline)
        except environments.Unavailable as error:
            print(f"{peer.name}: not available: {error}", flush=True)
    return pythons


def run_rounds(
    rounds: int, run_ours: Callable[[], float], run_theirs: dict[Peer, Callable[[], Run]]
) -> tuple[list[float], dict[Peer, list[Run]]]:
    """Run all in turn, as often as asked, and return what was measured, without peers that failed."""
    ours = []
    theirs = defaultdict(list)
    for number in range(rounds):
        ours.append(run_ours())
        print(f"round {number + 1}: ours {ours[-1]:,.0f}", flush=True)
        for peer, run in list(run_theirs.items()):
            try:
                theirs[peer].append(run())
            except PeerFailed as error:
                del run_theirs[peer]
                theirs.pop(peer, None)
                print(f"round {number + 1}: {peer.name}: not available: {error}", flush=True)
            else:
                print(f"round {number + 1}: {peer.name} {theirs[peer][-1].rate:,.0f}", flush=True)
    return ours, theirs


def run_peer(peer: Peer, python: Path) -> Run:
    """Have a peer enqueue its tasks and work them off."""
    with database() as url:
        payments = "".join(f"{json.dumps(payment)}\n" for payment in harness.payments(peer.tasks))
        call(peer, python, "enqueue", url, payments)
        with psycopg.connect(url, autocommit=True) as fresh:
            fresh.execute("ANALYZE")
            fresh.execute("CHECKPOINT")
        worked = json.loads(call(peer, python, "work", url).splitlines()[-1])
    if worked["tasks"] != peer.tasks:
        raise PeerFailed(f"it did {worked['tasks']} of {peer.tasks} tasks.")
    return Run(worked["tasks"] / worked["seconds"], worked["versions"], worked["settings"])


@contextmanager
def database() -> Iterator[str]:
    """Make an empty database on Alya's server, and drop it at the end."""
    harness.empty_tables()
    with connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE peer")
        try:
            yield os.environ["DATABASE_URL"].rpartition("/")[0] + "/peer"
        finally:
            cursor.execute("DROP DATABASE peer WITH (FORCE)")


def call(peer: Peer, python: Path, step: str, url: str, payments: str = "") -> str:
    """Run a step of a peer's program, and return what it prints."""
    done = subprocess.run(
        [python, "-m", f"benchmarks.peers.{peer.module}", step],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url},
        input=payments,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PeerFailed((done.stderr.strip().splitlines() or ["it said nothing."])[-1])
    return done.stdout


def report(rows: int, ours: list[float], theirs: dict[Peer, list[Run]]) -> None:
    """Print how each peer was set and how fast it was, and last the figures."""
    for peer, runs in theirs.items():
        print(f"\n{peer.name}: {median(run.rate for run in runs):,.0f} tasks/s, {peer.tasks:,} tasks")
        print(f"  {runs[-1].versions}\n  {runs[-1].settings}")
    found = figures(median(ours), {peer.module: median(run.rate for run in runs) for peer, runs in theirs.items()})
    harness.report(f"{rows:,} rows / tasks of peers, {PROCESSES} processes each{verdict(theirs)}", found)


def figures(ours: float, theirs: dict[str, float]) -> harness.Figures:
    """Return all rates, and how many times the fastest peer's ours is, where there is a peer."""
    found = {"ours_rows_per_s": ours, **{f"{name}_per_s": rate for name, rate in theirs.items()}}
    if theirs:
        fastest = max(theirs.values())
        found |= {"fastest_peer_per_s": fastest, "vs_fastest_peer": ours / fastest}
    return found


def verdict(theirs: dict[Peer, list[Any]]) -> str:
    """Name the fastest peer, if there is one."""
    if not theirs:
        return "; no peer is available"
    return f"; the fastest peer is {max(theirs, key=lambda peer: median(run.rate for run in theirs[peer])).name}"


if __name__ == "__main__":
    main()

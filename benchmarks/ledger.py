"""
Whether money that an atomic op moves is moved once, by workers that deadlock and are killed.

One worker command with two processes posts transfers between accounts drawn at random, as the bank of the example
project does: four statements and two locked accounts each. Meanwhile its processes are killed by SIGKILL, in equal
steps of the rows that have ended.

``discrepancies`` is what does not add up in the books, ``missing`` the transfers without their two entries,
``failed`` the rows that did not succeed. ``rows_per_s`` counts the kills in.

Not shown: a server that is killed, more than two processes.

Budget: no discrepancy, nothing missing, nothing failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from uuid import UUID

import psutil

from benchmarks import harness

BANK = ["django.contrib.contenttypes", "django.contrib.auth", "example_project.bank"]
ASKED_EVERY_SECONDS = 0.2
COMMAND = [sys.executable, "-m", "django", "alya_worker", "--processes", "2", "--app", "bank"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Post transfers with workers that are killed.")
    parser.add_argument("--transfers", type=int, default=100_000)
    parser.add_argument("--accounts", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    os.environ["BENCHMARKS_APPS"] = json.dumps(BANK)
    dice = random.Random(options.seed)
    print(f"seed {options.seed}", flush=True)
    with harness.alya():
        from alya_django import batches
        from example_project.bank import ledger
        from example_project.bank.models import Account, Entry

        numbers = [str(number) for number in range(options.accounts)]
        Account.objects.bulk_create(Account(number=number, holder="", kind="bank") for number in numbers)
        batch_id = batches.submit("bank", "transfer", transfers(numbers, options.transfers, dice))
        started = time.monotonic()
        with subprocess.Popen(COMMAND, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as supervisor:
            for number in range(options.kills):
                wait_until_ended(batch_id, options.transfers * (number + 1) // (options.kills + 1), supervisor)
                kill_one(supervisor, dice)
            wait_until_ended(batch_id, options.transfers, supervisor)
            seconds = time.monotonic() - started
            supervisor.terminate()
        posted = Entry.objects.filter(batch_id=batch_id)
        figures = {
            "transfers": options.transfers,
            "accounts": options.accounts,
            "kills": options.kills,
            "discrepancies": len(ledger.discrepancies()),
            "missing": options.transfers - posted.values("reference").distinct().count(),
            "failed": batches.status(batch_id).nfailed,
            "rows_per_s": options.transfers / seconds,
        }
    harness.report("money moved under kills", figures)
    if figures["discrepancies"] or figures["missing"] or figures["failed"]:
        raise SystemExit(1)


def transfers(numbers: list[str], count: int, dice: random.Random) -> Iterator[dict[str, str]]:
    """Yield orders among accounts drawn at random."""
    for _ in range(count):
        debtor, creditor = dice.sample(numbers, 2)
        yield {"debtor": debtor, "creditor": creditor, "amount": f"{dice.randint(1, 999)}.00"}


def wait_until_ended(batch_id: UUID, count: int, supervisor: subprocess.Popen[bytes]) -> None:
    """Wait until so many rows have ended, or the batch has; raise if the supervisor does first."""
    from alya_django import batches

    while (summary := batches.status(batch_id)).try_later and summary.nsuccess + summary.nfailed < count:
        check(supervisor)
        time.sleep(ASKED_EVERY_SECONDS)


def kill_one(supervisor: subprocess.Popen[bytes], dice: random.Random) -> None:
    """Kill one of the supervisor's processes, as soon as there is one."""
    while not (children := psutil.Process(supervisor.pid).children()):
        check(supervisor)
        time.sleep(ASKED_EVERY_SECONDS)
    dice.choice(children).kill()


def check(supervisor: subprocess.Popen[bytes]) -> None:
    """Raise if there is nobody left to work."""
    if supervisor.poll() is not None:
        raise RuntimeError(f"{' '.join(COMMAND)} ended with {supervisor.returncode}.")


if __name__ == "__main__":
    main()

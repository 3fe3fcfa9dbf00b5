"""
What becomes of files when the daemons that receive them, and the workers, are killed at random.

Two ``alya_watch`` daemons look at the same two directories, and two ``alya_worker`` commands work off what they
receive. In portions, files of several types arrive: of one line and of thousands, packed and not, some with faulty
lines, some of no use at all, and two pairs of one content each. As soon as one of a portion is in hand, and a moment
later, a daemon or a worker command is killed by SIGKILL, with its children, and another is started in its place. At
the end each file must be one batch, with all of its lines worked off, or one rejection, and of one content there must
be one batch.

``missing`` are files that are neither, or that became something else; ``twice`` are records and batches beyond the
first; ``left`` is what still lies in the directories; ``strays`` are objects in the storage that no record names, and
``holes`` those that one names and that are not there. A file whose process was killed twice is rejected unread, as it
must be: these are counted as ``spent``, and are no fault.

Not shown: a server or a storage that fails, a machine that loses its power.

Budget: all five are 0.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

from benchmarks import harness
from tests.intake import workbooks

if TYPE_CHECKING:
    from alya_django.models import BatchFile

MAPPINGS = ("*.csv=plain", "night/**/*.csv=atomic", "**/*.csv.gz=plain", "*.xlsx=sheets")
DIRECTORIES = ("payments", "sheets")
WORKER = ["alya_worker"]
LINES = (1, 10, 100, 1_000, 10_000)
PAUSE_SECONDS = (0.0, 0.3)
ASKED_EVERY_SECONDS = 0.01
DEADLINE_SECONDS = 180
LOG_CHARS = 2_000
PAIRS = 2
SPENT = "It has ended the process that received it"
FAULTS = ("missing", "twice", "left", "strays", "holes")


class Arrival(NamedTuple):
    """A file that arrives, and how many rows and faulty lines are to come of it; without rows it is to be rejected."""

    place: str
    content: bytes
    rows: int = 0
    nfaulty: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill daemons and workers at random while files arrive.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    dice = random.Random(options.seed)
    print(f"seed {options.seed}", flush=True)
    os.environ["ALYA"] = json.dumps({"HEARTBEAT_SECONDS": 1, "WORKER_TTL_SECONDS": 4, "SWEEP_SECONDS": 5})
    with harness.alya(), tempfile.TemporaryDirectory(prefix="alya-watched-") as name:
        folder = Path(name)
        files = arrivals(options.files, dice)
        started = time.monotonic()
        with Programs(folder) as programs:
            for number in range(options.kills):
                portion = [drop(folder, file) for file in files[number :: options.kills]]
                programs.wait_until(lambda portion=portion: not (portion and all(path.exists() for path in portion)))
                time.sleep(dice.uniform(*PAUSE_SECONDS))
                print(f"kill {number + 1}: {programs.kill_one(dice)}", flush=True)
            programs.wait_until(lambda: is_over(folder))
        seconds = time.monotonic() - started
        figures = {"kills": options.kills, "files": len(files), **judge(files, folder), "seconds": seconds}
    harness.report("files received under kills", figures)
    sys.exit(any(figures[name] for name in FAULTS))


class Programs:
    """The daemons and the workers: always as many, however many of them are killed."""

    def __init__(self, folder: Path) -> None:
        watched = [str(folder / name) for name in DIRECTORIES]
        for directory in watched:
            Path(directory).mkdir()
        matches = [f"--match={mapping}" for mapping in MAPPINGS]
        self._watch = ["alya_watch", *watched, *matches, "--age", "0", "--seconds", "0.2"]
        self._log = folder / "log"
        self._running: list[tuple[list[str], subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Programs:
        for command in (self._watch, self._watch, WORKER, WORKER):
            self._start(command)
        return self

    def __exit__(self, *exception: object) -> None:
        for _, process in self._running:
            process.terminate()
        for _, process in self._running:
            process.wait(DEADLINE_SECONDS)

    def kill_one(self, dice: random.Random) -> str:
        """Kill one of them and its children, start it anew, and return its name."""
        command, process = self._running.pop(dice.randrange(len(self._running)))
        for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
        self._start(command)
        return command[0]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds, or no longer; raise an error if one of them has ended by itself."""
        until = time.monotonic() + DEADLINE_SECONDS
        while not condition() and time.monotonic() < until:
            for command, process in self._running:
                if process.poll() is not None:
                    raise RuntimeError(f"{command[0]} ended: {self._log.read_text()[-LOG_CHARS:]}")
            time.sleep(ASKED_EVERY_SECONDS)

    def _start(self, command: list[str]) -> None:
        with self._log.open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "django", *command], stdout=log, stderr=log)
        self._running.append((command, process))


def arrivals(count: int, dice: random.Random) -> list[Arrival]:
    """Return so many files, each with a name of its own, two of them of the content of another."""
    files = [MAKES[number % len(MAKES)](number, dice) for number in range(count - PAIRS)]
    for number in range(PAIRS):
        first = files[number * len(MAKES)]
        files.append(first._replace(place=f"payments/again-{number}.csv"))
    dice.shuffle(files)
    return files


def plain(number: int, dice: random.Random) -> Arrival:
    return Arrival(f"payments/{number}.csv", *table(number, dice))


def nightly(number: int, dice: random.Random) -> Arrival:
    return Arrival(f"payments/night/{number % 3}/{number}.csv", *table(number, dice))


def packed(number: int, dice: random.Random) -> Arrival:
    content, *counts = table(number, dice)
    return Arrival(f"sheets/{number}.csv.gz", gzip.compress(content), *counts)


def sheet(number: int, dice: random.Random) -> Arrival:
    header, *rows = records(number, dice)
    return Arrival(f"sheets/{number}.xlsx", workbooks.workbook(workbooks.table(header, *rows)), len(rows))


def useless(number: int, dice: random.Random) -> Arrival:
    """Return a file of which nothing comes but a rejection."""
    content, *_ = table(number, dice)
    place, spoilt = dice.choice(
        (
            (f"payments/{number}.csv", b""),
            (f"payments/{number}.csv", b"account,amount\n1,2\n"),
            (f"payments/{number}.csv", content.replace(b",", b",,")),
            (f"sheets/{number}.csv.gz", gzip.compress(content)[:-9]),
            (f"sheets/{number}.xlsx", content),
        )
    )
    return Arrival(place, spoilt)


MAKES = (plain, nightly, packed, sheet, useless)


def table(number: int, dice: random.Random) -> tuple[bytes, int, int]:
    """Return a CSV file, and how many of its lines are good, and how many faulty; in half of the files none is."""
    header, *good = [",".join(record) for record in records(number, dice)]
    faulty = ["too short"] * dice.choice((0, 0, 1, 50))
    lines = dice.sample([*good, *faulty], len(good) + len(faulty))
    return "\n".join([header, *lines]).encode(), len(good), len(faulty)


def records(number: int, dice: random.Random) -> Iterator[tuple[str, ...]]:
    """Yield a header, and payments that no other file has."""
    yield "account", "amount", "reference"
    for payment in harness.payments(dice.choice(LINES)):
        yield payment["account"], payment["amount"], f"file {number}"


def drop(folder: Path, file: Arrival) -> Path:
    """Have a file arrive, as a whole."""
    path = folder / file.place
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_bytes(file.content)
    unfinished.rename(path)
    return path


def is_over(folder: Path) -> bool:
    """Tell whether all that arrived is received and worked off."""
    from alya_django.models import Batch, BatchFile

    return not (left(folder) or BatchFile.objects.undecided().exists() or Batch.objects.filter(done_at=None).exists())


def left(folder: Path) -> list[Path]:
    """Return what lies in the watched directories, but for what was set aside."""
    paths = (path for name in DIRECTORIES for path in (folder / name).rglob("*"))
    return [path for path in paths if path.is_file() and path.suffix != ".aside"]


def judge(files: list[Arrival], folder: Path) -> dict[str, float]:
    """Compare what has arrived with the records, the batches, and the objects."""
    from alya_django.models import Batch, BatchFile

    records: dict[str, list[BatchFile]] = defaultdict(list)
    for record in BatchFile.objects.exclude(is_accepted=None).select_related("batch"):
        records[record.file_name].append(record)
    alike: dict[bytes, list[Arrival]] = defaultdict(list)
    for file in files:
        alike[file.content].append(file)
    counts = Counter(dict.fromkeys(("accepted", "rejected", "spent", "missing", "twice"), 0))
    for of_content in alike.values():
        counts.update(compare(of_content[0], [records[Path(file.place).name] for file in of_content]))
    objects, named = stored_objects(), named_objects()
    counts["twice"] += Batch.objects.count() - counts["accepted"]
    return {**counts, "left": len(left(folder)), "strays": len(objects - named), "holes": len(named - objects)}


def compare(file: Arrival, received: list[list[BatchFile]]) -> dict[str, int]:
    """Count what became of files of one content, given the records of each."""
    records = [record for of_file in received for record in of_file]
    accepted = [record for record in records if record.is_accepted]
    spent = [record for record in records if record.error_message.startswith(SPENT)]
    is_decided = bool(accepted) == bool(file.rows) or bool(spent)
    is_right = is_decided and all(is_whole(record, file) for record in accepted)
    return {
        "accepted": len(accepted),
        "rejected": len(records) - len(accepted),
        "spent": len(spent),
        "missing": received.count([]) or not is_right,
        "twice": sum(max(len(of_file) - 1, 0) for of_file in received) + max(len(accepted) - 1, 0),
    }


def is_whole(record: BatchFile, file: Arrival) -> bool:
    """Tell whether all lines of a file are rows that have succeeded, or faulty."""
    from alya_django.models import BatchRow
    from alya_django.status import Status

    succeeded = BatchRow.objects.filter(batch=record.batch_id, status=Status.SUCCESS).count()
    is_done = record.batch is not None and record.batch.status == Status.SUCCESS
    return is_done and (succeeded, record.nfaulty) == (file.rows, file.nfaulty)


def stored_objects() -> set[str]:
    storage = Path(os.environ["STORAGE_DIR"])
    return {str(path.relative_to(storage)) for path in storage.rglob("*") if path.is_file()}


def named_objects() -> set[str]:
    """Return the objects that records name; no op here has output files."""
    from alya_django.models import BatchFile

    pairs = BatchFile.objects.values_list("object_id", "error_object_id")
    return {name for pair in pairs for name in pair if name}


if __name__ == "__main__":
    main()

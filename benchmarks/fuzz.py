"""
How often the readers of received files fail in a way that they should not: at random, for some minutes.

Good files of every make that is read, CSV in several encodings and dialects, packed or not, and workbooks, are spoilt
at random, byte by byte and by what is hard on a reader: quotes, NUL characters, byte order marks, references to far
cells. Each is read to its end, as a checker would. Rows, faulty lines and BadFile are all that may come of it:
anything else counts as a crash, and its seed is printed. The files are read by child processes with little memory and
little time, so that one that takes its process down, asks for too much, or does not end is a crash, too.

Not shown: checkers, the storage and the database.

Budget: no crash.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import os
import random
import resource
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable

import django

from benchmarks import bombs, harness

CHILD_SECONDS = 20
CHILD_BYTES = 2_000_000_000
PATIENCE_SECONDS = 60
LIMITS = {
    "UNPACKED_BYTES_MAX": 2_000_000,
    "RECORD_CHARS_MAX": 2_000,
    "XLSX_BYTES_MAX": 2_000_000,
    "XLSX_CELLS_MAX": 100_000,
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1")
TOKENS = (
    *(b'"', b'""', b",", b";", b"\n", b"\r", b"\r\n", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1f\x8b", b"PK\x03\x04"),
    *(
        b"XFD1048576",
        b"r=",
        b"<v>",
        b"</c>",
        b"<row r='99999999999'>",
        b"&#0;",
        b"<!DOCTYPE a>",
        b"=1+1",
        b"-",
        b"\xd8",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Read files that are spoilt at random.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None, help="Where the first child begins, to see a crash again.")
    parser.add_argument("--bombs", action="store_true", help="Read files that are made to cost memory, instead.")
    parser.add_argument("--child", type=float, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bombs:
        bombs.run()
        return
    seed = random.randrange(10**9) if options.seed is None else options.seed
    if options.child is not None:
        read_for(options.child, seed)
        return
    deadline = time.monotonic() + 60 * options.minutes
    counts: Counter[str] = Counter()
    while (left := deadline - time.monotonic()) > 0:
        counts += run_child(seed, min(left, CHILD_SECONDS))
        seed += 10**6
    harness.report(
        f"files read in {options.minutes:g} minutes",
        {"files": counts["files"], "rows": counts["rows"], "refused": counts["refused"], "crashes": counts["crashes"]},
    )
    sys.exit(bool(counts["crashes"]))


def run_child(seed: int, seconds: float) -> Counter[str]:
    """Have a child read files for some seconds; count its death, or that it does not end, as a crash."""
    command = [sys.executable, "-m", "benchmarks.fuzz", "--child", f"{seconds}", "--seed", f"{seed}"]
    environment = {**os.environ, "ALYA": json.dumps(LIMITS), "STORAGE_DIR": "", "DATABASE_URL": "sqlite://:memory:"}
    environment["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds + PATIENCE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"The child of seed {seed} does not end.", flush=True)
        return Counter(crashes=1)
    *told, last = done.stdout.splitlines() or [""]
    print("\n".join(told), end="\n" if told else "", flush=True)
    if done.returncode:
        print(f"The child of seed {seed} died at {last}: {done.stderr[-500:]}", flush=True)
        return Counter(crashes=1)
    return Counter(json.loads(last))


def read_for(seconds: float, seed: int) -> None:
    """Read files for some seconds, the next seed each; print each crash, and last the counts as JSON."""
    django.setup()
    resource.setrlimit(resource.RLIMIT_AS, (CHILD_BYTES, CHILD_BYTES))
    counts: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            rows, is_refused = read(random.Random(seed))
            counts.update(files=1, rows=rows, refused=is_refused)
        except BaseException as error:
            counts.update(files=1, crashes=1)
            print(f"seed {seed}: {type(error).__name__}: {error}"[:500], flush=True)
        seed += 1
    print(json.dumps(counts))


def read(chance: random.Random) -> tuple[int, bool]:
    """Read one spoilt file to its end, and return how many lines it has, and whether it was refused."""
    from alya_django import BadFile
    from alya_django.intake import read_csv, read_xlsx
    from alya_django.intake.unpack import unpacked

    make = chance.choice(MAKES)
    content, options = make(chance)
    file = io.BufferedReader(io.BytesIO(spoil(content, chance)))
    lines = 0
    try:
        reader = read_xlsx if make is workbook else read_csv
        for _ in reader(unpacked(file), **options):
            lines += 1
    except BadFile:
        return lines, True
    return lines, False


def spoil(content: bytes, chance: random.Random) -> bytes:
    """Return content with some bytes changed, put in, taken out, or said again."""
    spoilt = bytearray(content)
    for _ in range(chance.choice((0, 1, 1, 2, 5, 20))):
        start = chance.randrange(len(spoilt) + 1)
        end = min(len(spoilt), start + chance.choice((0, 1, 2, 10, 200)))
        spoilt[start:end] = chance.choice(
            (b"", chance.randbytes(end - start), chance.choice(TOKENS), bytes(spoilt[start:end]) * 2)
        )
    return bytes(spoilt)


def text(chance: random.Random) -> tuple[bytes, dict[str, object]]:
    """Return a CSV file, and how to read it."""
    file = io.StringIO()
    delimiter = chance.choice(",;\t")
    writer = csv.writer(file, delimiter=delimiter, lineterminator=chance.choice(("\n", "\r\n", "\r")))
    width = chance.randrange(1, 6)
    writer.writerow([f"column {number}" for number in range(width)])
    for _ in range(chance.choice((0, 1, 10, 200))):
        writer.writerow([value(chance) for _ in range(width)])
    encoding = chance.choice(ENCODINGS)
    return file.getvalue().encode(encoding, errors="replace"), {"encoding": encoding, "delimiter": delimiter}


def value(chance: random.Random) -> str:
    return chance.choice(("", "1.50", "two words", 'say "no"', "one\ntwo", "ü", "\U0001f4b6", "x" * 300, "a,b;c"))


def gzipped(chance: random.Random) -> tuple[bytes, dict[str, object]]:
    content, options = text(chance)
    return gzip.compress(content), options


def zipped(chance: random.Random) -> tuple[bytes, dict[str, object]]:
    content, options = text(chance)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        archive.writestr("a.csv", content)
    return file.getvalue(), options


def workbook(chance: random.Random) -> tuple[bytes, dict[str, object]]:
    """Return a workbook whose sheet is spoilt before it is packed, where spoiling does more."""
    from tests.intake import workbooks

    rows = [[value(chance).replace("\n", " ") for _ in range(3)] for _ in range(chance.choice((0, 1, 10, 100)))]
    sheet = workbooks.table(*map(tuple, [["a", "b", "c"], *rows]))
    return workbooks.workbook(spoil(sheet.encode(), chance).decode(errors="replace")), {}


MAKES: tuple[Callable[[random.Random], tuple[bytes, dict[str, object]]], ...] = (text, gzipped, zipped, workbook)


if __name__ == "__main__":
    main()

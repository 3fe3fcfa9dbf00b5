"""
How fast a CSV file becomes queued rows, from the call of ``intake.process`` to its return, and what memory it takes.

The file lies on disk, one line for each row with an account, an amount and a reference, and is given open. The time is
that of storing a copy of it in a local directory with its SHA-256, reading that copy with ``read_csv``, encoding each
line as JSON, storing the rows, and the record of the file, on a server with fsync on. The memory is the largest
resident size of this process during its first runs, above what it was just before. The other side is the same with
``unique_by``: each line is looked up among a million keys of earlier files (``unique_rows_per_s``).

Not shown: a checker that looks at the lines, a storage or a server on another host, files received side by side.

Budget: at least 40 000 rows a second, and less than 100 MB for 1 000 000 lines.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks import harness

EARLIER_KEYS = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description="Receive a CSV file.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    growth: list[float] = []
    rates: dict[str, list[float]] = {"plain": [], "unique": []}
    with harness.alya(), tempfile.TemporaryDirectory(prefix="alya-intake-") as folder:
        path = Path(folder, "payments.csv")
        write(path, options.rows)
        for _ in range(options.rounds):
            for file_type, of_type in rates.items():
                harness.empty_tables()
                fill_keys(min(EARLIER_KEYS, options.rows))
                with harness.memory_growth(growth):
                    of_type.append(rate_of_intake(path, file_type, options.rows))
                print(f"{file_type}: {of_type[-1]:,.0f} rows/s", flush=True)
    harness.report(
        f"intake of {options.rows:,} lines",
        {
            "rows": options.rows,
            "rows_per_s": median(rates["plain"]),
            "unique_rows_per_s": median(rates["unique"]),
            "rss_growth_mb": max(growth[:2]),
        },
    )


def write(path: Path, rows: int) -> None:
    """Write a file of so many payments."""
    with path.open("w") as file:
        file.write("account,amount,reference\n")
        file.writelines(",".join(payment.values()) + "\n" for payment in harness.payments(rows))


def fill_keys(keys: int) -> None:
    """Have so many keys of earlier files."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO alya_business_keys (digest, batch_id, line) "
            "SELECT gen_random_uuid(), gen_random_uuid(), n FROM generate_series(1, %s) AS n",
            [keys],
        )
        cursor.execute("CHECKPOINT")


def rate_of_intake(path: Path, file_type: str, rows: int) -> float:
    """Return how many lines a second become queued rows."""
    from alya_django import intake

    with path.open("rb") as file:
        started = time.perf_counter()
        receipt = intake.process(file=file, file_name=path.name, file_type=file_type)
        rate = rows / (time.perf_counter() - started)
    if receipt.nrows != rows:
        raise RuntimeError(f"{receipt}")
    return rate


if __name__ == "__main__":
    main()

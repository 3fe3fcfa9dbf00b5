"""
Save an output file of so many megabytes and read it back, and print how much memory that took.

A process of its own, on the example project's settings: ``python -m tests.s3.copy_file 300``.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import django
import psutil

TEXT = "0123456789abcdef" * 62_500
MEGABYTE = len(TEXT)
SAMPLE_SECONDS = 0.005


@contextmanager
def growth() -> Iterator[Callable[[], int]]:
    """Measure by how many bytes the process grows at most inside the block."""
    process = psutil.Process()
    started = peak = process.memory_info().rss
    is_over = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not is_over.wait(SAMPLE_SECONDS):
            peak = max(peak, process.memory_info().rss)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield lambda: peak - started
    finally:
        is_over.set()
        sampler.join()


def main(megabytes: int) -> None:
    django.setup()
    from alya_django import join, outputs

    # What a client needs at first is not the file's.
    with join.Joiner(uuid4(), uuid4()) as joiner:
        joiner.add([{"small.csv": "x"}])
        outputs.open(joiner.save(lambda size: None)["small.csv"].object_name).close()

    with growth() as saving, join.Joiner(uuid4(), uuid4()) as joiner:
        for _ in range(megabytes):
            joiner.add([{"large.csv": TEXT[:-1]}])
        saved = joiner.save(lambda size: None)["large.csv"]
    digest, size = hashlib.sha256(), 0
    with growth() as reading, outputs.open(saved.object_name) as file:
        for piece in file.chunks():
            digest.update(piece)
            size += len(piece)
        file.seek(0)
        lines = sum(1 for _ in file)
    print(
        json.dumps(
            {
                "name": saved.object_name,
                "recorded": [saved.size, saved.checksum],
                "size": size,
                "lines": lines,
                "sha256": digest.hexdigest(),
                "saving": saving(),
                "reading": reading(),
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
